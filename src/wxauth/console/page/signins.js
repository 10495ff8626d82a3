// The logins, and the refused logins, found by the request id that the phone shows.

import { get } from './api.js'
import { h } from './dom.js'
import { appField } from './known.js'
import { appOf, personOf } from './names.js'
import { code, field, list, moment, part, tag, time, whole } from './parts.js'
import { filters, nothingFits } from './search.js'
import { isText, namesOf, number, text } from './texts.js'

const CODES = namesOf('refused_')

/** The index of the column about the user, which the page about one user leaves out. */
const ABOUT = 3

const columns = () => ['time', 'why', 'app', 'person', 'network', 'requestId'].map(text)

const cells = (refusal) => [
  time(refusal.at),
  reasonOf(refusal),
  appOf(refusal.app_id),
  refusal.user_id ? personOf(refusal.user_id) : text('unknownPerson'),
  whole(refusal.network),
  h('code', { class: 'request' }, refusal.request_id),
]

/** Return why a login was refused, in a few words. */
export const whyOf = (refusal) => (isText(`refused_${refusal}`) ? text(`refused_${refusal}`).split(/[.。:：,，]/)[0] : refusal)

const reasonOf = ({ code: refusal, wechat_errcode: errcode, count }) =>
  [
    isText(`refused_${refusal}`) ? h('div', {}, text(`refused_${refusal}`)) : null,
    code(refusal),
    errcode === null ? null : h('small', {}, `errcode ${errcode}`),
    count > 1 ? h('div', {}, text('refusedTimes', { n: number(count) })) : null,
  ].filter(Boolean)

export function showSignIns(main, { query }) {
  const isRefused = query.get('show') === 'refused' || query.has('request_id') || query.has('code')
  const [caption, lead, show] = isRefused ? ['refusedLogins', 'refusedLead', showRefused] : ['successes', 'loginsLead', showLogins]
  const place = h('div', {})
  const tab = (name, isShown, fragment) => h('a', { href: fragment, 'aria-current': isShown ? 'page' : undefined }, text(name))
  main.append(
    h(
      'nav',
      { class: 'tabs', 'aria-label': text('whichLogins') },
      tab('successes', !isRefused, '#/signins'),
      tab('refusedLogins', isRefused, '#/signins?show=refused'),
    ),
    filters(isRefused ? fieldsOfRefused(query) : fieldsOfLogins(query), 'signins', { kept: isRefused ? { show: 'refused' } : {} }),
    h('p', { class: 'quiet' }, text(lead)),
    place,
  )
  const { show: _, ...wanted } = Object.fromEntries(query)
  show({
    place,
    caption: text(caption),
    wanted,
    open: ({ user_id }) => (user_id ? () => (location.hash = `#/users/${user_id}`) : null),
    nothing: () => nothingFits('signins', query, ...(query.get('request_id') ? ['tryRequestId', 'tryWider'] : ['tryWider'])),
  })
}

const showLogins = ({ wanted, ...others }) =>
  list({
    ...others,
    columns: ['time', 'person', 'app', 'device', 'address', 'state'].map(text),
    ask: (cursor) => get('/logins', { ...wanted, cursor }),
    cells: (login) => [
      time(login.at),
      personOf(login.user_id, login.nickname),
      login.client_id ? code(login.client_id) : appOf(login.app_id),
      login.device ?? text('unknownDevice'),
      whole(login.ip),
      login.ended_at ? tag(text('hasEnded')) : tag(text('isOpen'), 'ok'),
    ],
  })

const showRefused = ({ wanted, ...others }) =>
  list({ ...others, columns: columns(), ask: (cursor) => get('/refusals', { ...wanted, cursor }), cells })

const fieldsOfLogins = (query) => [
  field({ name: 'user_id', label: text('personId'), type: 'search', value: query.get('user_id') ?? '' }),
  ...fieldsOfBoth(query),
]

const fieldsOfRefused = (query) => [
  field({
    name: 'request_id',
    label: text('requestId'),
    type: 'search',
    value: query.get('request_id') ?? '',
    hint: text('requestIdHint'),
  }),
  field({
    name: 'code',
    label: text('why'),
    type: 'select',
    value: query.get('code') ?? '',
    options: [['', text('any')], ...CODES.map((each) => [each, whyOf(each)])],
  }),
  field({ name: 'user_id', label: text('personId'), value: query.get('user_id') ?? '' }),
  ...fieldsOfBoth(query),
]

const fieldsOfBoth = (query) => [
  field({ name: 'network', label: text('network'), value: query.get('network') ?? '', hint: text('networkHint') }),
  appField({ name: 'app_id', label: text('app'), value: query.get('app_id') ?? '', none: text('any') }),
  moment({ name: 'since', label: text('since'), value: query.get('since') }),
  moment({ name: 'until', label: text('until'), value: query.get('until') }),
]

/** Return the refused logins of one user. */
export function refusalsOf({ id }) {
  const place = h('div', {})
  const card = part(text('refusedLogins'), place)
  card.hidden = true // hidden until there is something to show
  list({
    place,
    caption: text('refusedLogins'),
    columns: columns().toSpliced(ABOUT, 1),
    ask: async (cursor) => {
      if (cursor) return get('/refusals', { user_id: id, limit: 20, cursor })
      try {
        const first = await get('/refusals', { user_id: id, limit: 20 })
        card.hidden = !first.items.length
        return first
      } catch (failure) {
        card.hidden = false
        throw failure
      }
    },
    cells: (refusal) => cells(refusal).toSpliced(ABOUT, 1),
  })
  return card
}
