// The dialogs that merge two users, and split an identity from a user.

import { get, post } from './api.js'
import { h } from './dom.js'
import { act, busy, code, dialog, field, goTo, table, time, toast } from './parts.js'
import { appOf, called } from './names.js'
import { actOn, text } from './texts.js'
import { phone, picture, standing } from './users.js'

const FOUND_AT_MOST = 5

/** Ask for the user to merge with, show both side by side, and merge them. */
export function merge(user) {
  const other = otherUser(user)
  dialog({
    title: text('mergeTitle', { name: called(user) }),
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
 * Return a field for the other user of a merge. Its value names the user who `ends` and the one who `remains`, or is
 * null.
 */
function otherUser(user) {
  let pair = null
  const searched = field({ name: 'other', label: text('mergeFind'), type: 'search', hint: text('searchUsersHint') })
  const trouble = h('div', {})
  const found = h('div', { class: 'found', role: 'status' })
  const compared = h('div', {}, h('p', { class: 'quiet' }, text('mergeChoose')))
  const choose = (ends, remains) => {
    pair = { ends, remains }
    found.replaceChildren()
    const swap = act('swap', () => choose(remains, ends), { kind: 'small' })
    compared.replaceChildren(...handedOver(pair).map((each) => h('p', { class: 'danger' }, each)), ...sideBySide(pair), h('p', { class: 'acts' }, swap))
    compared.dispatchEvent(new Event('input', { bubbles: true }))
  }
  const result = (each) => {
    const button = act('take', () => choose(user, each), { kind: 'small', label: actOn('take', called(each)) })
    return h('p', { class: 'result' }, picture(each), h('span', {}, called(each), h('small', {}, h('code', {}, each.id))), button)
  }
  const go = act('search', () =>
    busy(go, trouble, async () => {
      const page = await get('/users', { q: searched.value(), limit: FOUND_AT_MOST + 1 })
      const others = page.items.filter(({ id }) => id !== user.id)
      const isMore = Boolean(page.next_cursor)
      found.replaceChildren(
        ...others.slice(0, FOUND_AT_MOST).map(result),
        ...(others.length ? [] : [text(page.incomplete_results ? 'mergeStopped' : 'mergeNobody')]),
        ...(others.length && isMore ? [h('p', { class: 'quiet' }, text('mergeMany'))] : []),
      )
    }),
  )
  searched.control.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.isComposing) return
    event.preventDefault() // Enter searches, and must not merge
    go.click()
  })
  const element = h('div', { class: 'stack' }, h('div', { class: 'finder' }, searched.element, go), h('div', {}, trouble, found, compared))
  return { name: 'pair', element, value: () => pair }
}

/** Return the two users of a merge, side by side. */
function sideBySide({ ends, remains }) {
  const rows = [
    ['name', (user) => [picture(user), ' ', called(user)]],
    ['id', ({ id }) => h('code', {}, id)],
    ['status', standing],
    ['phone', phone],
    ['externalId', ({ external_id }) => code(external_id)],
    ['roles', ({ roles }) => roles.join(', ') || null],
    ['identities', ({ identities }) => identities.map(({ app_id, openid }) => h('div', {}, appOf(app_id), ' ', code(openid)))],
    ['created', ({ created_at }) => time(created_at)],
    ['lastLogin', ({ last_login_at }) => time(last_login_at)],
  ]
  const cells = rows.map(([name, show]) => [h('strong', {}, text(name)), show(ends), show(remains)])
  const [scroller] = table(text('compared'), ['what', 'ends', 'remains'].map(text), cells).elements
  scroller.classList.add('compared')
  return [scroller]
}

/** Return the data that the remaining user gets, and that an administrator might not expect. */
function handedOver({ ends, remains }) {
  const names = { ends: called(ends), remains: called(remains) }
  const roles = ends.roles.filter((role) => !remains.roles.includes(role))
  const lacks = Object.entries({ nickname: 'name', phone: 'phone', external_id: 'externalId' }).filter(([field]) => ends[field] && !remains[field])
  return [
    ends.status === 'disabled' && remains.status !== 'disabled' ? text('mergeBans', names) : null,
    roles.length ? text('mergeRoles', { ...names, roles: roles.join(', ') }) : null,
    lacks.length ? text('mergeFields', { ...names, fields: lacks.map(([field, name]) => `${text(name)} ${ends[field]}`).join(' · ') }) : null,
  ].filter(Boolean)
}

/** Ask which identity of a user becomes a new user, and split it. */
export function split(user) {
  const { identities } = user
  const external = [user.external_id, ...(user.former_external_ids ?? [])].filter(Boolean)
  const options = identities.map(({ app_id, openid }, place) => [String(place), `${app_id} · ${openid}`])
  const fields = [
    field({ name: 'identity', label: text('identity'), type: 'select', options, value: String(identities.length - 1) }),
    external.length
      ? field({
          name: 'external_id',
          label: text('externalIdLeaves'),
          type: 'select',
          options: [['', text('none')], ...external.map((each) => [each, each])],
        })
      : null,
  ].filter(Boolean)
  dialog({
    title: text('splitTitle', { name: called(user) }),
    lead: [
      text('sureSplit', { name: called(user) }),
      user.status === 'disabled' ? text('splitBan', { name: called(user) }) : null,
      user.roles.length ? text('splitRoles', { name: called(user), roles: user.roles.join(', ') }) : null,
    ].filter(Boolean),
    fields,
    name: 'split',
    kind: 'danger',
    onsubmit: async ({ identity, external_id }) => {
      const answer = await post(`/users/${user.id}/split`, { ...identities[identity], external_id: external_id || null })
      toast(text('splitNew'))
      goTo(`#/users/${answer.new_user.id}`)
    },
  })
}
