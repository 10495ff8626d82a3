// The calls between phone, service, WeChat and shop. A call, with its request and response, is a "wire". The wires are
// grouped by the tap that caused them, with the newest tap first.

import { clockTime, h, pretty, shortened } from './elements.js'
import { text } from './texts.js'

const MAX_TAPS = 50
const INFERRED = 0 // in place of the HTTP status, for a call that only its effect proves
const SHOWN_HEADERS = ['authorization', 'user-agent', 'content-type', 'www-authenticate', 'retry-after', 'x-request-id']

/**
 * Return the functions that group calls by taps and show them in `place`.
 *
 * @param {HTMLElement} place The element that shows the wires.
 * @param {string} serviceURL The URL of the service, which the wires leave out, as they do the shop's.
 * @param {string} shopURL
 */
export function createWires(place, serviceURL, shopURL) {
  const taps = [] // { name, start, wires, element }, newest first
  const wireByKey = new Map() // the key is the phone's exchange, or the id of a call of the service
  let lastTap = null // the last tap on this page, which is not "elsewhere"

  /** Begin the group of a tap on this page, or of calls that no tap on this page caused (`elsewhere`). */
  function begin(name) {
    const tap = { name, start: Date.now(), wires: [] }
    const isElsewhere = name === 'elsewhere'
    tap.element = h('section', { class: isElsewhere ? 'tap elsewhere' : 'tap' }, h('h3'), h('ol'))
    taps.unshift(tap)
    place.prepend(tap.element)
    for (const oldTap of taps.splice(MAX_TAPS)) {
      oldTap.element.remove()
      for (const wire of oldTap.wires) wireByKey.delete(wire.key)
    }
    showTitle(tap)
    if (!isElsewhere) lastTap = tap
    return tap
  }

  /**
   * Return the tap that caused a call at this time. Phone and service share this machine's clock, so a request from the
   * service to WeChat falls within the time of the phone's request.
   */
  function tapAt(time) {
    const isCause = ({ direction, at, until }) =>
      /^phoneTo(Service|Shop)$/.test(direction) && at <= time && time <= until
    const cause = [...wireByKey.values()].findLast(isCause)
    return cause?.tap ?? elsewhere()
  }

  const elsewhere = () => (taps[0]?.name === 'elsewhere' ? taps[0] : begin('elsewhere'))

  /**
   * Return the tap of a message from WeChat: the last tap or, for a repetition, the tap of the first attempt, whose id
   * is `repeats`. Return undefined if the message is older than the last tap.
   */
  function tapOfMessage(repeats, at) {
    if (repeats) return wireByKey.get(repeats)?.tap ?? elsewhere()
    return lastTap?.start <= at ? lastTap : undefined
  }

  /** Add a wire to its tap, or to the tap at its time if it has none. Update the wire if its key is known. */
  function record(key, wire) {
    const recorded = wireByKey.get(key)
    if (recorded) return show(Object.assign(recorded, wire, { tap: recorded.tap }))
    wire.key = key
    wire.tap ??= tapAt(wire.at)
    wire.element = h('details', { class: 'wire' })
    wire.item = h('li', {}, wire.element)
    wireByKey.set(key, wire)
    const { wires, element } = wire.tap
    wires.push(wire)
    wires.sort((one, other) => one.at - other.at)
    element.querySelector('ol').replaceChildren(...wires.map(({ item }) => item))
    show(wire)
  }

  /** Show a call of the phone or of the agent. The caller reports each call when it starts and when it ends. */
  function notePhone(exchange, from = 'phone') {
    const { api, method, url, header, body, at, ms, status, answer, answerHeader, error } = exchange
    let direction, what
    if (api === 'login') {
      direction = 'phoneToWeChat'
      what = 'wx.login()'
    } else {
      direction = from + (url.startsWith(`${serviceURL}/`) ? 'ToService' : 'ToShop')
      what = `${method} ${url.replace(serviceURL, '').replace(shopURL, '')}`
    }
    record(exchange, {
      direction,
      what,
      header: { ...header },
      body,
      at,
      ms,
      status,
      answer,
      answerHeader: { ...answerHeader },
      error,
      until: ms === null ? Infinity : Date.now(), // later than `at + ms`, which excludes the time for showing the call
      tap: lastTap,
    })
  }

  /** Show a call between the service and WeChat, or a request of another client, as reported by the simulator. */
  function noteService({ id, direction, repeats, at, method, path, query, header, body, status, answer, ms }) {
    const parameters = Object.entries(query).map(([name, value]) => `${name}=${value}`)
    const isOfShop = direction === 'clientToService' && path.endsWith('/signatures') // only the shop requests these
    const tap = { weChatToService: () => tapOfMessage(repeats, at), clientToService: isOfShop ? undefined : elsewhere }
    record(id, {
      direction: isOfShop ? 'shopToService' : direction,
      what: `${method} ${path}`,
      query: parameters.join('\n'),
      header,
      body,
      at,
      ms,
      status,
      answer,
      tap: wireByKey.has(id) ? undefined : tap[direction]?.(),
    })
  }

  /** Show a call from the service to the shop, which neither phone nor WeChat sees. Only its effect proves it. */
  function noteInferred(direction, what, body, at) {
    record({}, { direction, what, body, at, status: INFERRED, tap: lastTap })
  }

  function empty() {
    taps.length = 0
    wireByKey.clear()
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

/** Show in `place` how the calls of a tap would look, without details to open. */
export function showExample(place, name, calls) {
  const items = calls.map((call) => {
    const line = h('div', { class: 'line' }, ...lineOf(call))
    return h('li', { class: 'wire', 'data-direction': call.direction }, line)
  })
  place.replaceChildren(h('section', { class: 'tap' }, h('h3', {}, text(name)), h('ol', {}, items)))
}

function showTitle({ name, start, element }) {
  element.querySelector('h3').replaceChildren(text(name), h('time', {}, clockTime(start)))
  element.querySelector('ol').dataset.empty = text('noCall')
}

function show(wire) {
  const { element, direction, ms, status } = wire
  const request = part('request', [headerLines(wire.header), wire.query, pretty(wire.body ?? '')])
  const isAnswerKnown = ms !== null && status !== INFERRED
  const response = isAnswerKnown ? part('answer', [headerLines(wire.answerHeader), pretty(answerOf(wire))]) : null
  element.dataset.direction = direction
  const summary = h('summary', {}, ...lineOf(wire))
  element.replaceChildren(summary, h('div', { class: 'wire-parts' }, request, response))
}

/** Return the elements of a call's line: who called whom, what, the outcome and the duration. */
function lineOf(wire) {
  const { direction, what } = wire
  const names = [h('span', { class: 'direction' }, text(direction)), h('code', { class: 'what' }, what)]
  return [...names, ...outcome(wire)]
}

/** Return the body of the response, or the reason why there was no response. */
function answerOf({ answer, error, status }) {
  const withoutBody = status ? '' : text('nothing')
  return answer ?? error ?? withoutBody
}

/** Return the elements that say how a wire ended, and how long it took. */
function outcome(wire) {
  if (wire.ms === null) return [h('span', { class: 'outcome waiting' }, text('underWay'))]
  if (wire.status === INFERRED) return [h('span', { class: 'outcome' }, text('inferred'))]
  const { isGood, words } = wire.direction === 'phoneToWeChat' ? loginOutcome(wire) : httpOutcome(wire)
  return [
    h('span', { class: isGood ? 'outcome' : 'outcome bad' }, words),
    h('span', { class: 'ms' }, `${Math.round(wire.ms)} ms`),
  ]
}

const loginOutcome = ({ error }) => ({ isGood: !error, words: error ?? 'code' })

function httpOutcome({ status, answer, error }) {
  const errcode = answer?.errcode ? `errcode ${answer.errcode}` : ''
  const isGood = !error && !errcode && status >= 200 && status < 300
  const reason = isGood ? '' : error || errcode || answer?.code
  return { isGood, words: [status ?? text('nothing'), reason].filter(Boolean).join(' ') }
}

/** Return a part of a wire, with its heading, from texts of which some can be empty; null if all are empty. */
function part(name, texts) {
  const content = texts.filter(Boolean).join('\n\n')
  return content ? h('div', {}, h('h4', {}, text(name)), h('pre', { tabIndex: 0 }, content)) : null
}

function headerLines(header = {}) {
  const shown = Object.entries(header).filter(([name]) => SHOWN_HEADERS.includes(name.toLowerCase()))
  return shown.map(([name, value]) => `${name}: ${shortened(value)}`).join('\n')
}
