// The section about webhooks and their deliveries.

import { all, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import {
  actionButton,
  actionButtonFor,
  busy,
  code,
  dialog,
  field,
  list,
  load,
  menu,
  moment,
  optionsOf,
  part,
  showSecret,
  confirmingButtonFor,
  tag,
  time,
  toast,
  whole,
  withChoices,
  words,
} from './parts.js'
import { searchedList } from './search.js'
import { actOn, number, percent, text } from './texts.js'
import { SENT_TYPES, withMeaning } from './event_sentences.js'
import { json } from './events.js'

const PENDING_READ = 2000 // the pending deliveries of a webhook that are read to find the oldest
const DELIVERIES_RATED = 100 // the newest deliveries of a webhook, from which its success rate is computed
const EVENTS_READ = 100 // the events of one millisecond, among which the event of a delivery is found
const HOUR_MS = 3_600_000
const NAME_PATTERN = '[a-z0-9][a-z0-9_\\-]{0,63}'

const path = ({ name }) => `/webhooks/${encodeURIComponent(name)}`
const viewOf = (webhook) => `#${path(webhook)}` // the fragment's path is that of the API

/**
 * Return the webhooks. Each enabled one has `oldest_pending`, the time of its oldest delivery that waits to be sent, or
 * null if none waits. Return an empty list if the service does not have the routes about webhooks.
 */
export async function webhooksWithOldestPending() {
  let webhooks
  try {
    const { items } = await get('/webhooks')
    webhooks = items
  } catch (failure) {
    if (failure.status === 404) return []
    throw failure
  }
  return Promise.all(
    webhooks.map(async (webhook) => {
      if (!webhook.is_enabled) return webhook
      const waiting = await all(`${path(webhook)}/deliveries`, { state: 'pending' }, PENDING_READ)
      return { ...webhook, oldest_pending: waiting.at(-1)?.at ?? null }
    }),
  )
}

export function showWebhooks(main, { id, query }) {
  const add = actionButton('add', () => edit(null, reload), { kind: 'primary add' })
  const reload = searchedList(main, 'webhooks', query, [add], {
    columns: ['name', 'types', 'state', 'succeeded', 'acts'],
    ask: () => get('/webhooks'),
    open: (webhook) => () => (location.hash = viewOf(webhook)),
    cells: (webhook) => {
      const outcome = h('div', { role: 'status' }) // of a test
      return [
        [h('a', { class: 'title', href: viewOf(webhook) }, webhook.name), code(webhook.url)],
        webhook.types?.length ? webhook.types.map((type) => h('div', {}, code(type))) : text('allTypes'),
        webhook.is_enabled ? tag(text('enabled'), 'ok') : tag(text('disabled'), 'bad'),
        [successRate(webhook), outcome],
        acts(webhook, reload, outcome),
      ]
    },
  })
  if (id) main.append(deliveries({ name: decodeURIComponent(id) }))
}

/** Return an element that shows which share of the newest attempted deliveries succeeded, as soon as it is loaded. */
function successRate(webhook) {
  const place = h('span', {}, '…')
  const rateOf = (attempted) => {
    if (!attempted.length) return text('none')
    const delivered = attempted.filter(({ state }) => state === 'delivered')
    const share = percent(delivered.length / attempted.length)
    return h('span', { class: 'whole' }, text('successes_of', { share, n: number(attempted.length) }))
  }
  get(`${path(webhook)}/deliveries`, { limit: DELIVERIES_RATED }).then(
    ({ items }) => place.replaceChildren(rateOf(items.filter(({ attempts }) => attempts > 0))),
    () => place.replaceChildren(text('unknown')),
  )
  return place
}

/**
 * Return an element that loads and shows the body of a delivery. The id of the event is a UUIDv7,
 * so it begins with the event's time in ms. Among the events of this time, the one of the delivery is found.
 */
function payload({ event_id, type }) {
  const place = h('div', {})
  const at = parseInt(event_id.replace('-', '').slice(0, 12), 16)
  const query = { type, since: new Date(at).toISOString(), until: new Date(at + 1).toISOString(), limit: EVENTS_READ }
  const render = ({ items }) => {
    const event = items.find(({ id }) => id === event_id)
    if (!event) return h('p', { class: 'quiet' }, text('gone'))
    const { ip: _ip, ...data } = event // other services do not get the address
    return json({ type, timestamp: event.at, data })
  }
  load(place, () => get('/events', query), render)
  return place
}

/** Return the buttons for a webhook. The element `outcome` shows the result of a test. */
function acts(webhook, reload, outcome) {
  const { name } = webhook
  const test = actionButtonFor('test', name, () =>
    busy(test, outcome, async () => {
      const { status, milliseconds, error } = await post(`${path(webhook)}/test`)
      const hasResponse = status !== null && status !== undefined
      const result = hasResponse ? `${text('testGave')} ${status}, ${milliseconds} ms` : actOn('testFailed', error)
      outcome.replaceChildren(result)
    }),
  )
  const enableOrDisable = actionButtonFor(webhook.is_enabled ? 'disable' : 'enable', name, () =>
    busy(enableOrDisable, outcome, async () => {
      await patch(path(webhook), { is_enabled: !webhook.is_enabled })
      reload()
    }),
  )
  const renewSecret = async () => {
    const { secret } = await post(`${path(webhook)}/secret`)
    showSecret(name, secret)
  }
  const removeWebhook = async () => {
    await remove(path(webhook))
    reload()
  }
  const buttons = [
    test,
    enableOrDisable,
    actionButtonFor('replay', name, () => replay(webhook)),
    actionButtonFor('change', name, () => edit(webhook, reload)),
    confirmingButtonFor('newSecret', name, 'sureNewSecret', renewSecret, { kind: 'small' }),
    confirmingButtonFor('remove', name, 'sureRemoveWebhook', removeWebhook),
  ]
  return menu(name, buttons)
}

/** Show the dialog that changes a webhook or, without one, adds a webhook. */
function edit(webhook, reload) {
  const fields = [
    webhook ? null : field({ name: 'name', label: text('name'), required: true, pattern: NAME_PATTERN }),
    field({ name: 'url', label: text('url'), type: 'url', value: webhook?.url ?? '', required: true }),
    withChoices(
      field({
        name: 'types',
        label: text('types'),
        value: (webhook?.types ?? []).join(', '),
        hint: text('typesHint'),
        read: words,
      }),
      withMeaning(SENT_TYPES),
    ),
  ].filter(Boolean)
  dialog({
    title: webhook ? actOn('change', webhook.name) : text('operation_add_webhook'),
    fields,
    name: webhook ? 'save' : 'add',
    onsubmit: async (body) => {
      const response = webhook ? await patch(path(webhook), body) : await post('/webhooks', body)
      if (response?.secret) showSecret(body.name, response.secret)
      else toast(text('done'))
      reload()
    },
  })
}

/** Ask for the time since which events are sent again, and send them. */
function replay(webhook) {
  const hourAgo = new Date(Date.now() - HOUR_MS).toISOString()
  dialog({
    title: actOn('replay', webhook.name),
    fields: [moment({ name: 'since', label: text('replaySince'), value: hourAgo, required: true })],
    name: 'replay',
    onsubmit: async ({ since }) => {
      const { replayed } = await post(`${path(webhook)}/replay`, { since })
      toast(`${number(replayed)} ${text('replayed')}`)
    },
  })
}

/** Return the button that sends the event of a delivery again. */
function sendAgain(webhook, { event_id }) {
  const button = actionButtonFor('replay', event_id, () =>
    busy(button, null, async () => {
      await post(`${path(webhook)}/replay`, { event_id })
      toast(text('done'))
    }),
  )
  return button
}

/** Return a list of the deliveries of a webhook, with a field that limits the list to one state. */
function deliveries(webhook) {
  const place = h('div', {})
  const state = field({
    name: 'state',
    label: text('state'),
    type: 'select',
    options: optionsOf({ '': 'any', pending: 'state_pending', delivered: 'state_delivered', failed: 'state_failed' }),
  })
  const show = () =>
    list({
      place,
      caption: actOn('deliveries', webhook.name),
      columns: ['time', 'type', 'state', 'attempts', 'answer', 'nextTry', 'acts'].map(text),
      nothing: () => h('p', {}, text(state.value() ? 'nothingFits' : 'empty_deliveries')),
      ask: (cursor) => get(`${path(webhook)}/deliveries`, { state: state.value(), limit: 50, cursor }),
      cells: (delivery) => [
        time(delivery.at),
        code(delivery.type),
        tag(text(`state_${delivery.state}`), { delivered: 'ok', failed: 'bad' }[delivery.state] ?? 'note'),
        String(delivery.attempts),
        delivery.status === null ? delivery.error : whole(String(delivery.status)),
        time(delivery.next_at),
        delivery.state === 'failed' ? sendAgain(webhook, delivery) : null,
      ],
      detail: (delivery) =>
        h(
          'div',
          { class: 'found' },
          payload(delivery),
          delivery.state === 'failed' ? null : h('p', {}, sendAgain(webhook, delivery)),
        ),
    })
  state.control.addEventListener('change', show)
  show()
  state.element.classList.add('list-field')
  return part(actOn('deliveries', webhook.name), state.element, place)
}
