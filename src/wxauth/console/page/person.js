// The section about one user, with their data, and the actions on it.

import { get, mayAdminister, patch, queryOf, remove } from './api.js'
import { h } from './dom.js'
import { ABOUT, eventCells, eventColumns } from './events.js'
import { TYPES } from './event_sentences.js'
import { knownRoles } from './known.js'
import { merge, split } from './merging.js'
import { appOf, called, personOf, shown } from './names.js'
import { act, actAbout, busy, code, copier, dialog, download, facts, field, list, load, moment, part, sure, table, tag, time, toast, typedJson, whole, withChoices, words } from './parts.js'
import { refusalsOf } from './signins.js'
import { actOn, namesOf, text } from './texts.js'
import { phone, picture, standing } from './users.js'

const STAFF = ['admin', 'support']

export function showPerson(main, { id }) {
  const place = h('div', { class: 'stack' })
  main.append(h('p', {}, h('a', { class: 'back', href: '#/users' }, `← ${text('back')}`)), place)
  const reload = () =>
    load(
      place,
      () => get(`/users/${encodeURIComponent(id)}`), // the id might come from a handwritten link
      (user) => {
        // The title tells tabs apart.
        if (place.isConnected) document.title = `${(main.querySelector('h1').textContent = called(user))} · wxauth`
        return person(user, reload)
      },
    )
  reload()
}

function person(user, reload) {
  const path = `/users/${user.id}`
  const name = called(user)
  const trouble = h('div', {})
  const changed = async (change) => {
    await patch(path, change)
    toast(text('done'))
    reload()
  }
  const isBanned = user.status === 'disabled'
  const unban = act('unban', () => busy(unban, trouble, () => changed({ status: 'active' })))
  const keep = act('keep', () => busy(keep, trouble, () => changed({ erase_at: null })))
  const exported = act('export', () => busy(exported, trouble, () => exportPerson(user)))
  const removal = (what, carryOut) =>
    act(what, () =>
      sure(actOn(what, name), text(`sure_${what}`), what, async () => {
        await carryOut()
        toast(text('done'))
        reload()
      }),
    )
  const mayChange = mayAdminister() || !user.roles.some((role) => STAFF.includes(role))
  const acts = [
    isBanned ? unban : null,
    removal('signOutEverywhere', () => remove(`${path}/sessions`)),
    ...(mayAdminister() ? [exported, user.erase_at ? keep : null] : []),
    user.phone ? removal('removePhone', () => remove(`${path}/phone`)) : null,
    user.nickname ? removal('clearName', () => patch(path, { nickname: null })) : null,
    user.avatar_url ? removal('clearPicture', () => patch(path, { avatar_url: null })) : null,
  ]
  const dangers = [
    act(isBanned ? 'changeBan' : 'ban', () => ban(user, changed), { kind: 'danger' }),
    ...(mayAdminister()
      ? [
          act('merge', () => merge(user), { kind: 'danger' }),
          user.identities.length > 1 ? act('split', () => split(user), { kind: 'danger' }) : null,
          act('erase', () => erase(user), { kind: 'danger' }),
        ]
      : []),
  ]
  return [
    h(
      'section',
      { class: 'card' },
      h('div', { class: 'head' }, picture(user, 'large'), h('span', {}, code(user.id), ' ', copier(user.id, actOn('copy', user.id))), standing(user)),
      facts([
        user.erase_at ? [text('erasedAt'), [time(user.erase_at), isBanned ? text('notWhileBanned') : null]] : null,
        isBanned ? [text('bannedUntil'), user.until ? time(user.until) : text('bannedForGood')] : null,
        isBanned ? [text('bannedBy'), whoBanned(user)] : null,
        user.reason ? [text('banWhy'), user.reason] : null,
        [text('phone'), phone(user)],
        ...profile(user),
        ['unionid', code(user.unionid)],
        user.external_id || user.former_external_ids?.length ? [text('externalId'), [user.external_id, ...(user.former_external_ids ?? [])].map(code)] : null,
        user.former_ids?.length ? [text('formerIds'), user.former_ids.map(code)] : null,
        [text('created'), time(user.created_at)],
        [text('lastLogin'), time(user.last_login_at)],
        user.sessions.length ? null : [text('devices'), text('noDevices')],
      ]),
      trouble,
      ...(mayChange
        ? [
            h('p', { class: 'acts', role: 'group', 'aria-label': text('acts') }, acts),
            h('div', { class: 'dangers', role: 'group', 'aria-label': text('dangers') }, h('h2', {}, text('dangers')), h('p', { class: 'acts' }, dangers)),
          ]
        : []),
      mayAdminister() ? null : h('p', { class: 'quiet' }, text(mayChange ? 'restIsAdmins' : 'staffIsAdmins')),
    ),
    mayAdminister() ? part(text('roles'), rolesForm(user, changed)) : user.roles.length ? part(text('roles'), h('p', {}, user.roles.map((role) => tag(role)))) : null,
    mayAdminister() || Object.keys(user.attributes).length ? part(text('attributes'), ...attributesOf(user, changed)) : null,
    part(
      text('identities'),
      ...table(
        text('identities'),
        [text('app'), 'openid'],
        user.identities.map(({ app_id, openid }) => [appOf(app_id), code(openid)]),
      ).elements,
    ),
    user.sessions.length ? part(text('devices'), ...devices(user, mayChange, reload)) : null,
    user.ended_sessions.length ? part(text('endedDevices'), ...endedDevices(user.ended_sessions)) : null,
    refusalsOf(user),
    user.consents?.length ? part(text('consents'), ...consents(user.consents)) : null,
    part(text('eventsOfPerson'), eventsOf(user), elsewhere(user)),
  ]
}

