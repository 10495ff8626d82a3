import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import {
  ask,
  ban,
  DAY,
  endSession,
  expireAtService,
  GRACE,
  kept,
  keptRefreshToken,
  LIFE,
  loggedIn,
  logInElsewhere,
  newPerson,
  pass,
  rejection,
  start,
  startAgain,
  withoutWaiting,
} from './world.js'

const LOGIN = 'POST /v1/login'
const REFRESH = 'POST /v1/refresh'
const LOGOUT = 'POST /v1/logout'
const ME = 'GET /v1/me'
const me = (auth) => auth.request({ url: '/v1/me' })

async function untilCalled(phone, kind, n = 1) {
  while (phone.count(kind) < n) await new Promise(setImmediate)
}

async function isEnded(refresh_token) {
  const { body } = await ask('POST', '/v1/refresh', { body: { refresh_token } })
  return body.code === 'session_revoked'
}

function assertForgotten(auth, phone) {
  assert.deepEqual([auth.user, kept(phone)], [null, undefined])
}

test('a logout in the same tick as a login wins, and nothing is sent', async () => {
  const { auth, phone } = start()
  const login = auth.login()
  const leaving = auth.logout()
  await rejection(login, 'session_revoked')
  await leaving
  assertForgotten(auth, phone)
  assert.deepEqual(phone.calls, [])
})

test('a logout while wx.login is under way wins, and its code is not sent', async () => {
  const { auth, phone } = start()
  const gate = phone.hold('login')
  const login = auth.login()
  await gate.arrived
  await auth.logout()
  gate.open()
  await rejection(login, 'session_revoked')
  assertForgotten(auth, phone)
  assert.equal(phone.count(LOGIN), 0)
})

for (const moment of ['before', 'after'])
  test(`a logout while a login is under way (${moment} the service has done it) wins, and ends the session of it`, async () => {
    const { auth, phone } = start()
    const gate = phone.hold(LOGIN, moment)
    const login = auth.login()
    const another = auth.login({ nickname: '小明' })
    await gate.arrived
    await auth.logout()
    gate.open()
    await rejection(login, 'session_revoked')
    await rejection(another, 'session_revoked')
    assertForgotten(auth, phone)
    await untilCalled(phone, LOGOUT)
    assert.deepEqual([phone.count(LOGIN), phone.count(LOGOUT)], [1, 1])
    await auth.login()
    while ((await auth.sessions()).length > 1) await new Promise(setImmediate)
  })

for (const moment of ['before', 'after'])
  test(`a logout while a refresh is under way (${moment} the service has done it) wins`, async () => {
    const { auth, phone } = await loggedIn()
    const token = keptRefreshToken(phone)
    await pass(phone, LIFE)
    const gate = phone.hold(REFRESH, moment)
    const asked = [me(auth), me(auth), auth.getToken()]
    await gate.arrived
    await auth.logout()
    gate.open()
    await Promise.all(asked.map((answer) => rejection(answer, 'session_revoked')))
    assertForgotten(auth, phone)
    assert.ok(await isEnded(token))
    assert.deepEqual([phone.count('login'), phone.count(ME)], [0, 0])
  })

test('a logout in the same tick as a request wins, and no token is sent', async () => {
  const { auth, phone } = await loggedIn()
  const answer = me(auth)
  const leaving = auth.logout()
  await rejection(answer, 'session_revoked')
  await leaving
  assert.deepEqual(
    phone.calls.map((call) => call.kind),
    [LOGOUT],
  )
})

test('a request whose 401 arrives after a logout does not log in again', async () => {
  const { auth, phone } = await loggedIn()
  await expireAtService()
  const gate = phone.hold(ME)
  const answer = me(auth)
  await gate.arrived
  await auth.logout()
  gate.open()
  await rejection(answer, 'session_revoked')
  assertForgotten(auth, phone)
  assert.deepEqual([phone.count('login'), phone.count(REFRESH)], [0, 0])
})

test('a login that is refused after a logout and another login does not forget that', async () => {
  const { auth, phone } = await loggedIn()
  await ban(auth.user)
  const gate = phone.hold(LOGIN)
  const first = auth.login({ nickname: '小明' })
  await gate.arrived
  await auth.logout()
  phone.person = newPerson()
  const user = await auth.login()
  gate.open()
  await rejection(first, 'session_revoked')
  assert.deepEqual(auth.user, user)
})

test('a listener that logs out wins over those who wait for a token', async () => {
  const { auth, phone } = start()
  auth.onChange((user) => user && auth.logout())
  await rejection(auth.getToken(), 'session_revoked')
  await rejection(me(auth), 'session_revoked')
  assertForgotten(auth, phone)
  assert.equal(phone.count(ME), 0)
})

test('a login at once after a logout is another one, and stays', async () => {
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  const first = auth.login()
  await gate.arrived
  const leaving = auth.logout()
  const second = auth.login()
  gate.open()
  await rejection(first, 'session_revoked')
  await leaving
  const user = await second
  assert.deepEqual(auth.user, user)
  await untilCalled(phone, LOGOUT)
  assert.equal((await me(auth)).statusCode, 200)
})

