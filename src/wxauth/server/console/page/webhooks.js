// The section about webhooks and their deliveries.

import { all, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { act, busy, code, dialog, field, list, load, moment, part, showSecret, sure, tag, time, toast, whole, withChoices, words } from './parts.js'
import { searchWithin } from './search.js'
import { actOn, number, percent, text } from './texts.js'
import { SENT_TYPES, withMeaning } from './event_sentences.js'

const LOOKED_AT = 2000
const RATED = 100

const path = ({ name }) => `/webhooks/${encodeURIComponent(name)}`

/** The webhooks. Each enabled one has the time of its longest waiting delivery, if any. */
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
      const waiting = await all(`${path(webhook)}/deliveries`, { state: 'pending' }, LOOKED_AT)
      return { ...webhook, oldest_pending: waiting.at(-1)?.at ?? null }
    }),
  )
}

export function showWebhooks(main, { id, query }) {
  const search = searchWithin('webhooks', query, act('add', () => ask(null, reload), { kind: 'primary' }))
  const place = h('div', {})
  const reload = () =>
    list({
      place,
      caption: text('webhooks'),
      nothing: search.nothing,
      columns: ['clientName', 'types', 'state', 'succeeded', 'acts'].map(text),
      ask: async (cursor) => search.among(await get('/webhooks', { cursor })),
      open: (webhook) => () => (location.hash = `#/webhooks/${encodeURIComponent(webhook.name)}`),
      cells: (webhook) => [
        [h('a', { class: 'title', href: `#/webhooks/${encodeURIComponent(webhook.name)}` }, webhook.name), h('code', {}, webhook.url)],
        webhook.types?.length ? webhook.types.map((type) => h('div', {}, code(type))) : text('allTypes'),
        webhook.is_enabled ? tag(text('enabled'), 'ok') : tag(text('disabled'), 'bad'),
        succeeded(webhook),
        acts(webhook, reload),
      ],
    })
  main.append(search.bar, place)
  if (id) main.append(deliveries({ name: decodeURIComponent(id) }))
  reload()
}

/** How many of the newest deliveries that were tried have been accepted. */
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

/** What a delivery's body is, read when it is unfolded. An event's id begins with its time in milliseconds. */
function payload({ event_id, type }) {
  const place = h('div', {})
  const at = parseInt(event_id.replace('-', '').slice(0, 12), 16)
  const asked = { type, since: new Date(at).toISOString(), until: new Date(at + 1).toISOString(), limit: RATED }
  const details = h('details', { class: 'raw' }, h('summary', {}, text('raw')), place)
  details.addEventListener('toggle', () => {
    if (!details.open || place.children.length) return
    load(place, () => get('/events', asked), ({ items }) => {
      const event = items.find(({ id }) => id === event_id)
      if (!event) return h('p', { class: 'quiet' }, text('gone'))
      const { ip, ...data } = event // which siblings do not get
      return h('pre', { tabIndex: 0 }, JSON.stringify({ type, timestamp: event.at, data }, null, 2))
    })
  })
  return details
}

function acts(webhook, reload) {
  const of = (name) => actOn(name, webhook.name)
  const told = h('div', { role: 'status' })
  const test = act(
    'test',
    () =>
      busy(test, told, async () => {
        const { status, milliseconds, error } = await post(`${path(webhook)}/test`)
        told.replaceChildren(
          status === null || status === undefined
            ? actOn('testFailed', error)
            : `${text('testGave')} ${status}, ${milliseconds} ms`,
        )
      }),
    { kind: 'small', label: of('test') },
  )
  const turned = webhook.is_enabled ? 'disable' : 'enable'
  const turn = act(
    turned,
    () => busy(turn, told, async () => (await patch(path(webhook), { is_enabled: !webhook.is_enabled }), reload())),
    { kind: 'small', label: of(turned) },
  )
  return [
    test,
    turn,
    act('replay', () => replay(webhook), { kind: 'small', label: of('replay') }),
    act('change', () => ask(webhook, reload), { kind: 'small', label: of('change') }),
    act(
      'newSecret',
      () =>
        sure(of('newSecret'), text('sureNewSecret'), 'newSecret', async () =>
          showSecret(webhook.name, (await post(`${path(webhook)}/secret`)).secret),
        ),
      { kind: 'small', label: of('newSecret') },
    ),
    act(
      'remove',
      () => sure(of('remove'), text('sureRemoveWebhook'), 'remove', async () => (await remove(path(webhook)), reload())),
      { kind: 'small danger', label: of('remove') },
    ),
    told,
  ]
}

function ask(webhook, reload) {
  const fields = [
    webhook ? null : field({ name: 'name', label: text('clientName'), required: true, pattern: '[a-z0-9][a-z0-9_\\-]{0,63}' }),
    field({ name: 'url', label: text('url'), type: 'url', value: webhook?.url ?? '', required: true }),
    withChoices(
      field({ name: 'types', label: text('types'), value: (webhook?.types ?? []).join(', '), hint: text('typesHint') }),
      withMeaning(SENT_TYPES),
    ),
  ].filter(Boolean)
  dialog({
    title: webhook ? actOn('change', webhook.name) : text('addWebhook'),
    fields,
    name: webhook ? 'save' : 'add',
    onsubmit: async ({ types, ...values }) => {
      const body = { ...values, types: words(types) }
      const answer = webhook ? await patch(path(webhook), body) : await post('/webhooks', body)
      if (answer?.secret) showSecret(body.name, answer.secret)
      else toast(text('done'))
      reload()
    },
  })
}

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
    options: [['', text('any')], ...['pending', 'delivered', 'failed'].map((each) => [each, text(`state_${each}`)])],
  })
  const show = () =>
    list({
      place,
      caption: actOn('deliveries', webhook.name),
      columns: ['time', 'type', 'state', 'attempts', 'answer', 'nextTry', 'acts'].map(text),
      ask: (cursor) => get(`${path(webhook)}/deliveries`, { state: state.value(), limit: 50, cursor }),
      cells: (delivery) => {
        const told = h('div', { role: 'status' })
        const again = act(
          'replay',
          () =>
            busy(again, told, async () => {
              await post(`${path(webhook)}/replay`, { event_id: delivery.event_id })
              told.replaceChildren(text('done'))
            }),
          { kind: 'small', label: actOn('replay', delivery.event_id) },
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
