import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import {
  APP_ID,
  DAY,
  endSession,
  GRACE,
  isGood,
  kept,
  keptRefreshToken,
  LIFE,
  loggedIn,
  OTHER_APP_ID,
  pass,
  rejection,
  secondInstance,
  SERVICE_URL,
  start,
  startAgain,
  times,
  withoutWaiting,
} from './world.js'

const LOGIN = 'POST /v1/login'
const REFRESH = 'POST /v1/refresh'
const me = (auth) => auth.request({ url: '/v1/me' })

test('what was kept survives restarts, day after day, without another login', async () => {
  const { phone } = await loggedIn()
  for (let day = 0; day < 5; day++) {
    const auth = startAgain(phone)
    assert.ok(auth.user)
    assert.equal((await me(auth)).statusCode, 200)
    await pass(phone, DAY)
  }
  assert.deepEqual([phone.count('login'), phone.count(REFRESH)], [0, 4])
})

test('it is kept as one text under the storage key, and under no other', async () => {
  const { phone } = await loggedIn()
  assert.deepEqual([...phone.storage.keys()], ['wxauth'])
  const { phone: other } = await loggedIn({ storageKey: 'mine' })
  assert.deepEqual([...other.storage.keys()], ['mine'])
  assert.equal(typeof other.wx.getStorageSync('mine'), 'string')
})

for (const [what, options] of Object.entries({
  'another app id': { appId: OTHER_APP_ID },
  'no app id': { appId: undefined },
  'another base URL': { baseURL: SERVICE_URL.replace('127.0.0.1', 'localhost') },
  'another path of the same host': { baseURL: `${SERVICE_URL}/auth` },
  'another storage key': { storageKey: 'other' },
}))
  test(`what was kept for ${what} is as nothing kept`, async () => {
    const { phone } = await loggedIn()
    const auth = startAgain(phone, options)
    assert.equal(auth.user, null)
    phone.next(LOGIN, fates.notSent, fates.notSent)
    await auth.login().catch(() => {})
    assert.ok(phone.count('login') > 0)
    assert.equal(phone.count(REFRESH), 0)
  })

const UNREADABLE = [
  'garbage',
  '',
  '{',
  'null',
  '0',
  '"text"',
  '[]',
  '{}',
  '{"user":null}',
  '{"user":{"id":"1"},"tokens":"x"}',
]
const NOT_OURS = [null, 0, 1, true, [], {}, { user: { id: '1' }, tokens: {} }, [null]]
for (const value of [...UNREADABLE, ...NOT_OURS])
  test(`${JSON.stringify(value)} in the storage is as nothing kept`, async () => {
    const { phone } = start()
    phone.wx.setStorageSync('wxauth', value)
    const auth = secondInstance({ phone })
    assert.equal(auth.user, null)
    const { id } = await auth.login()
    assert.equal(startAgain(phone).user.id, id)
  })

test('what was kept and has been damaged is as nothing kept, or does no harm', async () => {
  const { phone } = await loggedIn()
  const whole = phone.wx.getStorageSync('wxauth')
  const { user, tokens } = JSON.parse(whole)
  const damaged = [
    whole.slice(0, -1),
    whole.slice(1),
    ...[null, 'x', [], {}, { ...tokens, refresh: null }].map((value) =>
      whole.replace(JSON.stringify(tokens), JSON.stringify(value)),
    ),
    ...[null, 'x', 0].map((value) => whole.replace(JSON.stringify(user), JSON.stringify(value))),
    ...Object.values(tokens).map((value) => whole.replace(JSON.stringify(value), 'null')),
    ...Object.values(tokens).map((value) => whole.replace(JSON.stringify(value), '"x"')),
  ]
  for (const text of damaged) {
    phone.restart()
    phone.wx.setStorageSync('wxauth', text)
    const auth = secondInstance({ phone })
    assert.equal((await me(auth)).statusCode, 200, text)
    assert.equal(auth.user.openid, user.openid)
  }
})

test('full storage costs persistence, not the login', async () => {
  const { auth, phone } = start()
  for (let n = 0; n < 10; n++) phone.wx.setStorageSync(`k${n}`, 'x'.repeat(2 ** 20 - 5))
  assert.throws(() => phone.wx.setStorageSync('more', 'x'.repeat(500)))
  assert.ok(await auth.login())
  await pass(phone, LIFE)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(phone.count('login'), 1)
  const again = startAgain(phone)
  assert.equal(again.user, null)
  assert.equal((await me(again)).statusCode, 200)
})

test('storage that fills up while logged in keeps nothing rather than a refresh token that has been used', async () => {
  const { auth, phone } = await loggedIn()
  phone.wx.setStorageSync = () => {
    throw new Error('setStorageSync:fail exceed storage max size 10Mb')
  }
  await pass(phone, LIFE)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(kept(phone), undefined)
  await pass(phone, LIFE + GRACE)
  assert.equal((await me(auth)).statusCode, 200, 'in this run it goes on')
  phone.calls.length = 0
  assert.equal((await me(startAgain(phone))).statusCode, 200)
  assert.deepEqual([phone.count(REFRESH), phone.count('login')], [0, 1])
})

