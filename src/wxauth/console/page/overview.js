// The section with an overview: numbers, charts, refused logins, deliveries that wait, and the results of checks.

import { claims, get, mayAdminister } from './api.js'
import { chart, lastDays } from './chart.js'
import { h } from './dom.js'
import { icon } from './icons.js'
import { actionButton, copier, facts, load, part, progressOf, table, tag, time, whole } from './parts.js'
import { whyOf } from './signins.js'
import { number as exactly, roughly, text } from './texts.js'
import { webhooksWithOldestPending } from './webhooks.js'

const RANGES = [7, 30, 90, 365]
const REFUSALS_READ = 200 // the newest refusals of today whose reasons are counted
const MAX_REASONS = 5
const KEY_IS_KEPT = 'wxauth.secret-key-is-kept' // stored in this browser, because only the administrator knows it

export function showOverview(main) {
  const steps = h('div', {})
  const numbers = h('div', { class: 'numbers' })
  const refused = h('div', { class: 'counts' })
  main.append(steps, numbers, refused)
  load(numbers, getNumbers, (response) => {
    if (mayAdminister()) showFirstSteps(steps, response.days)
    return tilesAndCharts(response)
  })
  load(refused, getRefusalsOfToday, whyRefused)
  if (!mayAdminister()) return
  const deliveries = h('div', {})
  const checks = h('div', {})
  const runChecks = () => load(checks, () => get('/check'), report, checking)
  const button = actionButton('runChecks', runChecks, { kind: 'small' })
  const head = h('div', { class: 'title-row' }, h('h2', {}, text('checks')), button)
  main.append(deliveries, h('section', { class: 'card' }, head, checks))
  load(deliveries, webhooksWithOldestPending, oldestDelivery)
  runChecks()
}

/** Return a bar that says what is checked. The service runs these checks at the same time, so there is no share. */
function checking() {
  const { element, show } = progressOf('checks')
  show(text('checking'))
  return element
}

const getNumbers = () =>
  get('/numbers', { days: Math.max(...RANGES), utc_offset: -new Date().getTimezoneOffset() }) // in minutes

/** Request the newest refusals since midnight in the reader's time zone. */
function getRefusalsOfToday() {
  const midnight = new Date()
  midnight.setHours(0, 0, 0, 0)
  return get('/refusals', { since: midnight.toISOString(), limit: REFUSALS_READ })
}

/** Return the tiles with the current numbers, and the charts of the days. */
function tilesAndCharts({ days, estimated, ...totals }) {
  const number = (name) => (estimated.includes(name) ? roughly(totals[name]) : exactly(totals[name]))
  const today = days.at(-1)
  const yesterday = days.at(-2)
  const charts = h('div', { class: 'stack' })
  const draw = (n) => charts.replaceChildren(...chartsOf(days.slice(-n), rangeOf))
  const rangeOf = (name, shown) => {
    const options = RANGES.map((n) => h('option', { value: n, selected: n === shown }, text('days', { n })))
    const control = h('select', { id: `range-${name}`, 'aria-label': `${text('range')}: ${text(name)}` }, options)
    control.addEventListener('change', () => {
      draw(Number(control.value))
      document.getElementById(control.id).focus()
    })
    return control
  }
  draw(30)
  return [
    h(
      'div',
      { class: 'tiles' },
      tile('users', number('users'), text('usersNow')),
      tile(
        'activeMonth',
        number('active_month'),
        text('activeWeek', { n: number('active_week') }),
        text('activeDay', { n: number('active_day') }),
      ),
      tile('newUsersToday', exactly(today.new_users), text('yesterday', { n: exactly(yesterday.new_users) })),
      tile('loginsToday', exactly(today.logins), text('yesterday', { n: exactly(yesterday.logins) })),
      tile('openSessions', number('sessions')),
    ),
    charts,
  ]
}

function chartsOf(days, rangeOf) {
  const chartOf = (name, column) => {
    const figure = chart(text(name), days, column, rangeOf(name, days.length))
    figure.append(asTable(name, days, column))
    return figure
  }
  return [h('div', { class: 'charts' }, chartOf('newUsers', 'new_users'), chartOf('logins', 'logins'))]
}

/** Return the reasons for which logins were refused today, with the most frequent reason first. */
function whyRefused({ items, next_cursor }) {
  const countByCode = {}
  for (const { code, count } of items) countByCode[code] = (countByCode[code] ?? 0) + count
  const linkTo = (code) => h('a', { href: `#/signins?show=refused&code=${encodeURIComponent(code)}` }, whyOf(code))
  const rows = Object.entries(countByCode)
    .sort(([, one], [, other]) => other - one)
    .slice(0, MAX_REASONS)
    .map(([code, count]) => [linkTo(code), exactly(count)])
  return part(
    text('refusedToday'),
    ...table(text('refusedToday'), [text('why'), text('times')], rows, h('p', {}, text('noneRefused'))).elements,
    next_cursor ? h('p', { class: 'quiet' }, text('refusedNewest', { n: exactly(items.length) })) : '',
  )
}

