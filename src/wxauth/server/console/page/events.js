// The trail: who did what to whom, when and from where.

import { all, get } from './api.js'
import { csv, jsonLines } from './csv.js'
import { h } from './dom.js'
import { act, busy, code, download, field, list, time, words } from './parts.js'
import { filters } from './search.js'
import { text } from './texts.js'

const FOLLOW_MS = 3000
const EXPORTED_AT_MOST = 100_000

/** The column that is the same for all that is about one person. */
export const ABOUT = 2

export const eventColumns = () => ['time', 'type', 'about', 'actor', 'address', 'data'].map(text)

export const eventCells = (event) => [
  time(event.at),
  code(event.type),
  [event.user_id ? personOf(event.user_id) : null, event.app_id ? code(event.app_id) : null].filter(Boolean),
  personOf(event.actor),
  event.ip,
  Object.keys(event.data).length ? code(JSON.stringify(event.data)) : '–',
]

const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/

const personOf = (name) => (UUID.test(name) ? h('a', { href: `#/users/${name}` }, code(name)) : code(name))

export function showEvents(main, { query }) {
  const fields = [
    field({
      name: 'type',
      label: text('types'),
      type: 'search',
      value: query.getAll('type').join(', '),
      hint: text('typesHint'),
    }),
    field({ name: 'user_id', label: text('personId'), value: query.get('user_id') ?? '' }),
    field({ name: 'since', label: text('since'), type: 'datetime-local', value: local(query.get('since')) }),
    field({ name: 'until', label: text('until'), type: 'datetime-local', value: local(query.get('until')) }),
  ]
  const [type, , since, until] = fields
  for (const each of [since, until]) {
    const typed = each.value
    each.value = () => (typed() ? new Date(typed()).toISOString() : '')
  }
  const typed = type.value
  type.value = () => words(typed())
  const wanted = {
    type: query.getAll('type'),
    user_id: query.get('user_id'),
    since: query.get('since'),
    until: query.get('until'),
  }

  const format = field({
    name: 'format',
    label: text('format'),
    type: 'select',
    value: 'jsonl',
    options: [
      ['jsonl', 'JSON Lines'],
      ['csv', 'CSV'],
    ],
  })
  const trouble = h('div', {})
  const exported = act('export', () => busy(exported, trouble, () => exportEvents(wanted, format.value())))
  const follow = act('follow', () => toggle())
  follow.setAttribute('aria-pressed', 'false')
  const place = h('div', {})
  main.append(filters(fields, 'events'), h('div', { class: 'toolbar' }, follow, format.element, exported), trouble, place)

  let newest = ''
  let shown = null
  list({
    place,
    caption: text('events'),
    columns: eventColumns(),
    ask: (cursor) => get('/events', { ...wanted, cursor }),
    cells: eventCells,
    onFirst: (page, table) => {
      newest = page.items[0]?.id ?? ''
      shown = table
    },
  })

  let timer = null
  const look = async () => {
    if (shown && !document.hidden) {
      await busy(h('button'), trouble, async () => {
        const { items } = await get('/events', { ...wanted, limit: 200 })
        const news = items.filter(({ id }) => id > newest)
        if (news.length) newest = news[0].id
        shown.prepend(news.map(eventCells))
      })
    }
    if (timer !== null) timer = setTimeout(look, FOLLOW_MS)
  }
  const toggle = () => {
    const isFollowing = timer === null
    follow.setAttribute('aria-pressed', String(isFollowing))
    clearTimeout(timer)
    timer = isFollowing ? setTimeout(look, 0) : null
  }
  return () => {
    clearTimeout(timer)
    timer = null
  }
}

async function exportEvents(wanted, format) {
  const events = await all('/events', wanted, EXPORTED_AT_MOST)
  if (format === 'csv') download('events.csv', csv(events), 'text/csv;charset=utf-8')
  else download('events.jsonl', jsonLines(events), 'application/x-ndjson')
}

/** A time in the form of an input's value, in the reader's zone. */
function local(iso) {
  if (!iso) return ''
  const at = new Date(iso)
  return Number.isNaN(at.getTime()) ? '' : new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}