const METHODS = ['getStorageSync', 'setStorageSync', 'removeStorageSync']
for (const broken of [...METHODS.map((name) => [name]), ['getStorageSync', 'setStorageSync'], METHODS])
  for (const before of [true, false])
    test(`where ${broken.join(', ')} throws from ${before ? 'the start' : 'some moment'} on, all but persistence works`, async () => {
      const { phone } = start()
      const break_ = () =>
        broken.forEach(
          (name) =>
            (phone.wx[name] = () => {
              throw new Error(`${name}:fail`)
            }),
        )
      if (before) break_()
      const auth = secondInstance({ phone })
      const changes = []
      auth.onChange((user) => changes.push(user && user.nickname))
      await auth.login()
      break_()
      await pass(phone, LIFE + GRACE)
      assert.equal((await me(auth)).statusCode, 200)
      await pass(phone, LIFE + GRACE)
      assert.equal((await me(auth)).statusCode, 200)
      await auth.login()
      await auth.updateProfile({ nickname: '小明' })
      assert.deepEqual([phone.count('login'), phone.count(REFRESH)], [1, 2])
      await auth.logout()
      assert.equal(auth.user, null)
      assert.deepEqual(changes, [null, '小明', null])
    })

test('a logout whose removal from storage fails leaves no token there', async () => {
  const { auth, phone } = await loggedIn()
  phone.wx.removeStorageSync = () => {
    throw new Error('removeStorageSync:fail')
  }
  await auth.logout()
  assert.doesNotMatch(kept(phone), /wxr_/)
  assert.equal(startAgain(phone).user, null)
})

test('a restart in the middle of a login ends logged in', async (t) => {
  withoutWaiting(t) // the restart ends the previous client, so its timeouts must not fire
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  auth.login().catch(() => {})
  await gate.arrived
  const again = startAgain(phone)
  assert.equal(again.user, null)
  assert.ok(await again.login())
  assert.equal((await me(again)).statusCode, 200)
})

for (const moment of ['before', 'after'])
  test(`a restart in the middle of a refresh (${moment} the service has done it) goes on with the same session`, async (t) => {
    withoutWaiting(t)
    const { auth, phone } = await loggedIn()
    await pass(phone, LIFE)
    const gate = phone.hold(REFRESH, moment)
    me(auth).catch(() => {})
    await gate.arrived
    const again = startAgain(phone)
    assert.equal((await me(again)).statusCode, 200)
    await pass(phone, LIFE + GRACE)
    assert.equal((await me(again)).statusCode, 200)
    assert.equal(phone.count('login'), 0)
  })

test('a restart in the middle of a refresh, and back too late, ends in one silent login', async (t) => {
  withoutWaiting(t)
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const gate = phone.hold(REFRESH)
  me(auth).catch(() => {})
  await gate.arrived
  await pass(phone, DAY)
  const again = startAgain(phone)
  assert.equal((await me(again)).statusCode, 200)
  assert.deepEqual([phone.count('login'), phone.count(LOGIN)], [1, 1])
})

test("two instances with the same storage key do not use up each other's refresh token", async () => {
  const { auth: one, phone } = await loggedIn()
  const two = secondInstance({ phone })
  assert.deepEqual(two.user, one.user)
  for (const auth of [one, two, two, one, two]) {
    await pass(phone, LIFE + GRACE)
    assert.equal((await me(auth)).statusCode, 200)
  }
  assert.deepEqual([phone.count('login'), phone.count(REFRESH)], [0, 5])
})

test('one instance goes on with what the other has logged in', async () => {
  const { auth: one, phone } = start()
  const two = secondInstance({ phone })
  const changes = []
  two.onChange((user) => changes.push(user.id))
  const { id } = await one.login()
  assert.equal((await two.login()).id, id)
  assert.equal((await me(two)).statusCode, 200)
  assert.deepEqual(changes, [id])
  assert.equal(phone.count('login'), 1)
})

test('two instances that refresh at the same time both go on', async () => {
  const { auth: one, phone } = await loggedIn()
  const two = secondInstance({ phone })
  await pass(phone, LIFE)
  const answers = await Promise.all([...(await times(5, () => one)), ...(await times(5, () => two))].map(me))
  assert.ok(answers.every((answer) => answer.statusCode === 200))
  for (const auth of [one, two]) {
    await pass(phone, LIFE + GRACE)
    assert.equal((await me(auth)).statusCode, 200)
  }
  assert.equal(phone.count('login'), 0)
})

test('after a logout of one instance the other logs in anew where it is asked to', async () => {
  const { auth: one, phone } = await loggedIn()
  const two = secondInstance({ phone })
  await one.logout()
  assert.equal((await me(two)).statusCode, 200)
  assert.equal(phone.count('login'), 1)
  assert.ok(await isGood(await two.getToken()))
})

test('two instances of two apps under one storage key each keep to their own', async () => {
  const { auth: one, phone } = await loggedIn()
  const two = secondInstance({ phone, appId: undefined })
  await two.login()
  assert.equal(one.user.app_id, APP_ID)
  await pass(phone, LIFE + GRACE)
  for (const auth of [one, two]) assert.equal((await me(auth)).statusCode, 200)
  assert.equal(phone.count('login'), 1)
})

test('a storage that the app has cleared costs nothing while it runs', async () => {
  const { auth, phone } = await loggedIn()
  phone.storage.clear()
  await pass(phone, LIFE + GRACE)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(phone.count('login'), 0)
  assert.ok(keptRefreshToken(phone))
})

test('after a refused refresh what is kept has no token that has been used', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  phone.next('login', fates.notSent, fates.notSent)
  await rejection(me(auth), 'network_error')
  assert.doesNotMatch(kept(phone), /wxr_/)
})
