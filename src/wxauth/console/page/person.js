// The page about one user, with the user's data, and the actions on the user.

import { get, mayAdminister, patch, queryOf, remove } from './api.js'
import { h } from './dom.js'
import { ABOUT_COLUMN, eventCells, eventColumns, json } from './events.js'
import { TYPES } from './event_sentences.js'
import { knownRoles } from './known.js'
import { merge, split } from './merging.js'
import { appOf, displayName, personOf, visibleNickname } from './names.js'
import {
  actionButton,
  actionButtonFor,
  address,
  besideTitle,
  busy,
  code,
  copier,
  dialog,
  download,
  facts,
  field,
  list,
  load,
  moment,
  part,
  confirmAction,
  table,
  tag,
  time,
  toast,
  tokens,
  typedJson,
} from './parts.js'
import { refusalsOf } from './signins.js'
import { actOn, namesOf, text } from './texts.js'
import { phone, picture, standing } from './users.js'

const STAFF_ROLES = ['admin', 'support']
const SESSION_COLUMNS = ['device', 'app', 'opened', 'lastUsed']

export function showPerson(main, { id }) {
  const place = h('div', { class: 'stack' })
  const acts = besideTitle(main, [])
  const title = main.querySelector('h1')
  const head = h('div', { class: 'head' })
  title.replaceWith(head)
  head.append(h('div', { class: 'acts' }, title))
  main.prepend(h('p', {}, h('a', { class: 'back', href: '#/users' }, `← ${text('back')}`)))
  main.append(place)
  const reload = () =>
    load(
      place,
      () => get(`/users/${encodeURIComponent(id)}`), // the id might come from a handwritten link
      (user) => {
        if (place.isConnected) showHead(head, user)
        acts.replaceChildren(...headActs(user, reload))
        return partsAbout(user, reload)
      },
    )
  reload()
}

/** Show who the user is. The name is also the page's title, which tells the browser's tabs apart. */
function showHead(head, user) {
  const title = head.querySelector('h1') // stays in place, because it has the focus
  for (const shownBefore of head.querySelectorAll(':scope > :not(.acts), .tag')) shownBefore.remove()
  title.textContent = displayName(user)
  title.after(...standing(user))
  head.prepend(picture(user, 'large'))
  head.append(idOf(user))
  document.title = `${displayName(user)} · wxauth`
}

/** Return the parts of the page about a user. */
function partsAbout(user, reload) {
  const change = async (fields) => {
    await patch(`/users/${user.id}`, fields)
    toast(text('done'))
    reload()
  }
  const identities = user.identities.map(({ app_id, openid }) => [appOf(app_id), code(openid)])
  return [
    h(
      'section',
      { class: 'card' },
      facts(factsAbout(user, reload), 'columns'),
      mayAdminister() ? null : h('p', { class: 'quiet' }, text(mayChange(user) ? 'restIsAdmins' : 'staffIsAdmins')),
    ),
    rolesOf(user, change),
    attributesOf(user, change),
    part(text('identities'), ...table(text('identities'), [text('app'), 'openid'], identities).elements),
    user.sessions.length ? part(text('devices'), ...devices(user, reload)) : null,
    user.ended_sessions.length ? part(text('endedDevices'), ...endedDevices(user.ended_sessions)) : null,
    refusalsOf(user),
    user.consents?.length ? part(text('consents'), ...consents(user.consents)) : null,
    part(text('eventsOfPerson'), eventsOf(user), linksAbout(user)),
    mayChange(user) ? dangers(user, change) : null,
  ]
}

/** Return whether the reader may change the user. Only administrators may change staff. */
const mayChange = (user) => mayAdminister() || !user.roles.some((role) => STAFF_ROLES.includes(role))

/** Return a button that asks for confirmation of the action `what` on a user. */
const confirmingButton = (what, user, carryOut, reload, options) =>
  actionButton(
    what,
    () =>
      confirmAction(actOn(what, displayName(user)), text(`sure_${what}`), what, async () => {
        await carryOut()
        toast(text('done'))
        reload()
      }),
    options,
  )

