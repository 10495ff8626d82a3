// The section that finds users.

import { get } from './api.js'
import { h } from './dom.js'
import { appField, roleField } from './known.js'
import { displayName, nameAndPlaceOf, visibleNickname } from './names.js'
import { actionButton, busy, field, list, moment, optionsOf, tag, time, whole } from './parts.js'
import { filters, nothingFits } from './search.js'
import { text } from './texts.js'

const WECHAT_PICTURE_HOSTS = ['thirdwx.qlogo.cn', 'wx.qlogo.cn']

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
    moment({ name: 'seen_before', label: text('seenBefore'), value: query.get('seen_before') }),
  ]
  const form = filters(fields, 'users')
  const place = h('div', {})
  const term = query.get('q')
  main.append(form)
  if (term) {
    const howSearched = text(isPhoneOrId(term) ? 'searchedWhole' : 'searchedNicknames')
    main.append(h('p', { class: 'quiet', role: 'status' }, howSearched))
  }
  main.append(place)
  const search = Object.fromEntries(query)
  list({
    place,
    caption: text('users'),
    columns: ['name', 'status', 'roles', 'phone', 'lastSeen'].map(text),
    ask: (cursor) => get('/users', { ...search, cursor }),
    open: (user) => () => (location.hash = `#/users/${user.id}`),
    nothing: () => nothingFits('users', query, ...(term ? ['tryWhole', 'tryNickname', 'trySignIns'] : ['tryWider'])),
    cells: (user) => [
      pictureAndName(user),
      exceptionsOf(user),
      user.roles.map((role) => tag(role)),
      phone(user),
      time(user.last_seen_at),
    ],
  })
}

/** Return whether a search term has the form of a phone number or an id, which the service compares as a whole. */
const isPhoneOrId = (term) => /^(\+?[0-9][0-9 ()-]{6,}|[\w-]{24,36})$/.test(term.trim())

/** Return a user's picture, next to the name, which links to the page about the user. */
const pictureAndName = (user) => h('div', { class: 'named' }, picture(user), nameAndPlaceOf(user))

/** Return the tags of a user's page. Unlike a row of the list, the page also says that a user is active. */
export function standing(user) {
  const exceptions = exceptionsOf(user)
  return exceptions.length ? exceptions : [tag(text('active'), 'ok')]
}

/** Return the tags for a user who is banned or going to be erased. Most users have none. */
const exceptionsOf = ({ status, erase_at }) =>
  [
    status === 'disabled' ? tag(text('banned'), 'bad') : null,
    erase_at ? tag(text('leaving'), 'bad') : null,
  ].filter(Boolean)

/** Return a user's phone number, with a tag if it is not verified; null if the user has none. */
export function phone(user) {
  if (!user.phone) return null
  if (user.phone.includes('*')) return masked(user)
  return user.phone_verified === false ? [whole(user.phone), ' ', tag(text('unverified'), 'note')] : whole(user.phone)
}

/** Return a masked number with a button that shows the whole number. The audit trail records each use of the button. */
function masked(user) {
  const place = h('span', {}, whole(user.phone), ' ')
  const unmask = async () => {
    const unmasked = await get(`/users/${user.id}/phone`)
    place.replaceChildren(...[phone({ ...user, ...unmasked }) ?? ''].flat())
  }
  const label = text('showPhoneOf', { name: displayName(user) })
  const button = actionButton('showPhone', () => busy(button, null, unmask), { kind: 'small', label })
  place.append(button)
  return place
}

/**
 * Return the first letters of the first two words of a user's nickname. Without a nickname, return the end of the id.
 */
function initials({ id, nickname }) {
  const name = visibleNickname(nickname)
  if (!name) return id.slice(-2)
  const words = name.trim().split(/\s+/).slice(0, 2)
  return words.map((word) => [...word][0]).join('')
}

/**
 * Return a user's picture, or the initials if there is no picture, or if it cannot be loaded. Only pictures of wxauth
 * and WeChat are loaded, because any other host would get the reader's IP address.
 */
export function picture(user, kind = 'small') {
  const url = user.avatar_url
  const letters = h('span', { class: `picture ${kind}`, 'aria-hidden': 'true' }, initials(user))
  if (!isTrusted(url)) return letters
  const image = h('img', { class: `picture ${kind}`, alt: '', referrerPolicy: 'no-referrer', loading: 'lazy' })
  image.addEventListener('error', () => image.replaceWith(letters))
  image.src = url
  return image
}

function isTrusted(url) {
  try {
    const { origin, hostname, protocol } = new URL(url)
    return origin === location.origin || (protocol === 'https:' && WECHAT_PICTURE_HOSTS.includes(hostname))
  } catch {
    return false // no URL, or a malformed one
  }
}
