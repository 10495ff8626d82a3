// Names in place of ids. One request reads the names for all ids of a view.

import { get } from './api.js'
import { h } from './dom.js'
import { SHORT_ID, code, shortId } from './parts.js'
import { text } from './texts.js'

const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/
const IDS_PER_REQUEST = 100

const pending = new Map() // the promises of users' names, by id, until the service has responded
let wanted = [] // the ids that the next request names
let titles // the titles of the apps, or their promise

/** Return a nickname; null if it is empty or invisible, as a name stored before wxauth cleaned names can be. */
export const shown = (nickname) => (/[^\s\p{C}\p{M}\u115f\u1160\u2800\u3164\uffa0]/u.test(nickname ?? '') ? nickname : null)

/** Return the name of a user (the nickname, or "Unnamed" with the end of the id). */
export const called = ({ id, nickname }) => shown(nickname) ?? text('namelessAs', { id: id.slice(-SHORT_ID) })

/** Write a user's name on a link. The end of the id stands next to the link, so "Unnamed" alone is enough there. */
function writeName(link, user) {
  link.textContent = shown(user.nickname) ?? text('nameless')
  if (!shown(user.nickname)) link.setAttribute('aria-label', called(user))
}

/** Return a user's name, linked to the page about them, or the name of another actor. */
export function personOf(id, given) {
  if (!UUID.test(id)) return code(id)
  const nickname = shown(given)
  const link = h('a', { href: `#/users/${id}` }, nickname ?? '…')
  if (!nickname) lookUp(id).then((found) => (found ? writeName(link, found) : (link.textContent = text('gone'))))
  return h('span', { class: 'person' }, link, shortId(id))
}

/**
 * Return a user's name, linked to the page about them, above app, device and address of the newest session, because
 * most users give no name.
 */
export function nameAndPlaceOf(user) {
  const { id, identities } = user
  const link = h('a', { href: `#/users/${id}`, class: shown(user.nickname) ? '' : 'nameless' })
  writeName(link, user)
  const place = h('small', {})
  Promise.all([lookUp(id), appTitles()]).then(([found, apps]) => {
    const app = found?.app_id ?? identities.at(-1)?.app_id
    place.textContent = [app && (apps.get(app) ?? app), found?.device, found?.ip].filter(Boolean).join(' · ')
  })
  return h('div', { class: 'lines' }, h('span', { class: 'person' }, link, shortId(id)), place)
}

/** Return a user's name; null if the user has none, does not exist, or the id is malformed. */
export const nameOf = (id) => (UUID.test(id) ? lookUp(id).then((found) => shown(found?.nickname)) : Promise.resolve(null))

/**
 * Return the known data of a user; null if no user has this id. Ids that are requested in one moment share a request.
 */
function lookUp(id) {
  if (!pending.has(id)) {
    if (!wanted.length) queueMicrotask(requestNames)
    wanted.push(id)
    let resolve
    pending.set(id, Object.assign(new Promise((then) => (resolve = then)), { resolve }))
  }
  return pending.get(id)
}

/** Request the wanted names, and resolve their promises. */
async function requestNames() {
  const ids = wanted
  wanted = []
  for (let first = 0; first < ids.length; first += IDS_PER_REQUEST) {
    const some = ids.slice(first, first + IDS_PER_REQUEST)
    const items = await get('/names', { user_id: some }).then((answer) => answer.items, () => null)
    for (const id of some) {
      pending.get(id).resolve(items?.find((each) => each.id === id) ?? null)
      pending.delete(id) // the next view requests it again, because a name might have changed
    }
  }
}

/** Return an app's title, with its id. */
export function appOf(id) {
  if (!id) return null
  const title = h('span', {})
  appTitles().then((apps) => apps.has(id) && title.append(apps.get(id), ' '))
  return h('span', { class: 'app' }, title, code(id))
}

/** Return the titles of the apps that have one, by id. */
function appTitles() {
  titles ??= get('/app_titles').then(
    ({ items }) => new Map(items.filter(({ title }) => title).map(({ app_id, title }) => [app_id, title])),
    () => ((titles = undefined), new Map()),
  )
  return titles
}

/** Forget the titles of the apps, because they have changed, or another user has signed in. */
export const forgetTitles = () => (titles = undefined)