/** Return the fields of a user's profile besides name and picture. */
const profile = (user) =>
  namesOf('profile_').flatMap((name) => (user[name] && !['nickname', 'avatar_url'].includes(name) ? [[text(`profile_${name}`), user[name]]] : []))

/** Return the actor of the newest ban, from the audit log. */
function whoBanned({ id }) {
  const place = h('span', {}, '…')
  get('/events', { user_id: id, type: 'user.banned', limit: 1 }).then(
    ({ items }) => place.replaceChildren(items.length ? personOf(items[0].actor) : text('unknown')),
    () => place.replaceChildren(text('unknown')),
  )
  return place
}

function rolesForm(user, changed) {
  const typed = field({ name: 'roles', label: text('roles'), value: user.roles.join(', '), hint: text('rolesHint'), read: words })
  const roles = withChoices(typed, knownRoles().then((known) => known.map((role) => [role])))
  typed.element.querySelector('label').className = 'unseen' // the card's heading already says it
  const save = h('button', { disabled: true }, text('save'))
  const trouble = h('div', {})
  const oninput = () => (save.disabled = roles.value().join() === user.roles.join())
  const onsubmit = () => busy(save, trouble, () => changed({ roles: roles.value() }))
  return h('form', { oninput, onsubmit }, roles.element, trouble, h('p', { class: 'acts' }, save))
}

/** Return the attributes of a user, which an administrator sets one by one. */
function attributesOf(user, changed) {
  const shown = facts(Object.entries(user.attributes).map(([name, value]) => [name, code(JSON.stringify(value))]))
  if (!mayAdminister()) return [shown]
  const name = field({ name: 'attribute', label: text('attributeName'), required: true })
  const value = field({ name: 'attribute-value', label: text('attributeValue'), placeholder: text('attributeEmpty'), read: (typed) => (typed ? typedJson(typed) : null) })
  const set = h('button', {}, text('set'))
  const trouble = h('div', {})
  const onsubmit = () => busy(set, trouble, () => changed({ attributes: { [name.value()]: value.value() } }))
  const form = h('form', { onsubmit }, h('div', { class: 'toolbar' }, name.element, value.element, set), trouble)
  return Object.keys(user.attributes).length ? [shown, form] : [form]
}

function devices(user, mayChange, reload) {
  const rows = user.sessions.map((session) => {
    const trouble = h('div', {})
    const out = actAbout('signOutDevice', session.device ?? text('unknownDevice'), () =>
      busy(out, trouble, async () => (await remove(`/users/${user.id}/sessions/${session.id}`), reload())),
    )
    return [...cellsOf(session), ...(mayChange ? [[out, trouble]] : [])]
  })
  return table(text('devices'), [...SESSION_COLUMNS, ...(mayChange ? ['acts'] : [])].map(text), rows).elements
}

const SESSION_COLUMNS = ['device', 'app', 'opened', 'lastUsed']

