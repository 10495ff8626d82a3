// Bar charts, with one bar per day. A library for them would be larger than the whole console.

import { h, svg } from './dom.js'
import { number, text, zone } from './texts.js'

const WIDTH = 600
const HEIGHT = 160
const BELOW = 24
const ABOVE = 20

/** The caption of these days, with the reader's time zone. */
export const lastDays = (days) => text('lastDays', { n: days.length, zone: zone() })

/** A chart of one number per day. Its label describes it in words. */
export function chart(title, days, name) {
  const values = days.map((day) => day[name])
  const most = Math.max(...values, 1)
  const sum = values.reduce((one, other) => one + other, 0)
  const step = WIDTH / days.length
  const height = (value) => ((HEIGHT - BELOW - ABOVE) * value) / most
  const label = `${title}, ${lastDays(days)}: ${text('inAll')} ${number(sum)}, ${text('most')} ${number(Math.max(...values))}`
  const bars = days.map((day, place) =>
    svg(
      'rect',
      {
        class: place === days.length - 1 ? 'bar-of-day today' : 'bar-of-day',
        x: (place * step + step * 0.15).toFixed(1),
        y: (HEIGHT - BELOW - Math.max(height(day[name]), 1)).toFixed(1),
        width: (step * 0.7).toFixed(1),
        height: Math.max(height(day[name]), 1).toFixed(1),
        rx: 2,
      },
      titled(`${day.date}: ${number(day[name])}`),
    ),
  )
  const written = (x, anchor, words, y = HEIGHT - 4) => svg('text', { x, y, 'text-anchor': anchor }, words)
  const drawing = svg(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label, class: 'chart' },
    svg('line', { x1: 0, x2: WIDTH, y1: ABOVE, y2: ABOVE, class: 'guide' }),
    svg('line', { x1: 0, x2: WIDTH, y1: HEIGHT - BELOW, y2: HEIGHT - BELOW, class: 'guide' }),
    written(0, 'start', number(most), ABOVE - 5),
    ...bars,
    written(0, 'start', days[0].date.slice(5)),
    written(WIDTH, 'end', days.at(-1).date.slice(5)),
  )
  return h('figure', { class: 'card' }, h('figcaption', {}, h('h2', {}, title), h('span', { class: 'quiet' }, lastDays(days))), drawing)
}

function titled(words) {
  const title = svg('title')
  title.textContent = words
  return title
}
