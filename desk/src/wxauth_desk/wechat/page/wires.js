// The requests and responses ("wires"), grouped by the tap that caused them, newest first.

import { clockTime, h, pretty, shortened } from './elements.js'
import { text } from './texts.js'

const MOST_TAPS = 50
const SHOWN = ['authorization', 'user-agent', 'content-type', 'www-authenticate', 'retry-after', 'x-request-id']

/**
 * @param {HTMLElement} place The element that shows them.
 * @param {string} serviceURL
 * @param {string} shopURL
 */
export function createWires(place, serviceURL, shopURL) {
  const taps = [] // { name, start, wires, element }, newest first
  const known = new Map() // maps an exchange of the phone, or the id of a call of the service, to its wire
  let current = null // the last tap on this page

  function begin(name) {
    const tap = { name, start: Date.now(), wires: [] }
    const isElsewhere = name === 'elsewhere'
    tap.element = h('section', { class: isElsewhere ? 'tap elsewhere' : 'tap' }, h('h3'), h('ol'))
    taps.unshift(tap)
    place.prepend(tap.element)
    for (const old of taps.splice(MOST_TAPS)) {
      old.element.remove()
      for (const wire of old.wires) known.delete(wire.key)
    }
    showTitle(tap)
    if (!isElsewhere) current = tap
    return tap
  }

  // Phone and service share this machine's clock, so the service's request to WeChat falls within the time of the
  // phone's request.
  function tapAt(time) {
    const isAround = ({ at, until }) => at <= time && time <= until
    const found = [...known.values()].findLast((wire) => /^phoneTo(Service|Shop)$/.test(wire.direction) && isAround(wire))
    return found?.tap ?? elsewhere()
  }

  const elsewhere = () => (taps[0]?.name === 'elsewhere' ? taps[0] : begin('elsewhere'))

  // A message from WeChat belongs to the last tap, but a repetition belongs to the tap of the first attempt.
  function tapOfMessage(repeats, at) {
    if (repeats) return known.get(repeats)?.tap ?? elsewhere()
    return current?.start <= at ? current : undefined
  }

  function note(key, wire) {
    const shown = known.get(key)
    if (shown) return show(Object.assign(shown, wire, { tap: shown.tap }))
    const tap = (wire.tap ??= tapAt(wire.at))
    const element = h('details', { class: 'wire' })
    known.set(key, Object.assign(wire, { key, element }))
    tap.wires.push(wire)
    tap.wires.sort((one, other) => one.at - other.at)
    tap.element
      .querySelector('ol')
      .replaceChildren(...tap.wires.map((each) => each.item ?? (each.item = h('li', {}, each.element))))
    show(wire)
  }

  /** Show a call of the phone, or of the agent. This is called when it starts and when it ends. */
  function notePhone(exchange, from = 'phone') {
    const { api, method, url, header, body, at, ms, status, answer, answerHeader, error } = exchange
    const isLogin = api === 'login'
    note(exchange, {
      direction: isLogin ? 'phoneToWeChat' : `${from}To${url.startsWith(`${serviceURL}/`) ? 'Service' : 'Shop'}`,
      what: isLogin ? 'wx.login()' : `${method} ${url.replace(serviceURL, '').replace(shopURL, '')}`,
      header: { ...header },
      answerHeader: { ...answerHeader },
      until: ms === null ? Infinity : Date.now(), // `at` and `ms` exclude the time for showing it
      tap: current,
      ...{ body, at, ms, status, answer, error },
    })
  }

  /** Show a call between the service and WeChat, as reported by the simulator. */
  function noteService({ id, direction, repeats, at, method, path, query, body, status, answer, ms }) {
    const parameters = Object.entries(query).map(([name, value]) => `${name}=${value}`)
    note(id, {
      direction,
      tap: direction === 'weChatToService' ? tapOfMessage(repeats, at) : undefined,
      what: `${method} ${path}`,
      query: parameters.join('\n'),
      ...{ body, at, ms, status, answer },
    })
  }

  /** Show a call between service and shop. Neither phone nor WeChat sees it, but its effect proves it. */
  function noteInferred(direction, what, body, at) {
    note({}, { direction, what, body, at, status: 0, tap: current })
  }

  function empty() {
    taps.length = 0
    known.clear()
    place.replaceChildren()
  }

  function showAll() {
    for (const tap of taps) {
      showTitle(tap)
      tap.wires.forEach(show)
    }
  }

  return { begin, notePhone, noteService, noteInferred, empty, showAll }
}

function showTitle({ name, start, element }) {
  element.querySelector('h3').replaceChildren(text(name), h('time', {}, clockTime(start)))
  element.querySelector('ol').dataset.empty = text('noCall')
}

function show(wire) {
  const { element, direction, what, ms, status, answer, error } = wire
  const said = answer ?? error ?? (status ? '' : text('nothing'))
  const parts = [
    part('request', [headerLines(wire.header), wire.query, pretty(wire.body ?? '')]),
    ms === null || status === 0 ? null : part('answer', [headerLines(wire.answerHeader), pretty(said)]),
  ]
  const names = [h('span', { class: 'direction' }, text(direction)), h('code', { class: 'what' }, what)]
  element.dataset.direction = direction
  element.replaceChildren(h('summary', {}, ...names, ...outcome(wire)), h('div', { class: 'wire-parts' }, ...parts))
}

function outcome({ ms, status, answer, error, direction }) {
  if (ms === null) return [h('span', { class: 'outcome waiting' }, text('underWay'))]
  if (status === 0) return [h('span', { class: 'outcome' }, text('inferred'))]
  const isHTTP = direction !== 'phoneToWeChat'
  const errcode = answer?.errcode ? `errcode ${answer.errcode}` : ''
  const isGood = !error && !errcode && (!isHTTP || (status >= 200 && status < 300))
  const reason = isGood ? (isHTTP ? '' : 'code') : error || errcode || answer?.code
  const said = [isHTTP ? (status ?? text('nothing')) : '', reason].filter(Boolean).join(' ')
  return [
    h('span', { class: isGood ? 'outcome' : 'outcome bad' }, said),
    h('span', { class: 'ms' }, `${Math.round(ms)} ms`),
  ]
}

function part(name, texts) {
  const written = texts.filter(Boolean).join('\n\n')
  return written ? h('div', {}, h('h4', {}, text(name)), h('pre', { tabIndex: 0 }, written)) : null
}

function headerLines(header = {}) {
  const shown = Object.entries(header).filter(([name]) => SHOWN.includes(name.toLowerCase()))
  return shown.map(([name, value]) => `${name}: ${shortened(value)}`).join('\n')
}
