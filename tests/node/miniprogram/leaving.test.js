// Whenever a session ends, nothing with its tokens leaves the phone afterwards. The servers say what has left.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exchange } from '../../../examples/phone/phone.mjs'
import { keptRefreshToken, LIFE, listen, loggedIn, newPerson, passAtService, rejection, secondInstance, SERVICE_URL, start } from './world.js'

const MICROTASKS = 10 // after 5, everything has been sent
const LOGIN = 'POST /v1/login'
const REFRESH = 'POST /v1/refresh'

const ticks = async (n) => {
  while (n--) await null
}

/** Start a shop, and a server between the phone and wxauth. Both record what arrives, and whether it is too late. */
async function servers(t) {
  await passAtService(60) // the logins of the previous test count no longer
  const state = { hasEnded: false, tokens: [], late: [] }
  function record({ method, url, headers, body }) {
    const text = `${headers.authorization} ${body}`
    const isLogout = /^\/v1\/(logout|me\/sessions)$/.test(url) && method !== 'GET'
    if (state.hasEnded && !isLogout && state.tokens.some((token) => text.includes(token))) state.late.push(`${method} ${url}`)
  }
  const shop = await listen(t, (request) => (record(request), [200, {}, '{}']))
  const service = await listen(t, async (request) => {
    record(request)
    const { method, url, headers, body } = request
    const { host, 'content-length': length, connection, ...header } = headers
    const answer = await exchange(SERVICE_URL + url, method, header, body)
    return [answer.statusCode, { 'content-type': 'application/json' }, answer.body]
  })
  return { state, shop, service }
}

/** Everything that sends a token. */
const everything = (auth, shop) => [
  auth.request({ url: `${shop.url}/orders` }),
  auth.request({ url: `${shop.url}/orders`, method: 'POST', data: { tea: 1 } }),
  auth.request({ url: `${shop.url}/chat`, enableChunked: true, onChunk() {} }),
  auth.request({ url: '/v1/me' }),
  auth.setAvatar('f'),
  auth.sessions(),
  auth.updateProfile({ nickname: '小明' }),
  auth.getToken(),
]

const ENDS = {
  'a logout': ({ auth }) => auth.logout(),
  'a logout everywhere': ({ auth }) => auth.logout({ everywhere: true }),
  'a logout in another instance': ({ other }) => other.logout(),
}

/** When the microtasks before the end are counted from. */
const MOMENTS = {
  'the call': async (phone, call) => call(),
  'the response to a refresh': async (phone, call) => {
    phone.time += LIFE * 1000
    const { request } = phone.wx
    const refreshed = new Promise((resolve) => {
      phone.wx.request = (options) => {
        const isRefresh = options.url.endsWith('/v1/refresh')
        const success = (answer) => (options.success(answer), isRefresh && resolve())
        return request({ ...options, success })
      }
    })
    call()
    await refreshed
  },
  'the start of a refresh': async (phone, call) => {
    phone.time += LIFE * 1000
    call()
    while (!phone.count(REFRESH)) await new Promise(setImmediate)
  },
}

for (const [moment, begin] of Object.entries(MOMENTS))
  for (const [what, end] of Object.entries(moment === 'the call' ? ENDS : { 'a logout': ENDS['a logout'] }))
    test(`${what} any number of microtasks after ${moment}`, async (t) => {
      const { state, shop, service } = await servers(t)
      for (let n = 0; n <= MICROTASKS; n += 1) {
        Object.assign(state, { hasEnded: false, tokens: [] })
        const { auth, phone } = await loggedIn({ baseURL: service.url, origins: [shop.url] })
        phone.files.set('f', Buffer.from('no picture'))
        const other = secondInstance({ phone, baseURL: service.url })
        state.tokens = [await auth.getToken(), keptRefreshToken(phone)]
        let asked
        await begin(phone, () => (asked = Promise.allSettled(everything(auth, shop))))
        await ticks(n)
        state.hasEnded = true
        await end({ auth, other })
        await asked
        await new Promise(setImmediate)
        assert.deepEqual(state.late, [], `after ${n} microtasks`)
      }
    })

for (const where of ['this instance', 'another instance'])
  test(`what is called any number of microtasks around the login of another person in ${where}`, async (t) => {
    const { state, shop, service } = await servers(t)
    for (let n = 0; n <= MICROTASKS; n += 1) {
      Object.assign(state, { hasEnded: false, tokens: [] })
      const { auth, phone } = await loggedIn({ baseURL: service.url, origins: [shop.url] })
      phone.files.set('f', Buffer.from('no picture'))
      const { id } = auth.user
      const whoLogsIn = where === 'this instance' ? auth : secondInstance({ phone, baseURL: service.url })
      state.tokens = [await auth.getToken(), keptRefreshToken(phone)]
      phone.person = newPerson()
      const { request } = phone.wx
      let asked
      phone.wx.request = (options) => {
        if (!options.url.endsWith('/v1/login')) return request(options)
        const success = async (answer) => {
          options.success(answer)
          await ticks(n)
          asked ||= Promise.allSettled(everything(auth, shop))
        }
        return request({ ...options, success })
      }
      whoLogsIn.onChange((user) => (state.hasEnded = user && user.id !== id))
      await whoLogsIn.login({ force: true })
      await asked
      await new Promise(setImmediate)
      assert.ok(state.hasEnded)
      assert.deepEqual(state.late, [], `after ${n} microtasks`)
    }
  })

test('a request under way rejects when its session ends, without waiting for a response', async (t) => {
  const { auth, phone } = await loggedIn()
  const kinds = ['GET /v1/me', 'UPLOAD /v1/me/avatar']
  phone.files.set('f', Buffer.from('no picture'))
  const gates = kinds.map((kind) => phone.hold(kind))
  const asked = [auth.request({ url: '/v1/me' }), auth.setAvatar('f')].map((promise) => rejection(promise, 'session_revoked'))
  await Promise.all(gates.map(({ arrived }) => arrived))
  await auth.logout()
  await Promise.all(asked)
})

test('a guest’s request, and a request of the same person who logs in again, go on', async () => {
  for (const { auth, phone } of [start({ silent: false }), await loggedIn()]) {
    const gate = phone.hold('GET /v1/me')
    const asked = auth.request({ url: '/v1/me' })
    await gate.arrived
    await auth.login({ force: true })
    gate.open()
    assert.ok((await asked).statusCode)
  }
})

test('a platform whose tasks cannot be aborted, or are promises, does no harm', async () => {
  for (const change of [() => undefined, () => ({}), async (task) => task]) {
    const { auth, phone } = await loggedIn()
    const { request } = phone.wx
    phone.wx.request = (options) => change(request(options))
    const gate = phone.hold('GET /v1/me')
    const asked = rejection(auth.request({ url: '/v1/me' }), 'session_revoked')
    await gate.arrived
    await auth.logout()
    gate.open()
    await asked
    assert.ok(await auth.login())
  }
})
