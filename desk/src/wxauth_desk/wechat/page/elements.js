// The page's elements, and the formats of tokens and times.

import { text } from './texts.js'

export { h } from './dom.js'

/** Return JSON for reading, with shortened tokens. A text that is not JSON stays unchanged. */
export function pretty(value) {
  if (typeof value === 'string') return shortened(value)
  return JSON.stringify(value, (_, inner) => (typeof inner === 'string' ? shortened(inner) : inner), 2)
}

/** Return a text without the middle of each token. */
export const shortened = (value) =>
  value.replace(/\b(eyJ|wxr_)[\w.-]{16,}/g, (token) => `${token.slice(0, 10)}…${token.slice(-6)}`)

/** Return a time on the phone, with hours, minutes and seconds. */
export const clockTime = (ms) => new Date(ms).toLocaleTimeString('en-GB')

/** Return a duration in at most two units, such as `14:59`, `3 h 20 min` or `29 天 23 小时`. */
export function duration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000))
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit))
  if (days) return `${days} ${text('days')} ${hours % 24} ${text('hours')}`
  if (hours) return `${hours} ${text('hours')} ${minutes % 60} ${text('minutes')}`
  return `${minutes}:${String(seconds % 60).padStart(2, '0')}`
}
