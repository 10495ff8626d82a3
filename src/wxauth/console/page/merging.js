// The dialogs that merge two users, and split an identity from a user.

import { get, post } from './api.js'
import { h } from './dom.js'
import { actionButton, busy, code, dialog, field, goTo, table, time, toast } from './parts.js'
import { appOf, displayName } from './names.js'
import { actOn, text } from './texts.js'
import { phone, picture, standing } from './users.js'

const MAX_RESULTS = 5

/** Ask for the user to merge with, show both side by side, and merge them. */
export function merge(user) {
  const other = otherUser(user)
  dialog({
    title: text('mergeTitle', { name: displayName(user) }),
    lead: [text('sureMerge'), text('undoMerge')],
    fields: [other],
    name: 'merge',
    kind: 'danger',
    size: 'wide',
    allow: ({ pair }) => pair !== null,
    onsubmit: async ({ pair: { ends, remains } }) => {
      await post(`/users/${ends.id}/merge`, { into: remains.id })
      toast(text('done'))
      goTo(`#/users/${remains.id}`)
    },
  })
}

/**
 * Return a field for the other user of a merge. Its value contains both users: the one who `ends`, and the one who
 * `remains` and gets the data of the first. The value is null until the other user is chosen.
 */
function otherUser(user) {
  let pair = null
  const searchField = field({ name: 'other', label: text('mergeFind'), type: 'search', hint: text('searchUsersHint') })
  const trouble = h('div', {})
  const results = h('div', { class: 'found', role: 'status' })
  const comparison = h('div', {}, h('p', { class: 'quiet' }, text('mergeChoose')))
  const choose = (ends, remains) => {
    pair = { ends, remains }
    results.replaceChildren()
    const swap = actionButton('swap', () => choose(remains, ends), { kind: 'small' })
    const warnings = warningsOf(pair).map((warning) => h('p', { class: 'danger' }, warning))
    comparison.replaceChildren(...warnings, ...sideBySide(pair), h('p', { class: 'acts' }, swap))
    comparison.dispatchEvent(new Event('input', { bubbles: true })) // so that the dialog enables its button
  }
  const resultOf = (other) => {
    const name = displayName(other)
    const button = actionButton('take', () => choose(user, other), { kind: 'small', label: actOn('take', name) })
    const nameAndId = h('span', {}, name, h('small', {}, h('code', {}, other.id)))
    return h('p', { class: 'result' }, picture(other), nameAndId, button)
  }
  const searchButton = actionButton('search', () =>
    busy(searchButton, trouble, async () => {
      const page = await get('/users', { q: searchField.value(), limit: MAX_RESULTS + 1 }) // one of them can be `user`
      const others = page.items.filter(({ id }) => id !== user.id)
      const isMore = Boolean(page.next_cursor)
      results.replaceChildren(
        ...others.slice(0, MAX_RESULTS).map(resultOf),
        ...(others.length ? [] : [text(page.incomplete_results ? 'mergeStopped' : 'mergeNobody')]),
        ...(others.length && isMore ? [h('p', { class: 'quiet' }, text('mergeMany'))] : []),
      )
    }),
  )
  searchField.control.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.isComposing) return
    event.preventDefault() // Enter searches, and must not merge
    searchButton.click()
  })
  const finder = h('div', { class: 'finder' }, searchField.element, searchButton)
  const element = h('div', { class: 'stack' }, finder, h('div', {}, trouble, results, comparison))
  return { name: 'pair', element, value: () => pair }
}

/** Return a table that compares the two users of a merge. */
function sideBySide({ ends, remains }) {
  const rows = [
    ['name', (user) => [picture(user), ' ', displayName(user)]],
    ['id', ({ id }) => h('code', {}, id)],
    ['status', standing],
    ['phone', phone],
    ['externalId', ({ external_id }) => code(external_id)],
    ['roles', ({ roles }) => roles.join(', ') || null],
    ['identities', ({ identities }) => identities.map(identityOf)],
    ['created', ({ created_at }) => time(created_at)],
    ['lastLogin', ({ last_login_at }) => time(last_login_at)],
  ]
  const cells = rows.map(([name, show]) => [h('strong', {}, text(name)), show(ends), show(remains)])
  const [scroller] = table(text('compared'), ['what', 'ends', 'remains'].map(text), cells).elements
  scroller.classList.add('compared')
  return [scroller]
}

const identityOf = ({ app_id, openid }) => h('div', {}, appOf(app_id), ' ', code(openid))

/** Return texts about what the remaining user gets from the other one, because administrators might not expect it. */
function warningsOf({ ends, remains }) {
  const names = { ends: displayName(ends), remains: displayName(remains) }
  const roles = ends.roles.filter((role) => !remains.roles.includes(role))
  const textByField = { nickname: 'name', phone: 'phone', external_id: 'externalId' }
  const fields = Object.entries(textByField)
    .filter(([key]) => ends[key] && !remains[key])
    .map(([key, name]) => `${text(name)} ${ends[key]}`)
  return [
    ends.status === 'disabled' && remains.status !== 'disabled' ? text('mergeBans', names) : null,
    roles.length ? text('mergeRoles', { ...names, roles: roles.join(', ') }) : null,
    fields.length ? text('mergeFields', { ...names, fields: fields.join(' · ') }) : null,
  ].filter(Boolean)
}

/** Ask which identity of a user becomes a new user, and split it. */
export function split(user) {
  const { identities } = user
  const externalIds = [user.external_id, ...(user.former_external_ids ?? [])].filter(Boolean)
  const options = identities.map(({ app_id, openid }, index) => [String(index), `${app_id} · ${openid}`])
  const fields = [
    field({ name: 'identity', label: text('identity'), type: 'select', options, value: String(identities.length - 1) }),
    externalIds.length
      ? field({
          name: 'external_id',
          label: text('externalIdLeaves'),
          type: 'select',
          options: [['', text('none')], ...externalIds.map((id) => [id, id])],
        })
      : null,
  ].filter(Boolean)
  dialog({
    title: text('splitTitle', { name: displayName(user) }),
    lead: [
      text('sureSplit', { name: displayName(user) }),
      user.status === 'disabled' ? text('splitBan', { name: displayName(user) }) : null,
      user.roles.length ? text('splitRoles', { name: displayName(user), roles: user.roles.join(', ') }) : null,
    ].filter(Boolean),
    fields,
    name: 'split',
    kind: 'danger',
    onsubmit: async ({ identity, external_id }) => {
      const { new_user } = await post(`/users/${user.id}/split`, {
        ...identities[identity],
        external_id: external_id || null,
      })
      toast(text('splitNew'))
      goTo(`#/users/${new_user.id}`)
    },
  })
}