/** Return the buttons at the top of the page. */
function headActs(user, reload) {
  const signOut = () => remove(`/users/${user.id}/sessions`)
  const exportButton = actionButton('export', () => busy(exportButton, null, () => exportUser(user)))
  return [
    mayChange(user) ? confirmingButton('signOutEverywhere', user, signOut, reload) : null,
    mayAdminister() ? exportButton : null,
  ].filter(Boolean)
}

const idOf = ({ id }) => h('span', { class: 'id-line' }, code(id), copier(id, actOn('copy', id)))

/**
 * Return the facts about a user, as pairs of a term and its value. Some values have a button that removes them. Facts
 * that do not apply are null.
 */
function factsAbout(user, reload) {
  const path = `/users/${user.id}`
  const clearing = (what, carryOut) =>
    mayChange(user) ? [' ', confirmingButton(what, user, carryOut, reload, { kind: 'small plain' })] : []
  const clearName = clearing('clearName', () => patch(path, { nickname: null }))
  const clearPicture = clearing('clearPicture', () => patch(path, { avatar_url: null }))
  const removePhone = clearing('removePhone', () => remove(`${path}/phone`))
  const isBanned = user.status === 'disabled'
  const externalIds = [user.external_id, ...(user.former_external_ids ?? [])]
  return [
    user.erase_at ? [text('erasedAt'), [time(user.erase_at), isBanned ? text('notWhileBanned') : null]] : null,
    isBanned ? [text('bannedUntil'), user.until ? time(user.until) : text('bannedForGood')] : null,
    isBanned ? [text('bannedBy'), whoBanned(user)] : null,
    user.reason ? [text('banWhy'), user.reason] : null,
    user.nickname ? [text('name'), [visibleNickname(user.nickname), clearName]] : null,
    user.avatar_url && mayChange(user) ? [text('logo'), clearPicture] : null, // the head shows it
    [text('phone'), user.phone ? [phone(user), removePhone] : null],
    ...profileOf(user, (name) => clearing('clearField', () => patch(path, { [name]: null }))),
    ['unionid', code(user.unionid)],
    externalIds.some(Boolean) ? [text('externalId'), externalIds.map(code)] : null,
    user.former_ids?.length ? [text('formerIds'), user.former_ids.map(code)] : null,
    [text('created'), time(user.created_at)],
    [text('lastLogin'), time(user.last_login_at)],
    [text('lastSeen'), time(user.last_seen_at)],
    user.sessions.length ? null : [text('devices'), text('noDevices')],
  ]
}

/** Return the last part of the page, with the actions that have serious consequences, and what each of them does. */
function dangers(user, change) {
  const isBanned = user.status === 'disabled'
  const kind = 'danger'
  const unban = actionButton('unban', () => busy(unban, null, () => change({ status: 'active' })))
  const keep = actionButton('keep', () => busy(keep, null, () => change({ erase_at: null })))
  const rows = [
    ['ban', isBanned ? unban : null, actionButton(isBanned ? 'changeBan' : 'ban', () => ban(user, change), { kind })],
    ...(mayAdminister()
      ? [
          ['merge', actionButton('merge', () => merge(user), { kind })],
          user.identities.length > 1 ? ['split', actionButton('split', () => split(user), { kind })] : null,
          ['erase', user.erase_at ? keep : null, actionButton('erase', () => erase(user), { kind })],
        ]
      : []),
  ].filter(Boolean)
  const rowOf = ([what, ...buttons]) =>
    h('li', {}, h('p', {}, text(`what_${what}`)), h('div', { class: 'acts' }, buttons))
  const card = part(text('dangers'), h('ul', {}, rows.map(rowOf)))
  card.classList.add('dangers')
  return card
}

/** Return the part with a user's roles, which an administrator can change; null if there is nothing to show. */
function rolesOf(user, change) {
  if (mayAdminister()) return part(text('roles'), rolesForm(user, change))
  if (!user.roles.length) return null
  return part(text('roles'), h('p', {}, user.roles.map((role) => tag(role))))
}

