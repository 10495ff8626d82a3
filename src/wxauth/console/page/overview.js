// The overview, with numbers, the latest events, and problems.

import { claims, get, mayAdminister } from './api.js'
import { chart, lastDays } from './chart.js'
import { h } from './dom.js'
import { act, copier, facts, field, load, part, table, tag, time, whole } from './parts.js'
import { whyOf } from './signins.js'
import { number as exactly, roughly, text } from './texts.js'
import { webhooksAndTheirOldest } from './webhooks.js'

const RANGES = [7, 30, 90, 365]
const REFUSALS_READ = 200 // the newest refusals of today whose reasons are counted
const REASONS_SHOWN = 5
const KEY_IS_KEPT = 'wxauth.secret-key-is-kept' // stored in this browser, because only the administrator knows it

export function showOverview(main) {
  const first = h('div', {})
  const numbers = h('div', { class: 'numbers' })
  const refused = h('div', {})
  main.append(first, numbers, refused)
  load(numbers, () => get('/numbers', { days: Math.max(...RANGES), utc_offset: -new Date().getTimezoneOffset() }), (found) => {
    if (mayAdminister()) firstSteps(first, found.days)
    return draw(found)
  })
  load(refused, () => get('/refusals', { since: new Date(new Date().setHours(0, 0, 0, 0)).toISOString(), limit: REFUSALS_READ }), whyRefused)
  if (!mayAdminister()) return
  const deliveries = h('div', {})
  const checks = h('div', {})
  const again = act('runChecks', () => check(), { kind: 'small' })
  const check = () => load(checks, () => get('/check'), report)
  main.append(deliveries, part(text('checks'), h('p', {}, again), checks))
  load(deliveries, webhooksAndTheirOldest, oldest)
  check()
}

/** Return the tiles with the current numbers, and the charts of the days. */
function draw({ days, estimated, ...totals }) {
  const number = (name) => (estimated.includes(name) ? roughly : exactly)(totals[name])
  const range = field({ name: 'range', label: text('range'), type: 'select', value: '30', options: RANGES.map((n) => [String(n), text('days', { n })]) })
  range.element.classList.add('list-field')
  const charts = h('div', { class: 'stack' })
  const redraw = () => charts.replaceChildren(...chartsOf(days.slice(-Number(range.value()))))
  range.control.addEventListener('change', redraw)
  redraw()
  return [
    h(
      'div',
      { class: 'tiles' },
      tile('users', number('users'), text('usersNow')),
      tile('activeMonth', number('active_month'), text('activeWeek', { n: number('active_week') }), text('activeDay', { n: number('active_day') })),
      tile('newUsersToday', exactly(days.at(-1).new_users), text('yesterday', { n: exactly(days.at(-2).new_users) })),
      tile('loginsToday', exactly(days.at(-1).logins), text('yesterday', { n: exactly(days.at(-2).logins) })),
      tile('openSessions', number('sessions')),
    ),
    range.element,
    charts,
  ]
}

const chartsOf = (days) => [
  h('div', { class: 'charts' }, chart(text('newUsers'), days, 'new_users'), chart(text('logins'), days, 'logins')),
  asTable(days),
]

/** Return why logins were refused today, the most frequent reason first. */
function whyRefused({ items, next_cursor: isMore }) {
  const times = {}
  for (const { code, count } of items) times[code] = (times[code] ?? 0) + count
  const rows = Object.entries(times)
    .sort(([, one], [, other]) => other - one)
    .slice(0, REASONS_SHOWN)
    .map(([code, n]) => [h('a', { href: `#/signins?show=refused&code=${encodeURIComponent(code)}` }, whyOf(code)), exactly(n)])
  return part(
    text('refusedToday'),
    ...table(text('refusedToday'), [text('why'), text('times')], rows, h('p', {}, text('noneRefused'))).elements,
    isMore ? h('p', { class: 'quiet' }, text('refusedNewest', { n: exactly(items.length) })) : '',
  )
}

