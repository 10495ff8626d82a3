// The section about webhooks and their deliveries.

import { all, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { act, actAbout, busy, code, dialog, field, list, load, menu, moment, optionsOf, part, showSecret, sureAbout, tag, time, toast, whole, withChoices, words } from './parts.js'
import { searchedList } from './search.js'
import { actOn, number, percent, text } from './texts.js'
import { SENT_TYPES, withMeaning } from './event_sentences.js'

const PENDING_READ = 2000 // the pending deliveries of a webhook that are read to find the oldest
const RATED = 100 // the newest deliveries of a webhook that its success rate counts
const SAME_TIME = 100 // the events of one millisecond that are read to find the one of a delivery

const path = ({ name }) => `/webhooks/${encodeURIComponent(name)}`

/** Return the webhooks, each enabled one with the time of its oldest delivery that waits to be sent, or null. */
export async function webhooksAndTheirOldest() {
  let found
  try {
    found = (await get('/webhooks')).items
  } catch (failure) {
    if (failure.status === 404) return [] // a service without webhooks
    throw failure
  }
  return Promise.all(
    found.map(async (webhook) => {
      if (!webhook.is_enabled) return webhook
      const waiting = await all(`${path(webhook)}/deliveries`, { state: 'pending' }, PENDING_READ)
      return { ...webhook, oldest_pending: waiting.at(-1)?.at ?? null }
    }),
  )
}

export function showWebhooks(main, { id, query }) {
  const add = act('add', () => edit(null, reload), { kind: 'primary' })
  const reload = searchedList(main, 'webhooks', query, [add], {
    columns: ['name', 'types', 'state', 'succeeded', 'acts'],
    ask: () => get('/webhooks'),
    open: (webhook) => () => (location.hash = `#/webhooks/${encodeURIComponent(webhook.name)}`),
    cells: (webhook) => [
      [h('a', { class: 'title', href: `#/webhooks/${encodeURIComponent(webhook.name)}` }, webhook.name), h('code', {}, webhook.url)],
      webhook.types?.length ? webhook.types.map((type) => h('div', {}, code(type))) : text('allTypes'),
      webhook.is_enabled ? tag(text('enabled'), 'ok') : tag(text('disabled'), 'bad'),
      succeeded(webhook),
      acts(webhook, reload),
    ],
  })
  if (id) main.append(deliveries({ name: decodeURIComponent(id) }))
}

/** Return an element that shows which share of the newest attempted deliveries succeeded. */
function succeeded(webhook) {
  const place = h('span', {}, '…')
  const show = (tried) => {
    const share = tried.filter(({ state }) => state === 'delivered').length / tried.length
    const words = text('successes_of', { share: percent(share), n: number(tried.length) })
    place.replaceChildren(tried.length ? h('span', { class: 'whole' }, words) : text('none'))
  }
  get(`${path(webhook)}/deliveries`, { limit: RATED }).then(
    ({ items }) => show(items.filter(({ attempts }) => attempts > 0)),
    () => place.replaceChildren(text('unknown')),
  )
  return place
}

/**
 * Return an element that shows the body of a delivery when it is unfolded. The body is found by the time of its event,
 * with which the event's id begins (UUIDv7).
 */
function payload({ event_id, type }) {
  const place = h('div', {})
  const at = parseInt(event_id.replace('-', '').slice(0, 12), 16)
  const asked = { type, since: new Date(at).toISOString(), until: new Date(at + 1).toISOString(), limit: SAME_TIME }
  const details = h('details', { class: 'raw' }, h('summary', {}, text('raw')), place)
  details.addEventListener('toggle', () => {
    if (!details.open || place.children.length) return
    load(place, () => get('/events', asked), ({ items }) => {
      const event = items.find(({ id }) => id === event_id)
      if (!event) return h('p', { class: 'quiet' }, text('gone'))
      const { ip, ...data } = event // other services do not get these fields
      return h('pre', { tabIndex: 0 }, JSON.stringify({ type, timestamp: event.at, data }, null, 2))
    })
  })
  return details
}

function acts(webhook, reload) {
  const { name } = webhook
  const told = h('div', { role: 'status' })
  const test = actAbout('test', name, () =>
    busy(test, told, async () => {
      const { status, milliseconds, error } = await post(`${path(webhook)}/test`)
      const isAnswered = status !== null && status !== undefined
      told.replaceChildren(isAnswered ? `${text('testGave')} ${status}, ${milliseconds} ms` : actOn('testFailed', error))
    }),
  )
  const turn = actAbout(webhook.is_enabled ? 'disable' : 'enable', name, () =>
    busy(turn, told, async () => (await patch(path(webhook), { is_enabled: !webhook.is_enabled }), reload())),
  )
  const acts = [
    test,
    turn,
    actAbout('replay', name, () => replay(webhook)),
    actAbout('change', name, () => edit(webhook, reload)),
    sureAbout('newSecret', name, 'sureNewSecret', async () => showSecret(name, (await post(`${path(webhook)}/secret`)).secret), { kind: 'small' }),
    sureAbout('remove', name, 'sureRemoveWebhook', async () => (await remove(path(webhook)), reload())),
  ]
  return [...menu(name, acts), told]
}

/** Show the dialog that changes a webhook or, without one, adds a webhook. */
function edit(webhook, reload) {
  const fields = [
    webhook ? null : field({ name: 'name', label: text('name'), required: true, pattern: '[a-z0-9][a-z0-9_\\-]{0,63}' }),
    field({ name: 'url', label: text('url'), type: 'url', value: webhook?.url ?? '', required: true }),
    withChoices(
      field({ name: 'types', label: text('types'), value: (webhook?.types ?? []).join(', '), hint: text('typesHint'), read: words }),
      withMeaning(SENT_TYPES),
    ),
  ].filter(Boolean)
  dialog({
    title: webhook ? actOn('change', webhook.name) : text('operation_add_webhook'),
    fields,
    name: webhook ? 'save' : 'add',
    onsubmit: async (body) => {
      const answer = webhook ? await patch(path(webhook), body) : await post('/webhooks', body)
      if (answer?.secret) showSecret(body.name, answer.secret)
      else toast(text('done'))
      reload()
    },
  })
}

/** Ask since when the events are to be sent again. */
function replay(webhook) {
  const hourAgo = new Date(Date.now() - 3_600_000).toISOString()
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
      cells: (delivery) => {
        const told = h('div', { role: 'status' })
        const again = actAbout('replay', delivery.event_id, () =>
          busy(again, told, async () => {
            await post(`${path(webhook)}/replay`, { event_id: delivery.event_id })
            told.replaceChildren(text('done'))
          }),
        )
        return [
          time(delivery.at),
          [code(delivery.type), payload(delivery)],
          tag(text(`state_${delivery.state}`), { delivered: 'ok', failed: 'bad' }[delivery.state] ?? 'note'),
          String(delivery.attempts),
          delivery.status === null ? delivery.error : whole(String(delivery.status)),
          time(delivery.next_at),
          [again, told],
        ]
      },
    })
  state.control.addEventListener('change', show)
  show()
  state.element.classList.add('list-field')
  return part(actOn('deliveries', webhook.name), state.element, place)
}
