import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates, Gate } from '../../../examples/phone/phone.mjs'
import {
  ask,
  ban,
  DAY,
  endSession,
  expireAtService,
  GRACE,
  isGood,
  kept,
  keptRefreshToken,
  LIFE,
  loggedIn,
  pass,
  passAtService,
  rejection,
  SKEW,
  start,
  startAgain,
  timeLeft,
  times,
} from './world.js'

const LOGIN = 'POST /v1/login'
const REFRESH = 'POST /v1/refresh'
const ME = 'GET /v1/me'
const me = (auth) => auth.request({ url: '/v1/me' })
const statuses = (answers) => answers.map((answer) => answer.statusCode)
const OK = Array(10).fill(200)

test('a request with an expired access token, fired ten times at once, causes one refresh and ten answers', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE + SKEW)
  assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
  assert.deepEqual([phone.count(REFRESH), phone.count(ME), phone.count('login')], [1, 10, 0])
})

test("so does one that has expired without the phone's knowing", async () => {
  const { auth, phone } = await loggedIn()
  await expireAtService()
  assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
  assert.deepEqual([phone.count(REFRESH), phone.count(ME), phone.count('login')], [1, 20, 0])
})

test('ten requests whose 401s arrive at different times cause one refresh and ten answers', async () => {
  const { auth, phone } = await loggedIn()
  await expireAtService()
  const gates = Array.from({ length: 10 }, () => new Gate())
  phone.next(ME, ...gates.map((gate) => gate.after))
  const asked = gates.map(() => me(auth))
  await Promise.all(gates.map((gate) => gate.arrived))
  for (const [i, gate] of gates.entries()) {
    gate.open()
    assert.equal((await asked[i]).statusCode, 200)
  }
  assert.deepEqual([phone.count(REFRESH), phone.count(ME), phone.count('login')], [1, 20, 0])
})

test('ten getToken at once are one refresh, and the same token', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, DAY)
  const tokens = await times(10, () => auth.getToken())
  assert.equal(new Set(tokens).size, 1)
  assert.equal(phone.count(REFRESH), 1)
  assert.ok(await isGood(tokens[0]))
})

test('ten requests at once on a phone that is not logged in cause one login', async () => {
  const { auth, phone } = start()
  assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
  assert.deepEqual([phone.count('login'), phone.count(LOGIN), phone.count(REFRESH)], [1, 1, 0])
})

test('a token with half a minute left is used, one with less is refreshed first', async () => {
  const { auth, phone } = await loggedIn()
  const first = await auth.getToken()
  await pass(phone, LIFE - 32)
  assert.equal(await auth.getToken(), first)
  await pass(phone, 3)
  const second = await auth.getToken()
  assert.notEqual(second, first)
  assert.ok((await timeLeft(second)) >= 30)
  assert.equal(phone.count(REFRESH), 1)
})

test("what getToken gives has half a minute to live by the clock of the service, whatever the phone's clock shows", async () => {
  for (const wrong of [-DAY, DAY, -400 * DAY, 400 * DAY]) {
    const { auth, phone } = start()
    phone.time += wrong * 1000
    await auth.login()
    for (const seconds of [1, LIFE - 40, 15, 40, LIFE]) {
      await pass(phone, seconds)
      assert.ok((await timeLeft(await auth.getToken())) >= 30, `${wrong} s wrong, after ${seconds} s`)
    }
    assert.equal(phone.count('login'), 1)
  }
})

for (const back of [10, 3600, DAY, 400 * DAY])
  test(`a phone whose clock is set back by ${back} s gets a fresh token`, async () => {
    const { auth, phone } = await loggedIn()
    await pass(phone, LIFE - 60)
    await auth.getToken()
    await passAtService(25)
    phone.time -= back * 1000
    assert.ok((await timeLeft(await auth.getToken())) >= 30)
    await me(auth)
    await me(auth)
    assert.deepEqual([phone.count(REFRESH), phone.count('login')], [1, 0], 'from then on it is as good as any clock')
  })

test('a phone whose clock is set back while the app is away refreshes, then goes on', async () => {
  const { phone } = await loggedIn()
  await passAtService(2 * LIFE)
  phone.time -= DAY * 1000
  const auth = startAgain(phone)
  assert.ok((await timeLeft(await auth.getToken())) >= 30)
  assert.deepEqual([phone.count(REFRESH), phone.count('login')], [1, 0])
})

test('a phone whose clock is set forward by a day refreshes once', async () => {
  const { auth, phone } = await loggedIn()
  phone.time += DAY * 1000
  assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
  assert.equal(phone.count(REFRESH), 1)
})

