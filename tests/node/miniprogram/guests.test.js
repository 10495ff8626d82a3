// Guests with createAuth({ silent: false }), and an envelope around errors.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { ban, endSession, expireAtService, kept, listen, newPerson, rejection, secondInstance, start, startAgain, times } from './world.js'

const REFRESH = 'POST /v1/refresh'
const SHOP = 'GET /goods'

/** Set up a phone with guests, and a shop that shows its goods to everyone. It returns 401 if a token is invalid. */
async function shop(t, { isLoggedIn = false, answer, ...options } = {}) {
  const server = await listen(t, answer || (() => [200, { 'Content-Type': 'application/json' }, '{"goods":1}']))
  const { auth, phone } = start({ silent: false, origins: [server.url], ...options })
  const heard = []
  if (isLoggedIn) await auth.login()
  auth.onChange((user) => heard.push(user))
  phone.calls.length = 0
  const goods = (more) => auth.request({ url: `${server.url}/goods`, ...more })
  return { auth, phone, server, heard, goods, tokens: () => server.requests.map((each) => each.headers.authorization) }
}

test('a guest asks without a token, without the Authorization of the page, and has what is answered', async (t) => {
  const { phone, goods, tokens } = await shop(t, { answer: (_, n) => [n === 1 ? 200 : 401, {}, '{}'] })
  assert.equal((await goods({ header: { authorization: 'Bearer mine', 'X-Mine': '1' } })).statusCode, 200)
  assert.equal((await goods({ method: 'POST' })).statusCode, 401)
  assert.deepEqual(tokens(), [undefined, undefined])
  assert.deepEqual(phone.calls.map((call) => call.kind), [SHOP, 'POST /goods'])
})

test("a guest's request goes to the service and to origins alone", async (t) => {
  const { auth, phone } = await shop(t)
  assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 401)
  await rejection(auth.request({ url: 'https://evil.example.com/' }), 'origin_not_allowed')
  assert.equal(phone.count('GET /v1/me'), 1)
})

for (const [name, ...args] of [
  ['getToken'], ['bindPhone', 'code'], ['updateProfile', {}], ['setAvatar', 'file'], ['decrypt', {}], ['consent', {}],
  ['withdrawConsent', 'privacy'], ['sessions'], ['revokeSession', 'id'], ['idToken', 'shop'], ['deleteAccount'],
])
  test(`${name} tells a guest to log in, before any call`, async (t) => {
    const { auth, phone } = await shop(t)
    const error = await rejection(auth[name](...args), 'login_required')
    assert.deepEqual([error.title, error.status, phone.calls], ['请先登录。', null, []])
  })

test('login, loginCode and logout are as ever', async (t) => {
  const { auth, phone, heard, goods, tokens } = await shop(t)
  assert.ok(await auth.loginCode())
  const user = await auth.login()
  assert.equal((await goods()).statusCode, 200)
  await auth.logout()
  await goods()
  await rejection(auth.getToken(), 'login_required')
  assert.deepEqual(tokens().map(Boolean), [true, false])
  assert.deepEqual([heard, phone.count('login')], [[user, null], 2])
})

test('a session that is there after a restart is used', async (t) => {
  const { phone, auth } = await shop(t, { isLoggedIn: true })
  const again = startAgain(phone, { silent: false })
  assert.equal((await again.request({ url: '/v1/me' })).data.id, auth.user.id)
  assert.equal(phone.count('login'), 0)
})

test('another instance that has logged in logs a guest in', async (t) => {
  const { auth, phone } = await shop(t)
  const user = await secondInstance({ phone }).login()
  assert.ok(await auth.getToken())
  assert.equal(auth.user.id, user.id)
})

test('where the session has ended, a read goes on as a guest, and onChange hears it once', async (t) => {
  const { auth, phone, heard, goods, tokens } = await shop(t, {
    isLoggedIn: true, answer: ({ headers }) => [headers.authorization ? 401 : 200, {}, '{}'],
  })
  await endSession(auth)
  phone.calls.length = 0
  const answers = await times(5, () => goods())
  assert.deepEqual(new Set(answers.map((answer) => answer.statusCode)), new Set([200]))
  assert.deepEqual([phone.count(REFRESH), phone.count('login'), heard, auth.user], [1, 0, [null], null])
  assert.equal(tokens().filter((token) => !token).length, 5)
  assert.ok(!kept(phone))
})

