// Names in place of ids. The names for all ids of a view are read together, with at most 100 ids per request.

import { get } from './api.js'
import { h } from './dom.js'
import { SHORT_ID, code, shortId } from './parts.js'
import { text } from './texts.js'

const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/
const IDS_PER_REQUEST = 100
const ACTORS_WITHOUT_ID = ['system', 'operator', 'wechat']
// Neither white space, control and combining characters, nor the letters and the Braille pattern that look empty.
const VISIBLE = /[^\s\p{C}\p{M}\u115f\u1160\u2800\u3164\uffa0]/u

const lookups = new Map() // by user id: the promise of the user's data, and its `resolve`, until the service responds
let requestedIds = [] // the ids that the next request names
let titles // the promise of the apps' titles by app id; undefined until they are needed

/**
 * Return a nickname; null if it is missing, empty or invisible. Older versions of wxauth stored invisible nicknames.
 */
export const visibleNickname = (nickname) => (VISIBLE.test(nickname ?? '') ? nickname : null)

/** Return the name of a user (the nickname, or "WeChat user" with the end of the id). */
export const displayName = ({ id, nickname }) =>
  visibleNickname(nickname) ?? text('namelessAs', { id: id.slice(-SHORT_ID) })

/** Write a user's name on a link. The end of the id stands next to the link, so "WeChat user" alone is enough there. */
function writeName(link, user) {
  const nickname = visibleNickname(user.nickname)
  link.textContent = nickname ?? text('nameless')
  if (!nickname) link.setAttribute('aria-label', displayName(user))
}

/** Return the name of the service that an actor in the audit trail is; null if the actor is not a service. */
export const serviceOf = (actor) =>
  UUID.test(actor) || ACTORS_WITHOUT_ID.includes(actor) ? null : actor.replace(/^client:/, '')

/**
 * Return a user's name, linked to the page about the user. The name is looked up if `knownNickname` is missing or
 * invisible. If `id` is not a UUID, it is the name of a service or of another actor, such as `operator`.
 */
export function personOf(id, knownNickname) {
  const service = serviceOf(id)
  if (service !== null) return h('span', {}, text('aService'), ' ', code(service))
  if (!UUID.test(id)) return code(id)
  const nickname = visibleNickname(knownNickname)
  const link = h('a', { href: `#/users/${id}` }, nickname ?? '…')
  if (!nickname)
    lookUp(id).then((user) => {
      if (user) writeName(link, user)
      else link.textContent = text('gone')
    })
  return h('span', { class: 'person' }, link, shortId(id))
}

/**
 * Return a user's name, linked to the page about the user. Below the name are the app, the device and the address of
 * the newest session, which distinguish users without a nickname.
 */
export function nameAndPlaceOf(user) {
  const { id, identities } = user
  const link = h('a', { href: `#/users/${id}` })
  writeName(link, user)
  const place = h('small', {})
  Promise.all([lookUp(id), appTitles()]).then(([found, titleOf]) => {
    const appId = found?.app_id ?? identities.at(-1)?.app_id
    const app = titleOf.get(appId) ?? appId
    place.textContent = [app, found?.device, found?.ip].filter(Boolean).join(' · ')
    place.title = place.textContent // the list cuts off what is too long
  })
  return h('div', { class: 'lines' }, h('span', { class: 'person' }, link, shortId(id)), place)
}

/** Return a promise of a user's nickname; null if the user has none or does not exist, or if the id is malformed. */
export async function nameOf(id) {
  if (!UUID.test(id)) return null
  const user = await lookUp(id)
  return visibleNickname(user?.nickname)
}

/**
 * Return a promise of a user's nickname and of the place of the newest session; null if no user has this id, or if the
 * request fails. Ids that are looked up one right after the other share a request.
 */
function lookUp(id) {
  if (!lookups.has(id)) {
    if (!requestedIds.length) queueMicrotask(requestNames)
    requestedIds.push(id)
    let resolve
    const promise = new Promise((resolver) => (resolve = resolver))
    lookups.set(id, { promise, resolve })
  }
  return lookups.get(id).promise
}

/** Request the names for the requested ids, and resolve their promises. */
async function requestNames() {
  const ids = requestedIds
  requestedIds = []
  for (let first = 0; first < ids.length; first += IDS_PER_REQUEST) {
    const batch = ids.slice(first, first + IDS_PER_REQUEST)
    const { items } = await get('/names', { user_id: batch }).catch(() => ({ items: [] }))
    for (const id of batch) {
      lookups.get(id).resolve(items.find((user) => user.id === id) ?? null)
      lookups.delete(id) // the next view requests the name again, because it might have changed
    }
  }
}

/** Return an app's title, if it has one, with its id; null without an id. */
export function appOf(id) {
  if (!id) return null
  const title = h('span', {})
  appTitles().then((titleOf) => {
    if (titleOf.has(id)) title.append(titleOf.get(id), ' ')
  })
  return h('span', { class: 'app' }, title, code(id))
}

/** Return a promise of the titles of the apps that have one, by app id. If the request fails, the map is empty. */
function appTitles() {
  titles ??= get('/app_titles').then(
    ({ items }) => new Map(items.filter(({ title }) => title).map(({ app_id, title }) => [app_id, title])),
    () => {
      forgetTitles() // the next view tries again
      return new Map()
    },
  )
  return titles
}

/** Forget the titles of the apps, because they have changed, or another user has signed in. */
export function forgetTitles() {
  titles = undefined
}
