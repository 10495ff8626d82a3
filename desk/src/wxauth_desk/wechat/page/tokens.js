// The phone's tokens, decoded, with their remaining times.

import { clockTime, duration, h, pretty } from './elements.js'
import { text } from './texts.js'

const TIME_CLAIMS = ['exp', 'iat']

/**
 * @typedef {object} Tokens
 * @property {string} access
 * @property {string} refresh
 * @property {number} at When the tokens arrived, by the phone's clock, in ms since the epoch.
 * @property {number} life How long the access token is valid, in ms.
 * @property {number} refreshLife How long the refresh token is valid, in ms.
 */

/** Return the tokens in a response of /v1/login or /v1/refresh, which arrived `at` this time of the phone. */
export const tokensOf = (answer, at) => ({
  access: answer.access_token,
  refresh: answer.refresh_token,
  at,
  life: answer.expires_in * 1000,
  refreshLife: answer.refresh_expires_in * 1000,
})

/**
 * Show both tokens, or that there are none. `tick` then fills in the remaining times.
 *
 * @param {HTMLElement} place
 * @param {Tokens | null} tokens
 */
export function showTokens(place, tokens) {
  if (!tokens) return place.replaceChildren(h('p', { class: 'quiet' }, text('noTokens')))
  const [header, claims] = tokens.access.split('.').slice(0, 2).map(decoded)
  const rows = Object.entries(claims).map(([name, value]) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, h('code', {}, name)),
      h('td', {}, readable(name, value), h('small', {}, text(`claim.${name}`))),
    ),
  )
  const copyButton = h('button', { type: 'button', class: 'small', onclick: copy }, text('copy'))
  async function copy() {
    await navigator.clipboard.writeText(tokens.access)
    copyButton.textContent = text('copied')
  }
  place.replaceChildren(
    h('h3', {}, text('accessToken'), copyButton),
    remainingTime('access'),
    h('h4', {}, text('header')),
    h('pre', { tabIndex: 0 }, pretty(header)),
    h('h4', {}, text('claims')),
    h('table', {}, h('tbody', {}, rows)),
    h('h3', {}, text('refreshToken')),
    h('p', {}, h('code', {}, pretty(tokens.refresh))),
    remainingTime('refresh'),
  )
}

/** Update the remaining times. `now` is the phone's time, in ms since the epoch. */
export function tick(place, tokens, now) {
  if (!tokens) return
  const lives = { access: tokens.life, refresh: tokens.refreshLife }
  for (const [name, life] of Object.entries(lives)) {
    const left = tokens.at + life - now
    place.querySelector(`[data-bar=${name}]`).value = Math.max(0, left / life)
    const caption = left > 0 ? text('left').replace('…', duration(left)) : text('expired')
    place.querySelector(`[data-left=${name}]`).textContent = caption
  }
}

/** Return the bar and the text for the remaining time of the token `access` or `refresh`. */
function remainingTime(name) {
  const bar = h('progress', { max: 1, value: 1, ariaLabel: text(`${name}Token`) })
  const caption = h('span', {})
  bar.dataset.bar = name
  caption.dataset.left = name
  return h('p', { class: 'life' }, bar, caption)
}

/** Return the value of a claim, followed by the time of day if the value is a time. */
function readable(name, value) {
  if (!TIME_CLAIMS.includes(name)) return pretty(value)
  return `${value} · ${clockTime(value * 1000)}`
}

/** Return the JSON in a part of a token, which is UTF-8 in base64url. */
function decoded(part) {
  const binary = atob(part.replace(/-/g, '+').replace(/_/g, '/'))
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0))
  return JSON.parse(new TextDecoder().decode(bytes))
}