test('a write rejects with why the session ended, and is not sent again', async (t) => {
  const { auth, server, goods } = await shop(t, { isLoggedIn: true, answer: () => [401, {}, '{}'] })
  await endSession(auth)
  await rejection(goods({ method: 'POST' }), 'session_revoked')
  assert.equal(server.requests.length, 1)
  await goods({ method: 'POST' })
  assert.equal(server.requests.length, 2, 'now as a guest')
})

test('with a token known to have expired, the read is sent once, and the write not at all', async (t) => {
  for (const [method, sent] of [['GET', 1], ['POST', 0]]) {
    const { auth, phone, server, goods } = await shop(t, { isLoggedIn: true })
    await endSession(auth)
    phone.time += 10 ** 9
    if (sent) assert.equal((await goods()).statusCode, 200)
    else await rejection(goods({ method }), 'session_revoked')
    assert.equal(server.requests.length, sent)
  }
})

test('a member under way rejects with why the session ended, also one that reads', async (t) => {
  const { auth, phone } = await shop(t, { isLoggedIn: true })
  await endSession(auth)
  phone.time += 10 ** 9
  await rejection(auth.sessions(), 'session_revoked')
  await rejection(auth.sessions(), 'login_required')
})

test('a banned person goes on as a guest', async (t) => {
  const { auth, phone, heard, goods } = await shop(t, { isLoggedIn: true })
  await ban(auth.user)
  phone.time += 10 ** 9
  assert.equal((await goods()).statusCode, 200)
  await rejection(auth.login(), 'account_disabled')
  assert.deepEqual([heard, auth.user], [[null], null])
})

test('who logged in elsewhere instead goes on as a guest, and only login() logs in again', async (t) => {
  const { auth, phone, heard, goods } = await shop(t, { isLoggedIn: true })
  phone.time += 10 ** 9
  phone.next(REFRESH, fates.answers(400, { code: 'session_replaced', title: '已在其他设备登录。' }))
  assert.equal((await goods()).statusCode, 200)
  assert.equal((await goods({ method: 'POST' })).statusCode, 200)
  await rejection(auth.getToken(), 'login_required')
  await rejection(goods({ silent: true }), 'session_replaced')
  assert.deepEqual([heard, phone.count('login')], [[null], 0])
  assert.ok(await auth.login())
})

for (const [fate, what] of [
  [fates.notSent, 'no network'], [fates.answers(429, {}), 'a 429'], [fates.answers(503, '<html>'), 'a 503'],
])
  test(`while the service is away (${what}), reads are sent as a guest's, and the session stays`, async (t) => {
    const { auth, phone, heard, goods, tokens } = await shop(t, { isLoggedIn: true })
    phone.time += 10 ** 9
    const tries = fate === fates.notSent ? 4 : 2 // the client tries a refresh without a response twice
    phone.next(REFRESH, ...Array(tries).fill(fate))
    assert.equal((await goods()).statusCode, 200)
    await assert.rejects(goods({ method: 'POST' }))
    assert.equal((await goods()).statusCode, 200)
    assert.deepEqual(tokens().map(Boolean), [false, true])
    assert.deepEqual([heard, Boolean(auth.user), phone.count('login')], [[], true, 0])
  })

test('what ended by logout() under way is not sent as a guest', async (t) => {
  const { auth, phone, server, goods } = await shop(t, { isLoggedIn: true })
  await expireAtService()
  phone.time += 10 ** 9
  const gate = phone.hold(REFRESH)
  const asking = rejection(goods(), 'session_revoked')
  await gate.arrived
  await auth.logout()
  gate.open()
  await asking
  assert.equal(server.requests.length, 0)
})