test('a refresh that is answered after a logout and another login changes nothing', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const gate = phone.hold(REFRESH)
  const token = auth.getToken()
  await gate.arrived
  await auth.logout()
  await auth.login()
  const after = kept(phone)
  gate.open()
  await rejection(token, 'session_revoked')
  assert.equal(kept(phone), after)
  assert.equal((await me(auth)).statusCode, 200)
})

test('an answer about a user who has logged out meanwhile is not kept', async () => {
  const { auth, phone } = await loggedIn()
  const gate = phone.hold('POST /v1/me')
  const change = auth.updateProfile({ nickname: '小明' })
  await gate.arrived
  await auth.logout()
  phone.person = newPerson()
  const other = await auth.login()
  gate.open()
  await rejection(change, 'session_revoked')
  assert.deepEqual(auth.user, other)
})

test('a deleteAccount that is answered after another login does not forget that', async () => {
  const { auth, phone } = await loggedIn()
  const gate = phone.hold('POST /v1/me/erasure')
  const deletion = auth.deleteAccount()
  await gate.arrived
  await auth.logout()
  const { id } = await auth.login()
  gate.open()
  await rejection(deletion, 'session_revoked')
  assert.equal(auth.user.id, id)
  assert.equal((await me(auth)).statusCode, 200)
})

for (const first of ['login', 'refresh'])
  test(`a login with fields while a refresh is under way, the ${first} answered first, ends in the login's session`, async () => {
    const { auth, phone } = await loggedIn()
    await pass(phone, LIFE)
    const gates = { refresh: phone.hold(REFRESH), login: phone.hold(LOGIN) }
    const asked = me(auth)
    const login = auth.login({ nickname: '小明' })
    await Promise.all([gates.login.arrived, gates.refresh.arrived])
    gates[first].open()
    await (first === 'login' ? login : asked)
    gates.login.open()
    gates.refresh.open()
    assert.equal((await login).nickname, '小明')
    assert.equal((await asked).statusCode, 200)
    assert.equal(auth.user.nickname, '小明')
    assert.equal(phone.count('login'), 1)
    const { id } = (await auth.sessions()).find((session) => session.current)
    assert.equal(id, JSON.parse(Buffer.from((await auth.getToken()).split('.')[1], 'base64url')).sid)
    await pass(phone, LIFE + GRACE)
    assert.equal((await me(auth)).statusCode, 200)
    assert.equal(phone.count('login'), 1)
  })

test('a refresh that is refused while a login with fields is under way takes that login', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  await pass(phone, LIFE)
  const gate = phone.hold(LOGIN, 'before')
  const login = auth.login({ nickname: '小明' })
  await gate.arrived
  const asked = me(auth)
  await untilCalled(phone, REFRESH)
  setTimeout(() => gate.open(), 20)
  assert.equal((await asked).statusCode, 200)
  await login
  assert.deepEqual([phone.count('login'), auth.user.nickname], [1, '小明'])
})

test('the phone hidden in the middle of a login ends logged in', async () => {
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  const login = auth.login()
  await gate.arrived
  phone.hide()
  assert.ok(await login)
  assert.equal(phone.count('login'), 2)
  assert.equal((await me(auth)).statusCode, 200)
})

test('the phone hidden in the middle of wx.login costs one more call', async () => {
  const { auth, phone } = start()
  const gate = phone.hold('login')
  const login = auth.login()
  await gate.arrived
  phone.hide()
  assert.ok(await login)
  assert.deepEqual([phone.count('login'), phone.count(LOGIN)], [2, 1])
})

test('the phone hidden in the middle of a request rejects it, and does not send it again', async () => {
  const { auth, phone } = await loggedIn()
  const gate = phone.hold(ME)
  const asked = me(auth)
  await gate.arrived
  phone.hide()
  await rejection(asked, 'network_error')
  assert.equal(phone.count(ME), 1)
})

test('the phone hidden in the middle of a refresh goes on with the same session', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const gate = phone.hold(REFRESH)
  const asked = me(auth)
  await gate.arrived
  phone.hide()
  assert.equal((await asked).statusCode, 200)
  assert.equal(phone.count('login'), 0)
})

for (const action of ['request', 'deleteAccount', 'updateProfile'])
  test(`another person on the phone at the silent login: ${action} is not done in that person's name`, async () => {
    const { auth, phone } = await loggedIn()
    const alice = auth.user
    await endSession(auth)
    phone.person = newPerson()
    const { user: bob } = await logInElsewhere(phone.person)
    const changes = []
    auth.onChange((user) => changes.push(user.id))
    const begun =
      action === 'request'
        ? auth.request({ url: '/v1/me', method: 'POST', data: { nickname: '我' } })
        : auth[action]({ nickname: '我' })
    await rejection(begun, 'session_revoked')
    assert.deepEqual([auth.user.id, changes], [bob.id, [bob.id]])
    assert.notEqual(bob.id, alice.id)
    const { data } = await me(auth)
    assert.deepEqual([data.id, data.nickname], [bob.id, null])
  })

