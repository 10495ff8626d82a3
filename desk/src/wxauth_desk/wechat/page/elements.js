// The function that makes elements, and functions that write JSON, tokens and times for reading.

import { text } from './texts.js'

export { h } from './dom.js'

/** Return a value as indented JSON, or a text as it is. In both, each token is shortened. */
export function pretty(value) {
  if (typeof value === 'string') return shortened(value)
  return JSON.stringify(value, (_, inner) => (typeof inner === 'string' ? shortened(inner) : inner), 2)
}

/** Return a text in which each JWT or refresh token is without its middle, such as `eyJhbGciOi…3xYz9Q`. */
export const shortened = (value) =>
  value.replace(/\b(eyJ|wxr_)[\w.-]{16,}/g, (token) => `${token.slice(0, 10)}…${token.slice(-6)}`)

/** Return a time of day with seconds, such as `14:59:03`. `ms` is the time in ms since the epoch. */
export const clockTime = (ms) => new Date(ms).toLocaleTimeString('en-GB')

/**
 * Return a duration, such as `14:59` (minutes and seconds), `3 h 20 min` or `29 天 23 小时`. A part of a second counts as
 * a whole second, and a negative duration as none.
 */
export function duration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000))
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit))
  if (days) return `${days} ${text('days')} ${hours % 24} ${text('hours')}`
  if (hours) return `${hours} ${text('hours')} ${minutes % 60} ${text('minutes')}`
  return `${minutes}:${String(seconds % 60).padStart(2, '0')}`
}