/** Return the fields of a user's profile as pairs, except nickname and picture, which the page shows elsewhere. */
const profileOf = (user, clearButton) =>
  namesOf('profile_')
    .filter((name) => user[name] && !['nickname', 'avatar_url'].includes(name))
    .map((name) => [text(`profile_${name}`), [user[name], clearButton(name)]])

/** Return an element that shows who has banned a user. It loads the newest ban from the audit trail. */
function whoBanned({ id }) {
  const place = h('span', {}, '…')
  get('/events', { user_id: id, type: 'user.banned', limit: 1 }).then(
    ({ items }) => place.replaceChildren(items.length ? personOf(items[0].actor) : text('unknown')),
    () => place.replaceChildren(text('unknown')),
  )
  return place
}

function rolesForm(user, change) {
  const roles = tokens({
    name: 'roles',
    label: text('roles'),
    value: user.roles,
    hint: text('rolesHint'),
    known: knownRoles(),
  })
  roles.element.querySelector('label').className = 'unseen' // the card's heading already says it
  const save = h('button', { class: 'primary', disabled: true }, text('save'))
  const trouble = h('div', {})
  const oninput = () => (save.disabled = roles.value().join() === user.roles.join())
  const onsubmit = () => busy(save, trouble, () => change({ roles: roles.value() }))
  return h('form', { oninput, onsubmit }, h('div', { class: 'roles' }, roles.element, save), trouble)
}

/**
 * Return the part with a user's attributes, which an administrator can set one by one; null if there is nothing to
 * show.
 */
function attributesOf(user, change) {
  const attributes = Object.entries(user.attributes)
  const content = []
  if (attributes.length) content.push(facts(attributes.map(([name, value]) => [name, code(JSON.stringify(value))])))
  if (mayAdminister()) content.push(attributeForm(change))
  return content.length ? part(text('attributes'), ...content) : null
}

/** Return the form that sets an attribute. An empty value removes the attribute. */
function attributeForm(change) {
  const name = field({ name: 'attribute', label: text('attributeName'), required: true })
  const value = field({
    name: 'attribute-value',
    label: text('attributeValue'),
    placeholder: text('attributeEmpty'),
    read: (typed) => (typed ? typedJson(typed) : null),
  })
  const set = h('button', {}, text('set'))
  const trouble = h('div', {})
  const onsubmit = () => busy(set, trouble, () => change({ attributes: { [name.value()]: value.value() } }))
  return h('form', { onsubmit }, h('div', { class: 'toolbar' }, name.element, value.element, set), trouble)
}

/**
 * Return a table of a user's open sessions. Each row has a button to end its session if the reader may change the user.
 */
function devices(user, reload) {
  const rows = user.sessions.map((session) => {
    const endSession = async () => {
      await remove(`/users/${user.id}/sessions/${session.id}`)
      reload()
    }
    const device = session.device ?? text('unknownDevice')
    const button = actionButtonFor('signOutDevice', device, () => busy(button, null, endSession))
    return mayChange(user) ? [...cellsOf(session), button] : cellsOf(session)
  })
  const columns = mayChange(user) ? [...SESSION_COLUMNS, 'acts'] : SESSION_COLUMNS
  return table(text('devices'), columns.map(text), rows).elements
}

/** Return the cells of a session, in the order of SESSION_COLUMNS. */
const cellsOf = (session) => [
  session.device ?? text('unknownDevice'),
  ownerOf(session),
  [time(session.created_at), ...openedFrom(session)],
  [time(session.last_used_at), loginsFrom(session.ip)],
]

/** Return what a session was opened for: a program that uses a resource, a site, or an app. */
function ownerOf(session) {
  if (session.resource) return accessOf(session)
  return session.client_id ? code(session.client_id) : appOf(session.app_id)
}

/** Return which client may do what at which resource. A client that is not registered is known by its host. */
const accessOf = ({ client, resource, scopes }) => [
  h('strong', {}, client.host ?? client.title),
  ...(client.host ? [below(client.title)] : []),
  below(`${resource.title} · ${resource.resource}`),
  ...scopes.map((scope) => tag(scope)),
]