test('a phone whose clock is set forward by years logs in anew', async () => {
  const { auth, phone } = await loggedIn()
  phone.time += 1000 * DAY * 1000
  await auth.login()
  assert.equal(phone.count('login'), 1)
})

test('of a short-lived token more than half is left', async () => {
  const { auth, phone } = start()
  const body = await ask('POST', '/v1/login', { body: { code: phone.person } })
  phone.next(LOGIN, fates.answers(200, { ...body.body, expires_in: 20 }))
  await auth.login()
  const first = await auth.getToken()
  phone.time += 9_000
  assert.equal(await auth.getToken(), first)
  phone.time += 2_000
  assert.notEqual(await auth.getToken(), first)
})

test('the answer to a refresh is kept before anyone gets the token', async () => {
  const { auth, phone } = await loggedIn()
  const old = keptRefreshToken(phone)
  await pass(phone, LIFE)
  await auth.getToken().then(() => assert.notEqual(keptRefreshToken(phone), old))
  const again = startAgain(phone)
  await pass(phone, LIFE)
  assert.ok(await isGood(await again.getToken()))
  assert.equal(phone.count('login'), 0)
})

for (const fate of ['answerLost', 'tooLate', 'notSent'])
  test(`a refresh whose answer was lost (${fate}) is sent again in the same call, with the same token`, async () => {
    const { auth, phone } = await loggedIn()
    await pass(phone, LIFE)
    phone.next(REFRESH, fates[fate])
    assert.equal((await me(auth)).statusCode, 200)
    const [first, second, ...others] = phone.callsOf(REFRESH)
    assert.equal(first.data.refresh_token, second.data.refresh_token)
    assert.deepEqual(others, [])
    await pass(phone, LIFE + GRACE)
    assert.equal((await me(auth)).statusCode, 200, 'nothing breaks later')
    assert.equal(phone.count('login'), 0)
  })

test('a refresh whose answer was lost twice rejects, keeps the session, and the next call sends the same token', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  phone.next(REFRESH, fates.answerLost, fates.tooLate)
  await rejection(me(auth), 'timeout')
  assert.equal(phone.count(REFRESH), 2)
  assert.ok(auth.user)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(new Set(phone.callsOf(REFRESH).map((call) => call.data.refresh_token)).size, 1)
  await pass(phone, LIFE + GRACE)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(phone.count('login'), 0)
})

test('a refresh whose answer was lost, taken up again too late, ends in one silent login', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  phone.next(REFRESH, fates.answerLost, fates.notSent)
  await rejection(auth.getToken(), 'network_error')
  await pass(phone, GRACE + 1)
  assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
  assert.deepEqual([phone.count('login'), phone.count(REFRESH)], [1, 3])
})

test('ten requests share the failure of a refresh', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  phone.next(REFRESH, fates.notSent, fates.notSent)
  await times(10, () => rejection(me(auth), 'network_error'))
  assert.deepEqual([phone.count(REFRESH), phone.count(ME)], [2, 0])
})

const KEEPING = {
  http_error: [429, '<html>Too Many Requests</html>', { 'Retry-After': '3' }],
  rate_limited: [429, { code: 'rate_limited', title: '请求过于频繁', request_id: 'r' }, { 'Retry-After': '3' }],
  storage_unavailable: [
    503,
    { code: 'storage_unavailable', title: '服务暂不可用', request_id: 'r' },
    { 'Retry-After': '3' },
  ],
  internal_error: [500, { code: 'internal_error', title: '服务出错', request_id: 'r' }, { 'retry-after': '3' }],
}
for (const [code, answer] of Object.entries(KEEPING))
  test(`a refresh that is answered ${answer[0]} ${code} rejects, keeps the session, and the next call tries again`, async () => {
    const { auth, phone } = await loggedIn()
    const before = kept(phone)
    await pass(phone, LIFE)
    phone.next(REFRESH, fates.answers(...answer))
    const error = await rejection(me(auth), code)
    assert.deepEqual([error.status, error.retryAfter], [answer[0], 3])
    assert.equal(kept(phone), before)
    assert.equal(phone.count(REFRESH), 1)
    assert.equal((await me(auth)).statusCode, 200)
    assert.deepEqual([phone.count(REFRESH), phone.count('login')], [2, 0])
  })

for (const [what, body] of Object.entries({
  'a captive portal': '<html>请登录 Wi-Fi</html>',
  'an empty answer': '',
  'something else': { code: 'account_disabled', data: {} },
}))
  test(`${what} in the place of a refresh rejects with http_error and keeps the session`, async () => {
    const { auth, phone } = await loggedIn()
    const before = kept(phone)
    await pass(phone, LIFE)
    phone.next(REFRESH, fates.answers(200, body))
    assert.equal((await rejection(me(auth), 'http_error')).status, 200)
    assert.equal(kept(phone), before)
    assert.equal((await me(auth)).statusCode, 200)
  })

