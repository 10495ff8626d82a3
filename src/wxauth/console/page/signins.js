// The section about logins and refused logins. A refused login can be found by the request id that the phone shows.

import { get } from './api.js'
import { h } from './dom.js'
import { appField } from './known.js'
import { appOf, personOf } from './names.js'
import { code, field, list, moment, part, tag, time, whole } from './parts.js'
import { filters, nothingFits } from './search.js'
import { isText, namesOf, number, text } from './texts.js'

const ERROR_CODES = namesOf('refused_')

/** The index of the column about the user. The page about a user leaves this column out. */
const USER_COLUMN = 3

const refusalColumns = () => ['time', 'why', 'app', 'person', 'network', 'requestId'].map(text)

const refusalCells = (refusal) => [
  time(refusal.at),
  reasonOf(refusal),
  appOf(refusal.app_id),
  refusal.user_id ? personOf(refusal.user_id) : text('unknownPerson'),
  whole(refusal.network),
  h('code', { class: 'request' }, refusal.request_id),
]

/** Return the reason for an error code of a refused login in a few words; the code itself if it has no text. */
export function whyOf(errorCode) {
  const name = `refused_${errorCode}`
  if (!isText(name)) return errorCode
  const [beginning] = text(name).split(/[。：，]|[.:,](?=\s|$)/) // the dot in `wx.login` ends nothing
  return beginning
}

/** Return the reason for a refused login, with its error code and that of WeChat. */
const reasonOf = ({ code: errorCode, wechat_errcode: errcode, count }) =>
  [
    isText(`refused_${errorCode}`) ? h('div', {}, text(`refused_${errorCode}`)) : null,
    code(errorCode),
    errcode === null ? null : h('small', {}, `errcode ${errcode}`),
    count > 1 ? h('div', {}, text('refusedTimes', { n: number(count) })) : null,
  ].filter(Boolean)

export function showSignIns(main, { query }) {
  const isRefused = query.get('show') === 'refused' || query.has('request_id') || query.has('code')
  const fields = isRefused ? fieldsOfRefused(query) : fieldsOfLogins(query)
  const unchanged = isRefused ? { show: 'refused' } : {}
  const tries = query.get('request_id') ? ['tryRequestId', 'tryWider'] : ['tryWider']
  const place = h('div', {})
  const tab = (name, isShown, href) => h('a', { href, 'aria-current': isShown ? 'page' : undefined }, text(name))
  main.append(
    h(
      'nav',
      { class: 'tabs', 'aria-label': text('whichLogins') },
      tab('successes', !isRefused, '#/signins'),
      tab('refusedLogins', isRefused, '#/signins?show=refused'),
    ),
    filters(fields, 'signins', unchanged),
    h('p', { class: 'quiet' }, text(isRefused ? 'refusedLead' : 'loginsLead')),
    place,
  )
  const { show: _tab, ...search } = Object.fromEntries(query)
  const showList = isRefused ? showRefused : showLogins
  showList({
    place,
    caption: text(isRefused ? 'refusedLogins' : 'successes'),
    search,
    open: ({ user_id }) => (user_id ? () => (location.hash = `#/users/${user_id}`) : null),
    nothing: () => nothingFits('signins', query, ...tries),
  })
}

const showLogins = ({ search, ...others }) =>
  list({
    ...others,
    columns: ['time', 'person', 'app', 'device', 'address', 'state'].map(text),
    ask: (cursor) => get('/logins', { ...search, cursor }),
    cells: (login) => [
      time(login.at),
      personOf(login.user_id, login.nickname),
      login.client_id ? code(login.client_id) : appOf(login.app_id),
      login.device ?? text('unknownDevice'),
      whole(login.ip),
      login.ended_at ? tag(text('hasEnded')) : tag(text('isOpen'), 'ok'),
    ],
  })

const showRefused = ({ search, ...others }) =>
  list({
    ...others,
    columns: refusalColumns(),
    ask: (cursor) => get('/refusals', { ...search, cursor }),
    cells: refusalCells,
  })

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
    options: [['', text('any')], ...ERROR_CODES.map((errorCode) => [errorCode, whyOf(errorCode)])],
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

/** Return a card with the refused logins of a user. It is hidden if there are none. */
export function refusalsOf({ id }) {
  const place = h('div', {})
  const card = part(text('refusedLogins'), place)
  card.hidden = true // until there is a refused login, or a failure
  list({
    place,
    caption: text('refusedLogins'),
    columns: refusalColumns().toSpliced(USER_COLUMN, 1),
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
    cells: (refusal) => refusalCells(refusal).toSpliced(USER_COLUMN, 1),
  })
  return card
}
