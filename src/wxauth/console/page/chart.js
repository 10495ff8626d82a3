// Bar charts, with one bar per day. Lengths are in units of the drawing, which the page scales. A library for charts
// would be larger than the whole console.

import { h, svg } from './dom.js'
import { monthAndDay, number, text, zone } from './texts.js'

const WIDTH = 600
const HEIGHT = 180
const SPACE_BELOW = 26 // for the dates below the bars
const SPACE_ABOVE = 16
const DIGIT_WIDTH = 14 // on a phone, where the type is larger
const BAR_SHARE = 0.7 // of the width of a day
const MAX_INTERVALS = 3 // between the lines of the axis, up to the highest bar

/** Return the caption of these days, with the reader's time zone. */
export const lastDays = (days) => text('lastDays', { n: days.length, zone: zone() })

/** Return a chart of the number `name` of each day, with `range` in its head. Its label describes the chart in words. */
export function chart(title, days, name, range) {
  const values = days.map((day) => day[name])
  const highest = Math.max(...values)
  const sum = values.reduce((total, value) => total + value, 0)
  const ticks = ticksFor(highest)
  const left = DIGIT_WIDTH * Math.max(...ticks.map((tick) => number(tick).length)) + 8
  const dayWidth = (WIDTH - left) / days.length
  const y = (value) => HEIGHT - SPACE_BELOW - ((HEIGHT - SPACE_BELOW - SPACE_ABOVE) * value) / ticks.at(-1)
  const label = `${title}, ${lastDays(days)}: ${text('inAll')} ${number(sum)}, ${text('most')} ${number(highest)}`
  const bar = (day, index) =>
    svg(
      'rect',
      {
        class: index === days.length - 1 ? 'bar-of-day today' : 'bar-of-day',
        x: (left + (index + (1 - BAR_SHARE) / 2) * dayWidth).toFixed(1),
        y: Math.min(y(day[name]), y(0) - 1).toFixed(1), // a bar is at least 1 high
        width: (dayWidth * BAR_SHARE).toFixed(1),
        height: Math.max(y(0) - y(day[name]), 1).toFixed(1),
        rx: 2,
      },
      tooltip(`${day.date}: ${number(day[name])}`),
    )
  const bars = days.map((day, index) => (day[name] ? bar(day, index) : null))
  const caption = (x, anchor, words, y = HEIGHT - 2) => svg('text', { x, y, 'text-anchor': anchor }, words)
  const middle = Math.floor(days.length / 2)
  const drawing = svg(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label, class: 'chart' },
    ...ticks.flatMap((tick) => [
      svg('line', { x1: left, x2: WIDTH, y1: y(tick), y2: y(tick), class: tick ? 'guide' : 'guide axis' }),
      caption(left - 8, 'end', number(tick), y(tick) + 6),
    ]),
    ...bars.filter(Boolean),
    caption(left, 'start', monthAndDay(days[0].date)),
    caption(left + (middle + 0.5) * dayWidth, 'middle', monthAndDay(days[middle].date)),
    caption(WIDTH, 'end', monthAndDay(days.at(-1).date)),
  )
  const figcaption = h('figcaption', {}, h('h2', {}, title), range)
  return h('figure', { class: 'card' }, figcaption, drawing)
}

/** Return round numbers for the axis of a chart, from 0 to the first that is greater than `highest`. */
function ticksFor(highest) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(highest / MAX_INTERVALS)))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size * MAX_INTERVALS > highest)
  return Array.from({ length: Math.floor(highest / step) + 2 }, (_, index) => index * step)
}

/** Return the tooltip of an SVG element. */
function tooltip(words) {
  const title = svg('title')
  title.textContent = words
  return title
}
