// The phone's tokens, decoded, with their remaining times.

import { duration, h, pretty } from './elements.js'
import { text } from './texts.js'

const TIMES = ['exp', 'iat']

/**
 * @typedef {object} Tokens
 * @property {string} access
 * @property {string} refresh
 * @property {number} at When the tokens arrived, by the phone's clock, in ms.
 * @property {number} life
 * @property {number} refreshLife
 */

/** Return the tokens in a response of /v1/login or /v1/refresh. */
export const tokensOf = (answer, at) => ({
  access: answer.access_token,
  refresh: answer.refresh_token,
  at,
  life: answer.expires_in * 1000,
  refreshLife: answer.refresh_expires_in * 1000,
})

/** @param {HTMLElement} place @param {Tokens | null} tokens */
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
  const copied = h('button', { type: 'button', class: 'small', onclick: copy }, text('copy'))
  async function copy() {
    await navigator.clipboard.writeText(tokens.access)
    copied.textContent = text('copied')
  }
  place.replaceChildren(
    h('h3', {}, text('accessToken'), copied),
    life('access'),
    h('h4', {}, text('header')),
    h('pre', { tabIndex: 0 }, pretty(header)),
    h('h4', {}, text('claims')),
    h('table', {}, h('tbody', {}, rows)),
    h('h3', {}, text('refreshToken')),
    h('p', {}, h('code', {}, pretty(tokens.refresh))),
    life('refresh'),
  )
}

/** Update the remaining times. `now` is the phone's time. */
export function tick(place, tokens, now) {
  if (!tokens) return
  for (const [name, span] of [
    ['access', tokens.life],
    ['refresh', tokens.refreshLife],
  ]) {
    const rest = tokens.at + span - now
    place.querySelector(`[data-bar=${name}]`).value = Math.max(0, rest / span)
    const said = rest > 0 ? text('left').replace('…', duration(rest)) : text('expired')
    place.querySelector(`[data-left=${name}]`).textContent = said
  }
}

function life(name) {
  const bar = h('progress', { max: 1, value: 1, ariaLabel: text(`${name}Token`) })
  const left = h('span', {})
  bar.dataset.bar = left.dataset.left = name
  return h('p', { class: 'life' }, bar, left)
}

const readable = (name, value) =>
  TIMES.includes(name) ? `${value} · ${new Date(value * 1000).toLocaleTimeString('en-GB')}` : pretty(value)

function decoded(part) {
  const bytes = Uint8Array.from(atob(part.replace(/-/g, '+').replace(/_/g, '/')), (character) =>
    character.charCodeAt(0),
  )
  return JSON.parse(new TextDecoder().decode(bytes))
}
