// The audit log, which records who did what to whom, when and from where.

import { all, get } from './api.js'
import { csv, jsonLines } from './csv.js'
import { h } from './dom.js'
import { appOf, personOf } from './names.js'
import { act, busy, code, download, field, list, moment, time, whole, withChoices, words } from './parts.js'
import { filters, nothingFits } from './search.js'
import { text } from './texts.js'
import { sentence, TYPES, withMeaning } from './event_sentences.js'

const FOLLOW_MS = 3000 // the pause between two requests for new events
const EXPORTED_AT_MOST = 100_000

/** The index of the column about the user and the app, which the page about one user leaves out. */
export const ABOUT = 3

export const eventColumns = () => ['time', 'type', 'happened', 'about', 'actor', 'address'].map(text)

export const eventCells = (event) => [
  time(event.at),
  code(event.type),
  happened(event),
  [event.user_id ? personOf(event.user_id) : null, event.app_id ? h('div', {}, appOf(event.app_id)) : null].filter(Boolean),
  personOf(event.actor),
  whole(event.ip),
]

/** Return the event as a sentence, with its JSON. */
const happened = (event) => [
  h('div', { class: 'sentence' }, sentence(event, personOf)),
  h('details', { class: 'raw' }, h('summary', {}, text('raw')), h('pre', { tabIndex: 0 }, JSON.stringify(event, null, 2))),
]

/** Return how a row of an event opens: it shows the event's JSON, or hides it. */
export const unfold = () => (row) => {
  const details = row.querySelector('details')
  details.open = !details.open
}

export function showEvents(main, { query }) {
  const fields = [
    field({ name: 'user_id', label: text('personId'), type: 'search', value: query.get('user_id') ?? '' }),
    withChoices(field({ name: 'type', label: text('types'), value: query.getAll('type').join(', '), hint: text('typesHint'), read: words }), withMeaning(TYPES)),
    field({ name: 'actor', label: text('actor'), value: query.get('actor') ?? '', hint: text('actorHint') }),
    moment({ name: 'since', label: text('since'), value: query.get('since') }),
    moment({ name: 'until', label: text('until'), value: query.get('until') }),
  ]
  const wanted = { ...Object.fromEntries(query), type: query.getAll('type') }
  const format = field({
    name: 'format',
    label: text('format'),
    type: 'select',
    value: 'jsonl',
    options: Object.entries({ jsonl: 'JSON Lines', csv: 'CSV' }),
  })
  const trouble = h('div', {})
  const exported = act('export', () => busy(exported, trouble, () => exportEvents(wanted, format.value())))
  const follow = act('follow', () => toggle())
  follow.setAttribute('aria-pressed', 'false')
  const place = h('div', {})
  format.element.querySelector('label').className = 'unseen'
  main.append(filters(fields, 'events', { others: [follow, format.element, exported] }), trouble, place)

  let newest = ''
  let prepend = null
  list({
    place,
    caption: text('events'),
    columns: eventColumns(),
    ask: (cursor) => get('/events', { ...wanted, cursor }),
    cells: eventCells,
    open: unfold,
    nothing: () => nothingFits('events', query, 'tryWider'),
    onFirst: (page, add) => {
      newest = page.items[0]?.id ?? ''
      prepend = add
    },
  })

  let timer = null // null while the list does not follow new events
  const poll = async () => {
    if (prepend && !document.hidden) {
      // `busy` needs a button, but no button of the page starts this request.
      await busy(h('button'), trouble, async () => {
        const { items } = await get('/events', { ...wanted, limit: 200 })
        const news = items.filter(({ id }) => id > newest)
        if (news.length) newest = news[0].id
        prepend(news)
      })
    }
    if (timer !== null) timer = setTimeout(poll, FOLLOW_MS)
  }
  const toggle = () => {
    const begins = timer === null
    follow.setAttribute('aria-pressed', String(begins))
    clearTimeout(timer)
    timer = begins ? setTimeout(poll, 0) : null
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