const cellsOf = (session) => [
  session.device ?? text('unknownDevice'),
  session.resource ? usesOf(session) : session.client_id ? code(session.client_id) : appOf(session.app_id),
  [time(session.created_at), ...openedFrom(session)],
  [time(session.last_used_at), below(loginsFrom(session.ip))],
]

/** Return which client may do what at which resource. A client that is not registered is known by its host. */
const usesOf = ({ client, resource, scopes }) => [
  h('strong', {}, client.host ?? client.title),
  ...(client.host ? [below(client.title)] : []),
  below(`${resource.title} · ${resource.resource}`),
  ...scopes.map((scope) => tag(scope)),
]

/** Return the address from which a session was opened, and the device if it was another one. */
const openedFrom = ({ opened, device }) =>
  [below(loginsFrom(opened.ip)), opened.device !== device ? below(opened.device ?? text('unknownDevice')) : null].filter(Boolean)

const below = (words) => h('small', {}, words)

/** Return an address, linked to the logins from there. */
const loginsFrom = (ip) => (ip ? h('a', { class: 'whole', href: `#/signins${queryOf({ network: ip })}`, title: text('loginsFrom') }, ip) : whole(ip))

const endedDevices = (sessions) =>
  table(
    text('endedDevices'),
    [...SESSION_COLUMNS, 'ended'].map(text),
    sessions.map((session) => [
      ...cellsOf(session),
      [time(session.ended_at), below(text(`ended_${session.ended_reason}`))],
    ]),
  ).elements

const consents = (given) =>
  table(
    text('consents'),
    ['document', 'version', 'given', 'withdrawn'].map(text),
    given.map((each) => [each.document, each.version, time(each.given_at), time(each.withdrawn_at)]),
  ).elements

/** Return the events about a user. Views of this page by staff are left out, because they would hide the rest. */
function eventsOf(user) {
  const place = h('div', {})
  list({
    place,
    caption: text('eventsOfPerson'),
    nothing: () => h('p', {}, text('empty_events')),
    columns: eventColumns().toSpliced(ABOUT, 1),
    ask: (cursor) => get('/events', { user_id: user.id, type: TYPES.filter((type) => type !== 'staff.read'), limit: 20, cursor }),
    cells: (event) => eventCells(event).toSpliced(ABOUT, 1),
  })
  return place
}

/** Return links to the rest of the audit log about a user: who has viewed them, and what they have done. */
const elsewhere = ({ id }) =>
  h('p', { class: 'acts' }, [
    h('a', { class: 'back', href: `#/events${queryOf({ user_id: id, type: 'staff.read' })}` }, text('whoRead')),
    h('a', { class: 'back', href: `#/events${queryOf({ actor: id })}` }, text('whatTheyDid')),
    h('a', { class: 'back', href: `#/signins${queryOf({ user_id: id })}` }, text('allLogins')),
  ])

async function exportPerson(user) {
  const content = await get(`/users/${user.id}/export`)
  download(`${user.id}.json`, JSON.stringify(content, null, 2), 'application/json')
}

/** Ban a user, or change the reason and end of a ban. */
function ban(user, changed) {
  const isBanned = user.status === 'disabled'
  const fields = [
    field({ name: 'reason', label: text('banReason'), type: 'textarea', value: user.reason ?? '', hint: text('banReasonHint'), maxLength: 500 }),
    moment({ name: 'until', label: text('banUntil'), value: user.until, hint: text('banUntilHint'), days: [1, 7, 30] }),
  ]
  dialog({
    title: actOn(isBanned ? 'changeBan' : 'ban', called(user)),
    lead: text('sureBan'),
    fields,
    name: isBanned ? 'save' : 'ban',
    kind: 'danger',
    onsubmit: ({ reason, until }) => changed({ status: 'disabled', reason: reason || null, until: until || null }),
  })
}

function erase(user) {
  const typed = field({ name: 'name', label: text('typeName'), required: true, hint: [shown(user.nickname), user.id].filter(Boolean).join(' / ') })
  dialog({
    title: actOn('erase', called(user)),
    lead: text('sureErase'),
    fields: [typed],
    name: 'erase',
    kind: 'danger',
    allow: ({ name }) => [user.id, shown(user.nickname)?.trim()].includes(name),
    onsubmit: async () => {
      await remove(`/users/${user.id}`)
      toast(text('erased'))
      location.hash = '#/users'
    },
  })
}
