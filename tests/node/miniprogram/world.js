// The real service and the simulated WeChat, which pytest has started, and phones that use them.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { built } from './built.js'
import { exchange, Phone } from '../../../examples/phone/phone.mjs'

export const { AuthError, createAuth } = await built(process.env.COMPILER)

/** The URLs and ids. They come from tests/miniprogram/test_client.py. */
export const { SERVICE_URL, WECHAT_URL, APP_ID, APP_SECRET, OTHER_APP_ID } = process.env
/** Seconds from the service's settings. */
export const LIFE = Number(process.env.ACCESS_TOKEN_TTL)
export const GRACE = Number(process.env.REFRESH_REUSE_GRACE)
export const DAY = 86400

/** Return the name of a new user. */
export const newPerson = () => `p${randomUUID().slice(0, 8)}`

/** Create the phone of a new user, with the client on it. */
export function start({ person = newPerson(), ...options } = {}) {
  const phone = new Phone({ wechat: WECHAT_URL, person, appId: APP_ID })
  return { phone, person, auth: startAgain(phone, options) }
}

/** Create a phone and log in. Count the phone's calls only from then on. */
export async function loggedIn(options) {
  const started = start(options)
  await started.auth.login()
  started.phone.calls.length = 0
  return started
}

/** Restart the mini-program on this phone. */
export function startAgain(phone, options = {}) {
  return secondInstance({ phone, platform: phone.restart(), ...options })
}

/** Create another client in the same run of the mini-program. */
export function secondInstance({ phone, ...options }) {
  return createAuth({ baseURL: SERVICE_URL, appId: APP_ID, platform: phone.wx, now: phone.now, ...options })
}

/** Advance the clocks of the phone and the service. */
export async function pass(phone, seconds) {
  phone.time += seconds * 1000
  await passAtService(seconds)
}

/** Advance only the service's clock, and return its time in seconds. */
export async function passAtService(seconds) {
  const { body } = await ask('POST', '/controls/clock', { body: { seconds } })
  return body.now
}

/** The clock skew that the service tolerates, plus a second. */
export const SKEW = 31

/** Make the phone's access token expire at the service, unnoticed by the phone. */
export const expireAtService = () => passAtService(LIFE + SKEW)

/** Ban a user. */
export async function ban(user) {
  const { status } = await ask('POST', '/controls/bans', { body: { user_id: user.id } })
  assert.equal(status, 204)
}

/** Send a request to the service without the client, as another device would. */
export async function ask(method, path, { token, body } = {}) {
  const header = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
  const answer = await exchange(SERVICE_URL + path, method, header, body && JSON.stringify(body))
  const text = answer.body.toString()
  return { status: answer.statusCode, body: text && JSON.parse(text) }
}

/** Send a control request to the simulated WeChat. */
export async function wechat(path, body) {
  const answer = await exchange(WECHAT_URL + path, 'POST', {}, JSON.stringify(body))
  assert.equal(answer.statusCode, 200, answer.body.toString())
  return JSON.parse(answer.body)
}

/** Log the user in on another device, and return the tokens. */
export async function logInElsewhere(person, appId = APP_ID) {
  const { code } = await wechat('/codes', { person, app_id: appId })
  const { status, body } = await ask('POST', '/v1/login', { body: { code, app_id: appId } })
  assert.equal(status, 200)
  return body
}

/** Exchange a code of this user elsewhere with the app's secret, so that WeChat changes the session_key. */
export async function exchangeElsewhere(person) {
  const { code } = await wechat('/codes', { person, app_id: APP_ID })
  const query = `appid=${APP_ID}&secret=${APP_SECRET}&js_code=${code}&grant_type=authorization_code`
  const { body } = await exchange(`${WECHAT_URL}/sns/jscode2session?${query}`, 'GET', {})
  assert.ok(JSON.parse(body).session_key)
}

/** Return whether the service accepts this access token. */
export const isGood = async (token) => (await ask('GET', '/v1/me', { token })).status === 200

/** Return the session that the phone stores, as text. */
export const kept = (phone, key = 'wxauth') => phone.storage.get(key)

/** Return the refresh token that the phone stores. */
export const keptRefreshToken = (phone) => /wxr_[\w.-]+/.exec(kept(phone))[0]

/**
 * Return the error that a promise rejects with. Check that it's an AuthError with this code, that it can be shown, and
 * that it contains no token.
 */
export async function rejection(promise, code) {
  const error = await promise.then(
    (value) => assert.fail(`resolved to ${JSON.stringify(value)}`),
    (reason) => reason,
  )
  checkError(error)
  assert.equal(error.code, code, error.stack)
  return error
}

export function checkError(error) {
  assert.ok(error instanceof AuthError, error && error.stack)
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'AuthError')
  assert.match(error.title, /^[一-鿿，、。！？：:“” 0-9A-Za-z-]{2,30}$/u)
  assert.match(error.title, /[一-鿿]/u)
  assert.ok(error.status === null || error.status >= 200, String(error.status))
  for (const part of [error.requestId, error.retryAfter]) assert.notEqual(part, undefined)
  for (const { field, message } of error.errors) assert.ok(field && message)
  const all = [error.message, error.stack, JSON.stringify(error)].join()
  assert.doesNotMatch(all, /eyJ[\w-]{8}|wxr_[\w-]{8}/)
}

/** Return the seconds until an access token expires, by the service's clock. */
export async function timeLeft(token) {
  const { exp } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
  return exp - (await passAtService(0))
}

/** End the session on this phone, unnoticed by the phone. */
export async function endSession(auth) {
  const [{ id }] = (await auth.sessions()).filter((session) => session.current)
  const { status } = await ask('DELETE', `/v1/me/sessions/${id}`, { token: await auth.getToken() })
  assert.equal(status, 204)
}

/**
 * Start a server that records its requests and ends with the test. A body can be a function that writes to the
 * response.
 */
export async function listen(t, answer) {
  const requests = []
  const server = createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const { method, url, headers } = request
    requests.push({ method, url, headers, body: Buffer.concat(chunks).toString() })
    const [status, header, body] = await answer(requests.at(-1), requests.length)
    response.writeHead(status, header)
    if (typeof body === 'function') await body(response)
    else response.end(body)
  })
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready))
  t.after(() => (server.close(), server.closeAllConnections()))
  return { url: `http://127.0.0.1:${server.address().port}`, requests }
}

export const times = (n, work) => Promise.all(Array.from({ length: n }, (_, i) => work(i)))

/** Stop the client's timeouts from firing by themselves. `await expire()` fires one, and returns its milliseconds. */
export function withoutWaiting(t) {
  const timers = new Map()
  t.mock.method(globalThis, 'setTimeout', (callback, ms, ...args) => {
    const id = Symbol(ms)
    timers.set(id, { callback, ms, args })
    return id
  })
  t.mock.method(globalThis, 'clearTimeout', (id) => timers.delete(id))
  return {
    timers,
    async expire() {
      while (timers.size === 0) await new Promise(setImmediate)
      const [[id, { callback, ms, args }]] = timers
      timers.delete(id)
      callback(...args)
      return ms
    },
  }
}