/**
 * Show what a new deployment still lacks, step by step, with code to paste; nothing if all steps are done. If the apps
 * and clients cannot be loaded, nothing changes.
 */
async function showFirstSteps(place, days) {
  const { iss, aud } = claims()
  const pages = await Promise.all([get('/apps'), get('/clients')]).catch(() => null)
  if (!pages) return
  const [apps, clients] = pages.map(({ items }) => items)
  const guard = `BearerGuard(issuer="${iss}", audience="${aud}")`
  const appId = apps.find(({ is_default }) => is_default)?.app_id ?? apps[0]?.app_id ?? 'wx…'
  const steps = [
    [apps.length > 0, 'stepApp', h('a', { href: '#/apps' }, text('apps'))],
    [clients.some(({ name }) => !name.startsWith('wxauth')), 'stepClient', toPaste(guard)],
    [days.some(({ logins }) => logins), 'stepLogin', toPaste(`createAuth({ baseURL: '${iss}', appId: '${appId}' })`)],
    [localStorage.getItem(KEY_IS_KEPT) !== null, 'stepKey', keptButton(place, days)],
  ]
  if (steps.every(([isDone]) => isDone)) return place.replaceChildren()
  const items = steps.map(([isDone, name, how]) => {
    const state = h('span', { class: 'unseen' }, text(isDone ? 'stepDone' : 'stepOpen'))
    const words = h('div', {}, state, ' ', text(name), isDone ? null : how)
    return h('li', { class: isDone ? 'done' : '' }, icon(isDone ? 'done' : 'open'), words)
  })
  const n = steps.filter(([isDone]) => isDone).length
  const progress = text('stepsDone', { n, of: steps.length })
  const bar = h('progress', { value: n, max: steps.length, 'aria-label': progress })
  const head = h('div', { class: 'progress' }, bar, h('span', { class: 'quiet' }, progress))
  place.replaceChildren(part(text('firstSteps'), head, h('ol', { class: 'steps' }, items)))
}

const toPaste = (line) => h('p', { class: 'beside command' }, h('code', {}, line), copier(line))

const keptButton = (place, days) =>
  actionButton('keyIsKept', () => {
    localStorage.setItem(KEY_IS_KEPT, new Date().toISOString())
    showFirstSteps(place, days)
  }, { kind: 'small' })

/** Return a number with its name, and texts with other numbers to compare it with. A tooltip explains estimates. */
function tile(name, value, ...others) {
  const isEstimated = [value, ...others].join().includes('≈')
  return h(
    'p',
    { class: 'tile', title: isEstimated ? text('estimated') : null },
    h('span', {}, text(name)),
    h('strong', {}, value),
    others.map((other) => h('small', {}, other)),
  )
}

const asTable = (name, days, column) =>
  h(
    'details',
    { class: 'counts' },
    h('summary', {}, text('asTable')),
    table(
      `${text(name)}, ${lastDays(days)}`,
      [text('day'), text(name)],
      days.toReversed().map((day) => [whole(day.date), exactly(day[column])]),
    ).elements,
  )

/**
 * Return the webhook whose delivery has waited for the longest time, and the disabled webhooks, whose deliveries do not
 * count. Return null if there is neither.
 */
function oldestDelivery(webhooks) {
  const linkTo = ({ name }) => h('a', { href: `#/webhooks/${encodeURIComponent(name)}` }, name)
  const disabled = webhooks.filter(({ is_enabled }) => !is_enabled)
  const [first] = webhooks
    .filter(({ is_enabled, oldest_pending }) => is_enabled && oldest_pending)
    .sort((one, other) => one.oldest_pending.localeCompare(other.oldest_pending))
  if (!first && !disabled.length) return null
  const content = facts([
    [text('webhooks'), first ? linkTo(first) : text('noneWaits')],
    first ? [text('since'), time(first.oldest_pending)] : null,
    disabled.length ? [text('disabledOnes'), disabled.map((webhook) => h('div', {}, linkTo(webhook)))] : null,
  ])
  return part(text('oldestDelivery'), content)
}

/** Return the results of a check, with problems first. Good results are counted, and their list is folded. */
export function report({ items }) {
  const row = ({ name, level, message }) => [
    tag(text(`level_${level}`), level),
    [h('strong', {}, name), h('div', {}, message)],
  ]
  const columns = [text('status'), text('finding')]
  const byLevel = (one, other) => one.level.localeCompare(other.level)
  const problems = items.filter(({ level }) => level !== 'ok').sort(byLevel)
  const good = items.filter(({ level }) => level === 'ok')
  return [
    problems.length ? table(text('checks'), columns, problems.map(row)).elements : null,
    good.length
      ? h(
          'details',
          { open: !problems.length },
          h('summary', {}, `${good.length} ${text('okHidden')}`),
          table(text('checks'), columns, good.map(row)).elements,
        )
      : null,
  ]
}
