// Requests of a session that has ended on this phone never resolve, and the client sends nothing with its tokens.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates, Gate } from '../../../examples/phone/phone.mjs'
import * as copy from '../../../clients/miniprogram/wxauth.js?in-another-context'
import { approve, claim } from '../../../clients/miniprogram/wxauth-scan.js'
import { authorize } from '../../../clients/miniprogram/wxauth-site.js'
import {
  APP_ID, ban, kept, keptRefreshToken, LIFE, listen, loggedIn, newPerson, pass, rejection, secondInstance, SERVICE_URL, start,
} from './world.js'

const [ME, LOGIN, REFRESH, LOGOUT] = ['GET /v1/me', 'POST /v1/login', 'POST /v1/refresh', 'POST /v1/logout']
const me = (auth) => auth.request({ url: '/v1/me' })
const ticks = async (n) => {
  while (n--) await null
}
/**
 * Create the client of another context, for example WeChat's AI or a subpackage. The contexts share only the storage.
 */
const inAnotherContext = (phone) => copy.createAuth({ baseURL: SERVICE_URL, appId: APP_ID, platform: phone.wx, now: phone.now })

async function until(condition) {
  while (!condition()) await new Promise(setImmediate)
}

const tokensOf = async (auth, phone) => [await auth.getToken(), keptRefreshToken(phone)]

const asOther = async (phone, auth) => {
  phone.person = newPerson()
  await auth.login({ force: true })
}

/** The ways in which a session ends on a phone, and the code that pending calls then reject with. */
const ENDS = {
  'a logout': { end: (auth) => auth.logout() },
  'a logout that does not reach the service': { end: (auth, phone) => (phone.next(LOGOUT, fates.notSent), auth.logout()) },
  'a logout everywhere': { end: (auth) => auth.logout({ everywhere: true }) },
  'a logout and a login of the same person': { end: async (auth) => (await auth.logout(), auth.login()) },
  'a logout and a login of another person': { end: async (auth, phone) => (await auth.logout(), asOther(phone, auth)) },
  'a login of another person': { end: (auth, phone) => asOther(phone, auth) },
  'logins of another person and of the first again': {
    end: async (auth, phone) => {
      const { person } = phone
      await asOther(phone, auth)
      phone.person = person
      await auth.login({ force: true })
    },
  },
  'an erasure': { end: (auth) => auth.deleteAccount(), needsRefresh: true },
  'a ban': { end: async (auth) => (await ban(auth.user), rejection(auth.login({ force: true }), 'account_disabled')), code: 'account_disabled' },
  'a logout in another instance': { end: (auth, phone) => secondInstance({ phone }).logout() },
  'a logout in another context': { end: (auth, phone) => inAnotherContext(phone).logout() },
  'a logout and a login in another context': { end: async (auth, phone) => (await inAnotherContext(phone).logout(), inAnotherContext(phone).login()) },
  'a login of another person in another instance': { end: (auth, phone) => asOther(phone, secondInstance({ phone })) },
  'a login of another person in another context': { end: (auth, phone) => asOther(phone, inAnotherContext(phone)) },
  'an erasure in another context': { end: (auth, phone) => inAnotherContext(phone).deleteAccount() },
  'a ban that another context hears of': {
    end: async (auth, phone) => (await ban(auth.user), assert.rejects(inAnotherContext(phone).login({ force: true }))),
  },
  'another device, of which another context hears': {
    end: async (auth, phone) => {
      phone.next(REFRESH, fates.answers(400, { code: 'session_replaced' }))
      phone.time += 10 ** 9
      await assert.rejects(inAnotherContext(phone).getToken())
    },
    code: 'session_replaced',
  },
}

/** Return the calls since `from` that contain one of these tokens, except logouts. */
const sentWith = (phone, tokens, from) =>
  phone.calls.slice(from).filter(({ kind, header, data }) => {
    const text = JSON.stringify([header, data]) || ''
    return tokens.some((token) => text.includes(token)) && kind !== LOGOUT && kind !== 'DELETE /v1/me/sessions'
  }).map(({ kind }) => kind)