test('offline it rejects with network_error and keeps the session', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  phone.isOnline = false
  const error = await rejection(me(auth), 'network_error')
  assert.deepEqual([error.status, error.title], [null, '网络不可用'])
  assert.match(error.message, /ERR_INTERNET_DISCONNECTED/)
  phone.isOnline = true
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(phone.count('login'), 0)
})

const REFUSALS = {
  session_revoked: async (auth) => endSession(auth),
  refresh_token_reused: async (_, phone) => {
    await ask('POST', '/v1/refresh', { body: { refresh_token: keptRefreshToken(phone) } })
    await passAtService(GRACE + 1)
  },
  refresh_token_expired: async () => passAtService(31 * DAY),
  invalid_refresh_token: async (auth, phone) =>
    ask('POST', '/v1/me/erasure', { token: await auth.getToken(), body: { login_code: phone.person } }),
}
for (const [code, refuse] of Object.entries(REFUSALS))
  test(`a refresh that the service refuses with ${code} ends in one silent login`, async () => {
    const { auth, phone } = await loggedIn()
    const { openid } = auth.user
    await refuse(auth, phone)
    await passAtService(LIFE + SKEW)
    phone.calls.length = 0
    let refusal
    phone.next(REFRESH, async (ask) => (refusal = await ask()))
    assert.deepEqual(statuses(await times(10, () => me(auth))), OK)
    assert.deepEqual([refusal.statusCode, refusal.data.code], [400, code])
    assert.deepEqual([phone.count(REFRESH), phone.count('login'), phone.count(LOGIN)], [1, 1, 1])
    assert.equal(auth.user.openid, openid)
  })

test('a silent login that fails leaves the user known, and the next call logs in', async () => {
  const { auth, phone } = await loggedIn()
  const { id } = auth.user
  await endSession(auth)
  phone.next(LOGIN, fates.notSent, fates.notSent)
  await rejection(me(auth), 'network_error')
  assert.equal(auth.user.id, id)
  assert.equal(startAgain(phone).user.id, id)
  phone.calls.length = 0
  assert.equal((await me(startAgain(phone))).statusCode, 200)
  assert.deepEqual([phone.count(REFRESH), phone.count('login')], [0, 1])
})

for (const known of [true, false])
  test(`a user who is banned is told so at the refresh, and the session is forgotten (401 first: ${!known})`, async () => {
    const { auth, phone } = await loggedIn()
    await ban(auth.user)
    if (known) await pass(phone, LIFE)
    const errors = await times(10, () => rejection(me(auth), 'account_disabled'))
    assert.deepEqual([errors[0].status, auth.user, kept(phone)], [403, null, undefined])
    assert.deepEqual([phone.count(REFRESH), phone.count('login')], [1, 0])
  })

test('who learns later that the user is banned is told so too', async () => {
  const { auth, phone } = await loggedIn()
  await ban(auth.user)
  const gate = phone.hold(ME)
  const late = me(auth)
  await gate.arrived
  await rejection(me(auth), 'account_disabled')
  gate.open()
  await rejection(late, 'account_disabled')
  assert.equal(phone.count('login'), 0)
})

test('a token that the service has refused is not used again, though the clock says that it is good', async () => {
  const { auth, phone } = await loggedIn()
  const refused = await auth.getToken()
  await expireAtService()
  await me(auth)
  assert.notEqual(await auth.getToken(), refused)
  assert.equal(phone.count(REFRESH), 1)
})

const REPLACED = fates.answers(400, { code: 'session_replaced', title: '你的账号已在其他设备登录。', request_id: 'r' })

test('a session whose place another device has taken is forgotten, and nothing logs in by itself', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  phone.calls.length = 0
  phone.next(REFRESH, REPLACED)
  await expireAtService()
  await rejection(me(auth), 'session_replaced')
  assert.equal(auth.user, null)
  for (const again of [() => me(auth), () => auth.getToken(), () => auth.sessions()]) {
    const error = await rejection(again(), 'session_replaced')
    assert.equal(error.title, '账号已在其他设备登录')
  }
  const later = startAgain(phone)
  await rejection(me(later), 'session_replaced')
  assert.deepEqual([phone.count('login'), phone.count(LOGIN)], [0, 0])
  await later.login()
  assert.equal((await me(later)).statusCode, 200)
  assert.equal(phone.count(LOGIN), 1)
})

test('after a logout, who was replaced logs in silently again', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  phone.next(REFRESH, REPLACED)
  await expireAtService()
  await rejection(me(auth), 'session_replaced')
  await auth.logout()
  assert.equal((await me(auth)).statusCode, 200)
})
