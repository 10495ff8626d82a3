// The audit trail, which records who did what to whom, when and from where.

import { all, get } from './api.js'
import { csv, jsonLines } from './csv.js'
import { h } from './dom.js'
import { appOf, personOf } from './names.js'
import {
  actionButton,
  address,
  besideTitle,
  busy,
  code,
  download,
  field,
  list,
  moment,
  progressOf,
  time,
  toast,
  withChoices,
  words,
} from './parts.js'
import { filters, nothingFits } from './search.js'
import { dateAndTime, number, text } from './texts.js'
import { sentence, TYPES, withMeaning } from './event_sentences.js'

const FOLLOW_MS = 3000 // the pause between two requests for new events
const MAX_EXPORTED = 100_000 // events

/** The index of the column about the user and the app. The page about a user leaves this column out. */
export const ABOUT_COLUMN = 2

export const eventColumns = () => ['time', 'happened', 'about', 'actor', 'address'].map(text)

export const eventCells = (event) => [
  time(event.at),
  [h('div', { class: 'sentence' }, sentence(event, personOf)), h('small', {}, code(event.type))],
  userAndApp(event),
  personOf(event.actor),
  address(event.ip),
]

/** Return a value as JSON. */
export const json = (value) => h('pre', { tabIndex: 0 }, JSON.stringify(value, null, 2))

/** Return the user and the app that an event is about. An event can lack either of them. */
const userAndApp = ({ user_id, app_id }) =>
  [user_id ? personOf(user_id) : null, app_id ? h('div', {}, appOf(app_id)) : null].filter(Boolean)

export function showEvents(main, { query }) {
  const fields = [
    field({ name: 'user_id', label: text('personId'), type: 'search', value: query.get('user_id') ?? '' }),
    withChoices(
      field({
        name: 'type',
        label: text('types'),
        value: query.getAll('type').join(', '),
        hint: text('typesHint'),
        read: words,
      }),
      withMeaning(TYPES),
    ),
    field({ name: 'actor', label: text('actor'), value: query.get('actor') ?? '', hint: text('actorHint') }),
    moment({ name: 'since', label: text('since'), value: query.get('since') }),
    moment({ name: 'until', label: text('until'), value: query.get('until') }),
  ]
  const search = { ...Object.fromEntries(query), type: query.getAll('type') }
  const format = field({
    name: 'format',
    label: text('format'),
    type: 'select',
    value: 'jsonl',
    options: Object.entries({ jsonl: 'JSON Lines', csv: 'CSV' }),
  })
  const trouble = h('div', {})
  const state = h('div', {}) // of an export
  const exportShown = () => exportEvents(search, format.value(), state).finally(() => state.replaceChildren())
  const exportButton = actionButton('export', () => busy(exportButton, trouble, exportShown))
  const followButton = actionButton('follow', () => toggleFollowing())
  followButton.setAttribute('aria-pressed', 'false')
  const place = h('div', {})
  format.element.querySelector('label').className = 'unseen'
  besideTitle(main, [followButton, format.element, exportButton])
  main.append(filters(fields, 'events'), state, trouble, place)

  let newestId = '' // of the events in the list; ids grow with time
  let prepend = null // adds events to the list, as soon as the list is loaded
  list({
    place,
    caption: text('events'),
    columns: eventColumns(),
    ask: (cursor) => get('/events', { ...search, cursor }),
    cells: eventCells,
    detail: json,
    nothing: () => nothingFits('events', query, 'tryWider'),
    onFirst: (page, add) => {
      newestId = page.items[0]?.id ?? ''
      prepend = add
    },
  })

  let timer = null // null while the list does not follow new events
  const poll = async () => {
    if (prepend && !document.hidden) {
      // `busy` needs a button, but no button of the page starts this request.
      await busy(h('button'), trouble, async () => {
        const { items } = await get('/events', { ...search, limit: 200 })
        const newItems = items.filter(({ id }) => id > newestId)
        if (newItems.length) newestId = newItems[0].id
        prepend(newItems)
      })
    }
    if (timer !== null) timer = setTimeout(poll, FOLLOW_MS)
  }
  const toggleFollowing = () => {
    const isOn = timer === null
    followButton.setAttribute('aria-pressed', String(isOn))
    clearTimeout(timer)
    timer = isOn ? setTimeout(poll, 0) : null
  }
  return () => {
    clearTimeout(timer)
    timer = null
  }
}

/** Make the browser download the events. Meanwhile, show in `place` how many have been read, and back to when. */
async function exportEvents(search, format, place) {
  const { element, show } = progressOf('export')
  place.replaceChildren(element)
  const events = await all('/events', search, MAX_EXPORTED, (read) => {
    if (!read.length) return
    const oldest = read.at(-1).at
    show(text('exportedSoFar', { n: number(read.length), at: dateAndTime(oldest) }), shareRead(read[0].at, oldest, search))
  })
  toast(text(events.length < MAX_EXPORTED ? 'exported' : 'exportedNewest', { n: number(events.length) }))
  if (format === 'csv') download('events.csv', csv(events), 'text/csv;charset=utf-8')
  else download('events.jsonl', jsonLines(events), 'application/x-ndjson')
}

/** Return the share of the time back to the beginning of the search that has been read. A search can lack that time. */
function shareRead(newest, oldest, { since }) {
  if (!since) return undefined
  const [from, to, start] = [newest, oldest, since].map((iso) => new Date(iso))
  return from > start ? (from - to) / (from - start) : 1
}
