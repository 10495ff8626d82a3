// The overview: numbers, the latest events, and problems.

import { get, mayAdminister } from './api.js'
import { chart, lastDays } from './chart.js'
import { h } from './dom.js'
import { act, facts, load, part, table, tag, time, whole } from './parts.js'
import { number, text } from './texts.js'
import { webhooksAndTheirOldest } from './webhooks.js'

export function showOverview(main) {
  const numbers = h('div', { class: 'numbers' })
  main.append(numbers)
  load(numbers, () => get('/numbers', { days: 30, utc_offset: -new Date().getTimezoneOffset() }), ({ users, sessions, days }) => [
    h(
      'div',
      { class: 'tiles' },
      tile('users', users),
      tile('openSessions', sessions),
      tile('newUsersToday', days.at(-1).new_users, days.at(-2).new_users),
      tile('loginsToday', days.at(-1).logins, days.at(-2).logins),
    ),
    h('div', { class: 'charts' }, chart(text('newUsers'), days, 'new_users'), chart(text('logins'), days, 'logins')),
    asTable(days),
  ])
  if (!mayAdminister()) return
  const deliveries = h('div', {})
  const checks = h('div', {})
  const again = act('runChecks', () => check(), { kind: 'small' })
  const check = () => load(checks, () => get('/check'), report)
  main.append(part(text('oldestDelivery'), deliveries), part(text('checks'), h('p', {}, again), checks))
  load(deliveries, webhooksAndTheirOldest, (found) => oldest(found))
  check()
}

/** A number; that of a day with the one of the day before. */
const tile = (name, value, before) =>
  h('p', { class: 'tile' }, h('strong', {}, number(value)), h('span', {}, text(name)), before === undefined ? null : h('small', {}, text('yesterday', { n: number(before) })))

const asTable = (days) =>
  h(
    'details',
    {},
    h('summary', {}, text('asTable')),
    table(
      lastDays(),
      [text('day'), text('newUsers'), text('logins')],
      days.toReversed().map((day) => [whole(day.date), number(day.new_users), number(day.logins)]),
    ).elements,
  )

/** The oldest delivery that waits to be sent. Deliveries of a disabled webhook do not count as waiting. */
function oldest(found) {
  const linked = ({ name }) => h('a', { href: `#/webhooks/${encodeURIComponent(name)}` }, name)
  const disabled = found.filter(({ is_enabled }) => !is_enabled)
  const [first] = found
    .filter(({ is_enabled, oldest_pending }) => is_enabled && oldest_pending)
    .sort((one, other) => one.oldest_pending.localeCompare(other.oldest_pending))
  return facts([
    [text('webhooks'), first ? linked(first) : text('noneWaits')],
    first ? [text('since'), time(first.oldest_pending)] : null,
    disabled.length ? [text('disabledOnes'), disabled.map((each) => h('div', {}, linked(each)))] : null,
  ])
}

/** The report of a check: problems first. Good results are counted, and listed when unfolded. */
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
