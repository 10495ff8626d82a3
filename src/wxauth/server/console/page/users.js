// The section for finding people.

import { get } from './api.js'
import { h } from './dom.js'
import { code, field, list, tag, time } from './parts.js'
import { filters } from './search.js'
import { text } from './texts.js'

export function showUsers(main, { query }) {
  const fields = [
    field({
      name: 'q',
      label: text('searchFor'),
      type: 'search',
      value: query.get('q') ?? '',
      hint: text('searchUsersHint'),
    }),
    field({
      name: 'status',
      label: text('status'),
      type: 'select',
      value: query.get('status') ?? '',
      options: [
        ['', text('any')],
        ['active', text('active')],
        ['disabled', text('banned')],
      ],
    }),
    field({ name: 'role', label: text('role'), value: query.get('role') ?? '' }),
    field({ name: 'app_id', label: text('app'), value: query.get('app_id') ?? '' }),
  ]
  const form = filters(fields, 'users')
  const place = h('div', {})
  main.append(form, place)
  const wanted = Object.fromEntries(query)
  list({
    place,
    caption: text('users'),
    columns: [text('name'), text('id'), text('status'), text('roles'), text('phone'), text('lastLogin')],
    ask: (cursor) => get('/users', { ...wanted, cursor }),
    cells: (user) => [
      [picture(user), h('a', { href: `#/users/${user.id}` }, user.nickname ?? text('noName'))],
      code(user.id),
      standing(user),
      user.roles.map((role) => tag(role)),
      phone(user),
      time(user.last_login_at),
    ],
  })
}

export const standing = ({ status }) =>
  status === 'disabled' ? tag(text('banned'), 'bad') : tag(text('active'), 'ok')

export function phone(user) {
  if (!user.phone) return '–'
  return user.phone_verified === false ? [user.phone, ' ', tag(text('unproved'), 'note')] : user.phone
}

const HOSTS = ['thirdwx.qlogo.cn', 'wx.qlogo.cn']

/** A person's picture if it is ours or WeChat's; otherwise the first letter: another host would learn who looks. */
export function picture({ nickname, avatar_url: url }, kind = 'small') {
  let isKnown = false
  try {
    const { origin, hostname, protocol } = new URL(url)
    isKnown = origin === location.origin || (protocol === 'https:' && HOSTS.includes(hostname))
  } catch {
    // no URL, or a malformed one
  }
  if (isKnown) return h('img', { class: `picture ${kind}`, src: url, alt: '', referrerPolicy: 'no-referrer', loading: 'lazy' })
  return h('span', { class: `picture ${kind}`, 'aria-hidden': 'true' }, [...(nickname ?? '?')][0])
}
