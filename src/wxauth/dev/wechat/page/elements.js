// What the page shows: elements, and how tokens and times are written.

export { h } from './dom.js'

/** JSON to be read; tokens are cut short, and what is no JSON stays as it is. */
export function pretty(value) {
  if (typeof value === 'string') return shortened(value)
  return JSON.stringify(value, (_, inner) => (typeof inner === 'string' ? shortened(inner) : inner), 2)
}

/** A text, with the middle of each token in it left out. */
export const shortened = (value) =>
  value.replace(/\b(eyJ|wxr_)[\w.-]{16,}/g, (token) => `${token.slice(0, 10)}…${token.slice(-6)}`)

/** A time on the phone: hours, minutes, seconds. */
export const clockTime = (ms) => new Date(ms).toLocaleTimeString('en-GB')

/** A duration, in two units at most: `14:59`, `3 h 20 min`, `29 d 23 h`. */
export function duration(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000))
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit))
  if (days) return `${days} d ${hours % 24} h`
  if (hours) return `${hours} h ${minutes % 60} min`
  return `${minutes}:${String(seconds % 60).padStart(2, '0')}`
}
