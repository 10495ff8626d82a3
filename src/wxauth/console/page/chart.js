// Bar charts, with one bar per day. A library for them would be larger than the whole console.

import { h, svg } from './dom.js'
import { number, text, zone } from './texts.js'

const WIDTH = 600
const HEIGHT = 180
const BELOW = 26 // the space for the dates below the bars
const ABOVE = 16 // the space above the bars
const DIGIT = 14 // the width of a digit on a phone, where the type is larger
const INTERVALS = 3 // the number of intervals that the axis has at most below the highest bar

/** Return the caption of these days, with the reader's time zone. */
export const lastDays = (days) => text('lastDays', { n: days.length, zone: zone() })

/** Return a chart of one number per day. Its label describes it in words. */
export function chart(title, days, name) {
  const values = days.map((day) => day[name])
  const ticks = ticksFor(Math.max(...values))
  const left = DIGIT * Math.max(...ticks.map((each) => number(each).length)) + 8
  const sum = values.reduce((one, other) => one + other, 0)
  const step = (WIDTH - left) / days.length
  const y = (value) => HEIGHT - BELOW - ((HEIGHT - BELOW - ABOVE) * value) / ticks.at(-1)
  const label = `${title}, ${lastDays(days)}: ${text('inAll')} ${number(sum)}, ${text('most')} ${number(Math.max(...values))}`
  const bars = days.map((day, place) =>
    day[name] && svg(
      'rect',
      {
        class: place === days.length - 1 ? 'bar-of-day today' : 'bar-of-day',
        x: (left + place * step + step * 0.15).toFixed(1),
        y: Math.min(y(day[name]), y(0) - 1).toFixed(1),
        width: (step * 0.7).toFixed(1),
        height: Math.max(y(0) - y(day[name]), 1).toFixed(1),
        rx: 2,
      },
      titled(`${day.date}: ${number(day[name])}`),
    ),
  )
  const written = (x, anchor, words, y = HEIGHT - 2) => svg('text', { x, y, 'text-anchor': anchor }, words)
  const middle = days.length >> 1
  const drawing = svg(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label, class: 'chart' },
    ...ticks.flatMap((each) => [
      svg('line', { x1: left, x2: WIDTH, y1: y(each), y2: y(each), class: each ? 'guide' : 'guide axis' }),
      written(left - 8, 'end', number(each), y(each) + 6),
    ]),
    ...bars.filter(Boolean),
    written(left, 'start', days[0].date.slice(5)),
    written(left + (middle + 0.5) * step, 'middle', days[middle].date.slice(5)),
    written(WIDTH, 'end', days.at(-1).date.slice(5)),
  )
  return h('figure', { class: 'card' }, h('figcaption', {}, h('h2', {}, title), h('span', { class: 'quiet' }, lastDays(days))), drawing)
}

/** Return round numbers for the axis of a chart, from 0 to the first that is greater than `most`. */
function ticksFor(most) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(most / INTERVALS)))
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each * INTERVALS > most)
  return Array.from({ length: Math.floor(most / step) + 2 }, (_, place) => place * step)
}

/** Return the tooltip of an SVG element. */
function titled(words) {
  const title = svg('title')
  title.textContent = words
  return title
}
