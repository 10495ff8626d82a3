// The section that finds users.

import { get } from './api.js'
import { h } from './dom.js'
import { appField, roleField } from './known.js'
import { called, nameAndPlaceOf, shown } from './names.js'
import { act, busy, field, list, optionsOf, tag, time, whole } from './parts.js'
import { filters, nothingFits } from './search.js'
import { text } from './texts.js'

export function showUsers(main, { query }) {
  const fields = [
    field({
      name: 'q',
      label: text('searchFor'),
      type: 'search',
      value: query.get('q') ?? '',
      hint: text('searchUsersHint'),
      placeholder: text('search_users'),
    }),
    field({
      name: 'status',
      label: text('status'),
      type: 'select',
      value: query.get('status') ?? '',
      options: optionsOf({ '': 'any', active: 'active', disabled: 'banned' }),
    }),
    roleField({ name: 'role', label: text('role'), value: query.get('role') ?? '' }),
    appField({ name: 'app_id', label: text('app'), value: query.get('app_id') ?? '', none: text('any') }),
  ]
  const form = filters(fields, 'users')
  const place = h('div', {})
  const searched = query.get('q') ? h('p', { class: 'quiet', role: 'status' }, text(isWhole(query.get('q')) ? 'searchedWhole' : 'searchedNicknames')) : null
  main.append(form, ...[searched].filter(Boolean), place)
  const wanted = Object.fromEntries(query)
  list({
    place,
    caption: text('users'),
    columns: ['name', 'status', 'roles', 'phone', 'lastLogin'].map(text),
    ask: (cursor) => get('/users', { ...wanted, cursor }),
    open: (user) => () => (location.hash = `#/users/${user.id}`),
    nothing: () => nothingFits('users', query, ...(query.get('q') ? ['tryWhole', 'tryNickname', 'trySignIns'] : ['tryWider'])),
    cells: (user) => [
      named(user),
      standing(user),
      user.roles.map((role) => tag(role)),
      phone(user),
      time(user.last_login_at),
    ],
  })
}

/** Return whether a search term has the form of a number or id, for which the service only finds exact matches. */
const isWhole = (term) => /^(\+?[0-9][0-9 ()-]{6,}|[\w-]{24,36})$/.test(term.trim())

/** Return a user's picture and name, linked to the page about them. */
export const named = (user) => h('div', { class: 'named' }, picture(user), nameAndPlaceOf(user))

/** Return tags that say whether a user is active or banned, and whether the user's erasure is due. */
export function standing({ status, erase_at }) {
  const isBanned = status === 'disabled'
  const found = [isBanned ? tag(text('banned'), 'bad') : null, erase_at ? tag(text('leaving'), 'bad') : null]
  return found.some(Boolean) ? found : tag(text('active'), 'ok')
}

/** Return a user's phone number; null if the user has none. */
export function phone(user) {
  if (!user.phone) return null
  if (user.phone.includes('*')) return masked(user)
  return user.phone_verified === false ? [whole(user.phone), ' ', tag(text('unverified'), 'note')] : whole(user.phone)
}

/** Return a masked number with a button that shows the whole number. The audit log records each use of the button. */
function masked(user) {
  const place = h('span', {}, whole(user.phone), ' ')
  const show = act(
    'showPhone',
    () => busy(show, null, async () => place.replaceChildren(phone({ ...user, ...(await get(`/users/${user.id}/phone`)) }) ?? '')),
    { kind: 'small', label: text('showPhoneOf', { name: called(user) }) },
  )
  place.append(show)
  return place
}

const HOSTS_OF_PICTURES = ['thirdwx.qlogo.cn', 'wx.qlogo.cn']

/**
 * Return the first letters of a name's first two words or, without a name, the end of the id, which is next to the
 * picture.
 */
const initials = ({ id, nickname }) =>
  shown(nickname)?.trim().split(/\s+/).slice(0, 2).map((word) => [...word][0]).join('') ?? id.slice(-2)

/**
 * Return a user's picture, or initials if it cannot be loaded. Only pictures of wxauth or WeChat are loaded, because
 * any other host would learn who looks.
 */
export function picture(user, kind = 'small') {
  const url = user.avatar_url
  const letter = h('span', { class: `picture ${kind}`, 'aria-hidden': 'true' }, initials(user))
  if (!isShown(url)) return letter
  const image = h('img', { class: `picture ${kind}`, alt: '', referrerPolicy: 'no-referrer', loading: 'lazy' })
  image.addEventListener('error', () => image.replaceWith(letter))
  image.src = url
  return image
}

function isShown(url) {
  try {
    const { origin, hostname, protocol } = new URL(url)
    return origin === location.origin || (protocol === 'https:' && HOSTS_OF_PICTURES.includes(hostname))
  } catch {
    return false // no URL, or a malformed one
  }
}