for (const [what, { end, code = 'session_revoked', needsRefresh }] of Object.entries(ENDS)) {
  test(`${what}: nothing resolves whose response comes afterwards, and nothing more is sent`, async (t) => {
    const stream = new Gate()
    const server = await listen(t, () => [200, {}, async (response) => {
      response.write('one')
      await stream.opened
      response.end('two')
    }])
    const { auth, phone } = await loggedIn({ origins: [server.url] })
    phone.files.set('f', Buffer.from('no picture'))
    const tokens = await tokensOf(auth, phone)
    const gates = [ME, 'POST /v1/me', 'UPLOAD /v1/me/avatar', 'GET /v1/me/sessions'].map((kind) => phone.hold(kind))
    const pieces = []
    const asked = [
      auth.request({ url: server.url, enableChunked: true, onChunk: (piece) => pieces.push(piece) }),
      me(auth),
      auth.request({ url: '/v1/me', method: 'POST', data: { nickname: '小明' } }),
      auth.setAvatar('f'),
      auth.sessions(),
    ].map((promise) => rejection(promise, code))
    await Promise.all([...gates.map((gate) => gate.arrived), until(() => pieces.length)])
    await end(auth, phone)
    const sent = phone.calls.length
    for (const gate of [...gates, stream]) gate.open()
    await Promise.all(asked)
    assert.equal(pieces.length, 1)
    assert.deepEqual(sentWith(phone, tokens, sent), [])
  })

  if (!needsRefresh) test(`${what}: nothing is sent that waits for a refresh, and the session is not taken up again`, async () => {
    const { auth, phone } = await loggedIn()
    const tokens = await tokensOf(auth, phone)
    await pass(phone, LIFE)
    const gate = phone.hold(REFRESH)
    const asked = [me(auth), auth.updateProfile({ nickname: '小明' }), auth.getToken(), auth.idToken('shop')]
    const rejected = asked.map((promise) => rejection(promise, code))
    await gate.arrived
    await end(auth, phone)
    const [sent, after] = [phone.calls.length, kept(phone)]
    gate.open()
    await Promise.all(rejected)
    assert.deepEqual([sentWith(phone, tokens, sent), kept(phone)], [[], after])
  })
}

test('at whatever moment of a request the logout comes, its token leaves the phone before that, or never', async () => {
  const { auth, phone } = await loggedIn()
  for (let n = 0; n < 12; n += 1) {
    await auth.login()
    phone.calls.length = 0
    const asked = [me(auth), auth.setAvatar('f'), auth.getToken().then((token) => assert.ok(!auth.user || token))]
    await ticks(n)
    const sent = phone.calls.length
    const leaving = auth.logout()
    await Promise.allSettled(asked)
    await leaving
    assert.deepEqual(phone.calls.slice(sent).map(({ kind }) => kind), [LOGOUT], `after ${n} microtasks`)
  }
})

test('a response after which the logout comes at once does not resolve', async () => {
  const { auth, phone } = await loggedIn()
  let late = 0
  for (let n = 0; n < 15; n += 1) {
    await auth.login()
    let hasLeft
    const { request } = phone.wx
    phone.wx.request = (options) => request({ ...options, success: async (answer) => {
      options.success(answer)
      if (!options.url.endsWith('/v1/me')) return
      await ticks(n)
      hasLeft = true
      auth.logout()
    } })
    await me(auth).then(() => (late += hasLeft ? 1 : 0), (error) => assert.equal(error.code, 'session_revoked'))
    phone.wx.request = request
  }
  assert.ok(late <= 1, 'there is one microtask between the promise and whoever awaits it')
})

for (const [what, call] of Object.entries({
  idToken: (auth) => auth.idToken('shop'),
  deleteAccount: (auth) => auth.deleteAccount(),
  'approve of a scan': (auth) => approve(auth, { id: 'x' }),
  'the answer to a site': (auth) => authorize(auth, { redirect_uri: 'https://shop.example.com/callback' }),
}))
  for (const who of /scan|site/.test(what) ? ['another person'] : ['the same person', 'another person'])
    test(`${what} is not sent for ${who} who logs in during its wx.login`, async () => {
      const { auth, phone } = await loggedIn()
      const gate = phone.hold('login')
      const asked = rejection(call(auth), 'session_revoked')
      await gate.arrived
      if (who === 'another person') await asOther(phone, auth)
      else await auth.logout().then(() => auth.login())
      phone.calls.length = 0
      gate.open()
      await asked
      assert.deepEqual(phone.calls, [])
    })

test('a scan is not claimed anew, nor a site answered, for another person of a new login that they need', async () => {
  for (const [answer, call] of [
    [{ code: 'login_too_old' }, (auth) => claim(auth, { scene: 'x' })],
    [{ redirect_to: 'https://shop.example.com/callback?error=login_required' }, (auth) => authorize(auth, { redirect_uri: 'https://a.b' })],
  ]) {
    const { auth, phone } = await loggedIn()
    phone.person = newPerson()
    phone.next('POST /v1/me/scans', fates.answers(403, answer))
    phone.next('POST /v1/me/authorizations', fates.answers(200, answer))
    await rejection(call(auth), 'session_revoked')
    assert.equal(phone.count('POST /v1/me/scans') + phone.count('POST /v1/me/authorizations'), 1)
  }
})