/** Show what a new deployment still lacks, step by step, with texts to paste. It is empty when all is done. */
async function firstSteps(place, days) {
  const { iss, aud } = claims()
  const answers = await Promise.all([get('/apps'), get('/clients')]).catch(() => null)
  if (!answers) return
  const [apps, clients] = answers.map(({ items }) => items)
  const appId = apps.find(({ is_default }) => is_default)?.app_id ?? apps[0]?.app_id ?? 'wx…'
  const steps = [
    [apps.length > 0, 'stepApp', h('a', { href: '#/apps' }, text('apps'))],
    [clients.some(({ name }) => !name.startsWith('wxauth')), 'stepClient', pasted(`BearerGuard(issuer="${iss}", audience="${aud}")`)],
    [days.some(({ logins }) => logins), 'stepLogin', pasted(`createAuth({ baseURL: '${iss}', appId: '${appId}' })`)],
    [localStorage.getItem(KEY_IS_KEPT) !== null, 'stepKey', keptButton(place, days)],
  ]
  if (steps.every(([isDone]) => isDone)) return place.replaceChildren()
  const step = ([isDone, name, how]) =>
    h('li', {}, tag(text(isDone ? 'stepDone' : 'stepOpen'), isDone ? 'ok' : 'note'), ' ', text(name), ...(isDone ? [] : [' ', how]))
  place.replaceChildren(part(text('firstSteps'), h('ol', { class: 'steps' }, steps.map(step))))
}

const pasted = (line) => h('p', { class: 'beside command' }, h('code', {}, line), copier(line))

const keptButton = (place, days) =>
  act('keyIsKept', () => {
    localStorage.setItem(KEY_IS_KEPT, new Date().toISOString())
    firstSteps(place, days)
  }, { kind: 'small' })

/** Return a number with its name, and texts with other numbers to compare it with. */
const tile = (name, value, ...others) =>
  h('p', { class: 'tile', title: [value, ...others].join().includes('≈') ? text('estimated') : null }, h('strong', {}, value), h('span', {}, text(name)), others.map((each) => h('small', {}, each)))

const asTable = (days) =>
  h(
    'details',
    {},
    h('summary', {}, text('asTable')),
    table(
      lastDays(days),
      [text('day'), text('newUsers'), text('logins')],
      days.toReversed().map((day) => [whole(day.date), exactly(day.new_users), exactly(day.logins)]),
    ).elements,
  )

/**
 * Return the oldest delivery that waits to be sent, if there is one. Deliveries of a disabled webhook do not count.
 */
function oldest(found) {
  const linked = ({ name }) => h('a', { href: `#/webhooks/${encodeURIComponent(name)}` }, name)
  const disabled = found.filter(({ is_enabled }) => !is_enabled)
  const [first] = found
    .filter(({ is_enabled, oldest_pending }) => is_enabled && oldest_pending)
    .sort((one, other) => one.oldest_pending.localeCompare(other.oldest_pending))
  if (!first && !disabled.length) return null
  const shown = facts([
    [text('webhooks'), first ? linked(first) : text('noneWaits')],
    first ? [text('since'), time(first.oldest_pending)] : null,
    disabled.length ? [text('disabledOnes'), disabled.map((each) => h('div', {}, linked(each)))] : null,
  ])
  return part(text('oldestDelivery'), shown)
}

/** Return the report of a check, with problems first. Good results are counted, and listed when unfolded. */
export function report({ items }) {
  const rows = (results) =>
    results.map(({ name, level, message }) => [tag(text(`level_${level}`), level), [h('strong', {}, name), h('div', {}, message)]])
  const columns = [text('status'), text('finding')]
  const wrong = items.filter(({ level }) => level !== 'ok').sort((one, other) => one.level.localeCompare(other.level))
  const right = items.filter(({ level }) => level === 'ok')
  return [
    wrong.length ? table(text('checks'), columns, rows(wrong)).elements : null,
    right.length
      ? h(
          'details',
          { open: !wrong.length },
          h('summary', {}, `${right.length} ${text('okHidden')}`),
          table(text('checks'), columns, rows(right)).elements,
        )
      : null,
  ]
}
