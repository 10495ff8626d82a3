// The fields for an app and for a role, with known apps and roles as suggestions.

import { get, mayAdminister } from './api.js'
import { h } from './dom.js'
import { field } from './parts.js'
import { text } from './texts.js'

const CHANGES_READ = 200 // the newest changes of roles in which other roles are found

/** Return the apps, with the roles of their new users; no apps for the role `support`, which may not read them. */
const knownApps = async () => (mayAdminister() ? (await get('/apps')).items : [])

/** Return the roles that apps give, and the roles granted or revoked recently. */
export async function knownRoles() {
  const [apps, changes] = await Promise.all([
    knownApps(),
    get('/events', { type: 'user.roles_changed', limit: CHANGES_READ }),
  ])
  const given = apps.flatMap((app) => app.sign_up_roles ?? [])
  const changed = changes.items.flatMap(({ data }) => [...(data.before ?? []), ...(data.after ?? [])])
  return [...new Set(['admin', 'support', ...given, ...changed])]
}

/** Return a field for one role, with known roles as suggestions. */
export function roleField({ name, label, value }) {
  const suggested = h('datalist', { id: `known-${name}` })
  const made = field({ name, label, value })
  made.control.setAttribute('list', suggested.id)
  made.element.append(suggested)
  knownRoles().then(
    (roles) => suggested.append(...roles.map((role) => h('option', { value: role }))),
    () => {}, // the role can still be typed
  )
  return made
}

/**
 * Return a field for an app, chosen by its title. `none` is the text for no app. `kinds` limits the choice to these
 * kinds.
 */
export function appField({ name, label, value, none, kinds }) {
  const options = [['', none], ...(value ? [[value, value]] : [])]
  const made = field({ name, label, type: 'select', value, options })
  const add = ({ app_id, title }) => {
    const option = [...made.control.options].find((each) => each.value === app_id) ?? new Option(app_id, app_id)
    if (title) option.textContent = `${title} (${app_id})`
    made.control.append(option)
  }
  get('/app_titles').then(
    ({ items }) => items.filter(({ kind }) => !kinds || kinds.includes(kind)).forEach(add),
    (failure) => made.control.append(h('option', { disabled: true }, failure.title || text('failed'))),
  )
  return made
}