test('another person on the phone after a month is logged in as such', async () => {
  const { phone } = await loggedIn()
  await pass(phone, 31 * DAY)
  phone.person = newPerson()
  const auth = startAgain(phone)
  await auth.login()
  const { data } = await me(auth)
  assert.equal(data.id, auth.user.id)
  assert.equal(data.openid, (await logInElsewhere(phone.person)).user.openid)
})

test('another person logs in by a login with fields', async () => {
  const { auth, phone } = await loggedIn()
  const { id } = auth.user
  phone.person = newPerson()
  assert.notEqual((await auth.login({ nickname: '小红' })).id, id)
  assert.equal((await me(auth)).data.nickname, '小红')
})

test('a wx.login that never calls back ends in one clear error, and the next login works', async (t) => {
  const { auth, phone } = start()
  const { expire, timers } = withoutWaiting(t)
  phone.next('login', fates.silent, fates.silent)
  const login = auth.login()
  for (const n of [1, 2]) {
    await untilCalled(phone, 'login', n)
    assert.ok((await expire()) <= 30_000)
  }
  await rejection(login, 'network_error')
  assert.ok(await auth.login())
  assert.equal(timers.size, 0, 'nothing is left running')
})

test('a login that is never answered is tried once more', async (t) => {
  const { auth, phone } = start()
  const { expire, timers } = withoutWaiting(t)
  phone.next(LOGIN, fates.doneInSilence)
  const login = auth.login()
  await untilCalled(phone, LOGIN)
  assert.ok((await expire()) <= 30_000)
  assert.ok(await login)
  assert.deepEqual([phone.count('login'), timers.size], [2, 0])
})

test('a refresh that is never answered is sent once more, with the same token', async (t) => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const { expire } = withoutWaiting(t)
  phone.next(REFRESH, fates.doneInSilence)
  const asked = me(auth)
  await expire()
  assert.equal((await asked).statusCode, 200)
  assert.equal(new Set(phone.callsOf(REFRESH).map((call) => call.data.refresh_token)).size, 1)
  assert.equal(phone.count('login'), 0)
})

test('a request that is never answered ends in timeout, a little after its own time is over', async (t) => {
  const { auth, phone } = await loggedIn()
  for (const [timeout, least] of [
    [undefined, 60_000],
    [3000, 3000],
  ]) {
    const { expire } = withoutWaiting(t)
    phone.next(ME, fates.silent)
    const asked = auth.request({ url: '/v1/me', ...(timeout && { timeout }) })
    const ms = await expire()
    assert.ok(ms > least && ms <= least + 10_000, String(ms))
    await rejection(asked, 'timeout')
    t.mock.restoreAll()
  }
})

test('an answer that comes after it was given up changes nothing', async (t) => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const { expire } = withoutWaiting(t)
  const gate = phone.hold(REFRESH)
  const asked = me(auth)
  await gate.arrived
  await expire()
  assert.equal((await asked).statusCode, 200)
  const after = kept(phone)
  gate.open()
  for (let n = 0; n < 5; n++) await new Promise(setImmediate)
  assert.equal(kept(phone), after)
})

test('a platform that calls back twice does no harm', async () => {
  const { auth, phone } = start()
  phone.callbacks = 2
  const changes = []
  auth.onChange((user) => changes.push(user))
  await auth.login()
  await pass(phone, LIFE)
  assert.equal((await me(auth)).statusCode, 200)
  assert.deepEqual([changes.length, phone.count('login'), phone.count(REFRESH)], [1, 1, 1])
  phone.isOnline = false
  await rejection(me(auth), 'network_error')
})

test('a platform that calls back with nothing does no harm', async () => {
  const { auth, phone } = start()
  const { wx } = phone
  for (const name of ['login', 'request']) {
    const real = wx[name]
    for (const outcome of ['success', 'fail']) {
      wx[name] = (options) => void options[outcome]()
      const code = name === 'login' ? 'wx_login_failed' : outcome === 'success' ? 'http_error' : 'network_error'
      await rejection(auth.login(), code)
    }
    wx[name] = real
  }
  await auth.login()
})

for (const error of [new TypeError('wx.request is broken'), { errMsg: 'request:fail' }, 'text', undefined])
  test(`a platform that throws ${(error && error.message) || JSON.stringify(error)} at once rejects, and works the next time`, async () => {
    const { auth, phone } = await loggedIn()
    for (const kind of ['login', 'login', ME, 'UPLOAD /v1/me/avatar']) phone.next(kind, fates.throws(error))
    await rejection(me(auth), 'network_error')
    await rejection(auth.setAvatar('wxfile://a.png'), 'network_error')
    await rejection(auth.login({ nickname: '小明' }), 'wx_login_failed')
    assert.equal((await me(auth)).statusCode, 200)
    assert.ok(await auth.login({ nickname: '小明' }))
  })

test('a platform that lacks what is asked of it rejects', async () => {
  const { auth, phone } = await loggedIn()
  delete phone.wx.uploadFile
  assert.match((await rejection(auth.setAvatar('f'), 'no_platform')).message, /uploadFile/)
})