/** Return the address from which a session was opened, and the device if it was another one. */
const openedFrom = ({ opened, device }) =>
  [
    loginsFrom(opened.ip),
    opened.device === device ? null : below(opened.device ?? text('unknownDevice')),
  ].filter(Boolean)

/** Return content that stands below a cell's main text. */
const below = (content) => h('small', {}, content)

/** Return an address below a cell's main text; null without an address. */
const loginsFrom = (ip) => (ip ? below(address(ip)) : null)

const endedDevices = (sessions) =>
  table(
    text('endedDevices'),
    [...SESSION_COLUMNS, 'ended'].map(text),
    sessions.map((session) => [
      ...cellsOf(session),
      [time(session.ended_at), below(text(`ended_${session.ended_reason}`))],
    ]),
  ).elements

const consents = (items) =>
  table(
    text('consents'),
    ['document', 'version', 'given', 'withdrawn'].map(text),
    items.map((consent) => [consent.document, consent.version, time(consent.given_at), time(consent.withdrawn_at)]),
  ).elements

/**
 * Return a list of the events about a user. Views of this page by staff are left out, because they would hide the rest.
 */
function eventsOf(user) {
  const types = TYPES.filter((type) => type !== 'staff.read')
  const place = h('div', {})
  list({
    place,
    caption: text('eventsOfPerson'),
    nothing: () => h('p', {}, text('empty_events')),
    columns: eventColumns().toSpliced(ABOUT_COLUMN, 1),
    ask: (cursor) => get('/events', { user_id: user.id, type: types, limit: 20, cursor }),
    cells: (event) => eventCells(event).toSpliced(ABOUT_COLUMN, 1),
    detail: json,
  })
  return place
}

/** Return links to who has viewed the user's data, to what the user has done, and to all logins of the user. */
const linksAbout = ({ id }) =>
  h('p', { class: 'acts' }, [
    h('a', { class: 'back', href: `#/events${queryOf({ user_id: id, type: 'staff.read' })}` }, text('whoRead')),
    h('a', { class: 'back', href: `#/events${queryOf({ actor: id })}` }, text('whatTheyDid')),
    h('a', { class: 'back', href: `#/signins${queryOf({ user_id: id })}` }, text('allLogins')),
  ])

async function exportUser(user) {
  const content = await get(`/users/${user.id}/export`)
  download(`${user.id}.json`, JSON.stringify(content, null, 2), 'application/json')
}

/** Show the dialog that bans a user, or that changes the reason and the end of a ban. */
function ban(user, change) {
  const isBanned = user.status === 'disabled'
  const fields = [
    field({
      name: 'reason',
      label: text('banReason'),
      type: 'textarea',
      value: user.reason ?? '',
      hint: text('banReasonHint'),
      maxLength: 500,
    }),
    moment({ name: 'until', label: text('banUntil'), value: user.until, hint: text('banUntilHint'), days: [1, 7, 30] }),
  ]
  dialog({
    title: actOn(isBanned ? 'changeBan' : 'ban', displayName(user)),
    lead: text('sureBan'),
    fields,
    name: isBanned ? 'save' : 'ban',
    kind: 'danger',
    onsubmit: ({ reason, until }) => change({ status: 'disabled', reason: reason || null, until: until || null }),
  })
}

/** Show the dialog that erases a user, for which the reader must type the user's nickname or id. */
function erase(user) {
  const nickname = visibleNickname(user.nickname)
  const hint = [nickname, user.id].filter(Boolean).join(' / ')
  const nameOrId = field({ name: 'name', label: text('typeName'), required: true, hint })
  dialog({
    title: actOn('erase', displayName(user)),
    lead: text('sureErase'),
    fields: [nameOrId],
    name: 'erase',
    kind: 'danger',
    allow: ({ name }) => [user.id, nickname?.trim()].includes(name),
    onsubmit: async () => {
      await remove(`/users/${user.id}`)
      toast(text('erased'))
      location.hash = '#/users'
    },
  })
}