test('one request may log in where others do not, and the reverse', async (t) => {
  const { auth, phone, goods, tokens } = await shop(t)
  await goods({ silent: true })
  assert.deepEqual([phone.count('login'), Boolean(auth.user), phone.callsOf(SHOP)[0].silent], [1, true, undefined])
  const { auth: silent, phone: other } = start({ origins: [new URL(phone.callsOf(SHOP)[0].url).origin] })
  await silent.request({ url: phone.callsOf(SHOP)[0].url, silent: false })
  assert.deepEqual([other.count('login'), tokens().map(Boolean)], [0, [true, false]])
})

test('of requests that share a refused refresh, those that may log in do, and the others go on as guests', async (t) => {
  for (const silent of [true, false]) {
    const { auth, phone, goods } = await shop(t, { isLoggedIn: true, silent })
    await endSession(auth)
    phone.time += 10 ** 9
    phone.calls.length = 0
    const answers = await times(6, (n) => goods({ silent: n % 2 === 0 }))
    assert.ok(answers.every((answer) => answer.statusCode === 200))
    assert.deepEqual([phone.count(REFRESH), phone.count('login'), Boolean(auth.user)], [1, 1, true])
    assert.deepEqual(phone.callsOf(SHOP).filter((call) => !call.header.Authorization).length, 3)
  }
})

test('opened from Moments, a guest may look around, and cannot log in', async (t) => {
  const { auth, phone, goods } = await shop(t)
  phone.wx.getEnterOptionsSync = () => ({ scene: 1154 })
  assert.equal((await goods()).statusCode, 200)
  await rejection(auth.login(), 'single_page')
})

test('a session that was known without tokens is nobody for a client with guests', async (t) => {
  const { auth, phone } = start()
  await auth.login()
  await endSession(auth)
  phone.time += 10 ** 9
  phone.next('login', fates.notSent, fates.notSent)
  await rejection(auth.getToken(), 'network_error')
  assert.ok(auth.user)
  assert.equal(startAgain(phone, { silent: false }).user, null)
  assert.ok(startAgain(phone).user)
})

const envelope = (isRefused) => ({
  isLoggedIn: true, isRefused, answer: (_, n) => [200, { 'Content-Type': 'application/json' }, JSON.stringify({ errno: n === 1 ? 501 : 0 })],
})
for (const [how, isRefused, tries] of [
  ['says so', ({ statusCode, data }) => statusCode === 200 && data.errno === 501, 2],
  ['says so later', async ({ data }) => data.errno === 501, 2],
  ['throws', () => { throw new Error() }, 1],
  ['returns a promise of nothing', async () => {}, 1],
  ['rejects', async () => { throw new Error() }, 1],
  ['rejects with nothing', () => Promise.reject(), 1],
  ['is a text', 'errno', 1],
  ['is true', true, 1],
  ['is an object', {}, 1],
])
  test(`an envelope of which isRefused ${how} is sent ${tries} times, whatever console.error does`, async (t) => {
    for (const shows of [() => {}, () => true, async () => true, () => { throw new Error() }]) {
      t.mock.method(console, 'error', shows)
      const { phone, goods, tokens } = await shop(t, envelope(isRefused))
      assert.equal((await goods()).data.errno, tries === 2 ? 0 : 501)
      assert.deepEqual([phone.count(SHOP), phone.count(REFRESH), new Set(tokens()).size], [tries, tries - 1, tries])
    }
  })

test('a second refusal in an envelope is the answer, and a guest is not asked about', async (t) => {
  const asked = []
  const { auth, phone, goods } = await shop(t, {
    isLoggedIn: true, isRefused: ({ data }) => asked.push(data), answer: () => [200, {}, '{"errno":501}'],
  })
  assert.equal((await goods()).data.errno, 501)
  assert.deepEqual([phone.count(SHOP), asked.length], [2, 1])
  await auth.logout()
  await goods()
  assert.equal(asked.length, 1)
})

test("the client's own members do not ask about an envelope", async (t) => {
  const { auth } = await shop(t, { isLoggedIn: true, isRefused: () => assert.fail('asked') })
  assert.equal((await auth.sessions()).length, 1)
  assert.equal((await auth.updateProfile({ nickname: newPerson() })).id, auth.user.id)
})