test('consent reads the profile of nobody else', async () => {
  const { auth, phone } = await loggedIn()
  const gate = phone.hold('POST /v1/me/consents')
  const asked = rejection(auth.consent({ terms: '3' }), 'session_revoked')
  await gate.arrived
  await asOther(phone, auth)
  gate.open()
  await asked
  assert.equal(phone.count(ME), 0)
})

test('a refresh without an answer is not sent again after a logout in another context', async () => {
  const { auth, phone } = await loggedIn()
  await pass(phone, LIFE)
  const gate = phone.hold(REFRESH)
  phone.next(REFRESH, fates.notSent)
  const asked = rejection(me(auth), 'session_revoked')
  await gate.arrived
  await inAnotherContext(phone).logout()
  phone.isOnline = false
  phone.hide()
  await asked
  assert.deepEqual([phone.count(REFRESH), kept(phone)], [1, undefined])
})

test('a request that the page judges by isRefused is not repeated after a logout meanwhile', async () => {
  let auth
  const started = await loggedIn({ isRefused: () => auth.logout().then(() => true) })
  auth = started.auth
  await rejection(me(auth), 'session_revoked')
  assert.equal(started.phone.count(ME), 1)
})

test('what fails after a logout fails for that reason', async () => {
  const { auth, phone } = await loggedIn()
  const gate = phone.hold(ME)
  const asked = rejection(me(auth), 'session_revoked')
  await gate.arrived
  await auth.logout()
  phone.hide()
  await asked
})

test('what begins after a logout elsewhere is a request of the next session', async () => {
  for (const silent of [true, false])
    for (const other of [(phone) => secondInstance({ phone }), inAnotherContext]) {
      const { auth, phone } = await loggedIn({ silent })
      const token = await auth.getToken()
      const heard = []
      auth.onChange((user) => heard.push(user))
      await other(phone).logout()
      assert.deepEqual([auth.user, heard], [null, [null]])
      const { statusCode } = await me(auth)
      assert.equal(statusCode, silent ? 200 : 401)
      assert.deepEqual([sentWith(phone, [token], 0), phone.count(LOGIN)], [[], silent ? 1 : 0])
      assert.equal(Boolean(auth.user), silent)
    }
})

test('what a guest asked resolves, also after a login and a logout', async () => {
  const { auth, phone } = start({ silent: false })
  const gate = phone.hold(ME)
  const asked = me(auth)
  await gate.arrived
  await auth.login()
  await auth.logout()
  gate.open()
  assert.equal((await asked).statusCode, 401)
})

test('two contexts that log in at the same time share what they have, and nothing is abandoned', async () => {
  const { auth, phone } = start()
  const other = inAnotherContext(phone)
  const answers = await Promise.all([auth, other, auth, other].map(me))
  assert.deepEqual(answers.map((answer) => answer.statusCode), [200, 200, 200, 200])
  assert.equal((await me(other)).statusCode, 200)
  assert.equal((await me(auth)).statusCode, 200)
})

test('a storage that was cleared, or has another app in it, is no logout', async () => {
  for (const change of [
    (phone) => phone.storage.clear(),
    (phone) => phone.wx.setStorageSync('wxauth', 'of the app'),
    (phone) => secondInstance({ phone, appId: undefined }).login(),
    (phone) => secondInstance({ phone, appId: undefined }).login().then(() => secondInstance({ phone, appId: undefined }).logout()),
  ]) {
    const { auth, phone } = await loggedIn()
    const gate = phone.hold(ME)
    const asked = me(auth)
    await gate.arrived
    await change(phone)
    const logins = phone.count(LOGIN)
    gate.open()
    assert.deepEqual([(await asked).statusCode, (await me(auth)).statusCode, phone.count(LOGIN)], [200, 200, logins])
  }
})

test('who was replaced and logged in again in one context is logged in in the others', async () => {
  const { auth, phone } = await loggedIn()
  const other = inAnotherContext(phone)
  phone.next(REFRESH, fates.answers(400, { code: 'session_replaced' }))
  phone.time += 10 ** 9
  await rejection(me(auth), 'session_replaced')
  assert.equal((await other.request({ url: '/v1/me' }).catch((error) => error)).code, 'session_replaced')
  await auth.login()
  await other.updateProfile({ nickname: '小明' })
  assert.deepEqual([(await me(auth)).data.nickname, auth.user.nickname], ['小明', '小明'])
})

test('after a logout and a login there is one text in the storage', async () => {
  const { auth, phone } = await loggedIn()
  await auth.logout()
  await auth.login()
  assert.deepEqual([...phone.storage.keys()], ['wxauth'])
})
