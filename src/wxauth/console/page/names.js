// Names in place of ids: who somebody is, read for all ids of a view at once.

import { get } from './api.js'
import { h } from './dom.js'
import { SHORT_ID, code, shortId } from './parts.js'
import { text } from './texts.js'

const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/
const AT_ONCE = 100

const known = new Map() // ids of people, with what is known of them, or its promise
let wanted = [] // ids that the next request names
let titles // of the apps, or its promise

// A name that was stored before names were cleaned may show nothing.
export const shown = (nickname) => (/[^\s\p{C}\p{M}\u115f\u1160\u2800\u3164\uffa0]/u.test(nickname ?? '') ? nickname : null)

/** What a person is called everywhere: by the nickname, or as a user without one, with the end of the id. */
export const called = ({ id, nickname }) => shown(nickname) ?? text('namelessAs', { id: id.slice(-SHORT_ID) })

/** Write a person's name on a link that has the end of the id beside it, which completes the name of the nameless. */
function write(link, user) {
  link.textContent = shown(user.nickname) ?? text('nameless')
  if (!shown(user.nickname)) link.setAttribute('aria-label', called(user))
}

/** A person, by name, linked to the page about them; or the name of another actor. */
export function personOf(id, given) {
  if (!UUID.test(id)) return code(id)
  const nickname = shown(given)
  const link = h('a', { href: `#/users/${id}` }, nickname ?? '…')
  if (!nickname) glimpse(id).then((found) => (found ? write(link, found) : (link.textContent = text('gone'))))
  return h('span', { class: 'person' }, link, shortId(id))
}

/** A person's name, linked to the page about them, above app, device and address of the newest session: most people give no name. */
export function nameAndPlaceOf(user) {
  const { id, identities } = user
  const link = h('a', { href: `#/users/${id}`, class: shown(user.nickname) ? '' : 'nameless' })
  write(link, user)
  const place = h('small', {})
  Promise.all([glimpse(id), appTitles()]).then(([found, apps]) => {
    const app = found?.app_id ?? identities.at(-1)?.app_id
    place.textContent = [app && (apps.get(app) ?? app), found?.device, found?.ip].filter(Boolean).join(' · ')
  })
  return h('div', { class: 'lines' }, h('span', { class: 'person' }, link, shortId(id)), place)
}

/** A person's name; null if they have none, nobody has this id, or it is no id. */
export const nameOf = (id) => (UUID.test(id) ? glimpse(id).then((found) => shown(found?.nickname)) : Promise.resolve(null))

/** What is known of a person; null if nobody has this id. Ids that are asked for in the same moment share a request. */
function glimpse(id) {
  if (!known.has(id)) {
    if (!wanted.length) queueMicrotask(ask)
    wanted.push(id)
    let resolve
    known.set(id, Object.assign(new Promise((then) => (resolve = then)), { resolve }))
  }
  return Promise.resolve(known.get(id))
}

async function ask() {
  const ids = wanted
  wanted = []
  for (let first = 0; first < ids.length; first += AT_ONCE) {
    const some = ids.slice(first, first + AT_ONCE)
    const items = await get('/names', { user_id: some }).then((answer) => answer.items, () => null)
    for (const id of some) {
      known.get(id).resolve(items?.find((each) => each.id === id) ?? null)
      known.delete(id) // the next view asks again: a name may have changed
    }
  }
}

/** An app by its title, with its id. */
export function appOf(id) {
  if (!id) return null
  const title = h('span', {})
  appTitles().then((apps) => apps.has(id) && title.append(apps.get(id), ' '))
  return h('span', { class: 'app' }, title, code(id))
}

/** The titles of the apps that have one, by id. */
function appTitles() {
  titles ??= get('/app_titles').then(
    ({ items }) => new Map(items.filter(({ title }) => title).map(({ app_id, title }) => [app_id, title])),
    () => ((titles = undefined), new Map()),
  )
  return titles
}

/** Forget the titles of the apps: they have changed, or somebody else may look now. */
export const forgetTitles = () => (titles = undefined)
