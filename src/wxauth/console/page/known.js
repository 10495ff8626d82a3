// The fields for an app and for a role, with known apps and roles as suggestions.

import { get, mayAdminister } from './api.js'
import { h } from './dom.js'
import { field } from './parts.js'
import { text } from './texts.js'

const CHANGES_READ = 200 // only the newest changes of users' roles are searched for roles

/** Return the apps; no apps if the user has the role `support`, which may not read them. */
async function readableApps() {
  if (!mayAdminister()) return []
  const { items } = await get('/apps')
  return items
}

/** Return the roles of staff, the roles that new users of the apps get, and the roles granted or revoked recently. */
export async function knownRoles() {
  const [apps, changes] = await Promise.all([
    readableApps(),
    get('/events', { type: 'user.roles_changed', limit: CHANGES_READ }),
  ])
  const ofNewUsers = apps.flatMap((app) => app.sign_up_roles ?? [])
  const changed = changes.items.flatMap(({ data }) => [...(data.before ?? []), ...(data.after ?? [])])
  return [...new Set(['admin', 'support', ...ofNewUsers, ...changed])]
}

/** Return a field for one role, with known roles as suggestions. */
export function roleField({ name, label, value }) {
  const suggestions = h('datalist', { id: `known-${name}` })
  const role = field({ name, label, value })
  role.control.setAttribute('list', suggestions.id)
  role.element.append(suggestions)
  knownRoles().then(
    (roles) => suggestions.append(...roles.map((known) => h('option', { value: known }))),
    () => {}, // without suggestions, the role can still be typed
  )
  return role
}

/**
 * Return a field for an app, chosen by its title. `value` is an app id, or empty. `none` is the text for no app.
 * `kinds` limits the choice to apps of these kinds. The apps are added when they have been loaded.
 */
export function appField({ name, label, value, none, kinds }) {
  const options = [['', none]]
  if (value) options.push([value, value])
  const app = field({ name, label, type: 'select', value, options })
  const { control } = app
  const addOption = ({ app_id, title }) => {
    const option = [...control.options].find((other) => other.value === app_id) ?? new Option(app_id, app_id)
    if (title) option.textContent = `${title} (${app_id})`
    control.append(option)
  }
  get('/app_titles').then(
    ({ items }) => {
      for (const item of items) if (!kinds || kinds.includes(item.kind)) addOption(item)
    },
    (failure) => control.append(h('option', { disabled: true }, failure.title || text('failed'))),
  )
  return app
}
