// A wx.login that never calls back has failed, and is called once more, whoever needs its code.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { approve } from '../../../clients/miniprogram/wxauth-scan.js'
import { authorize } from '../../../clients/miniprogram/wxauth-site.js'
import { loggedIn, rejection, start, wechat, withoutWaiting } from './world.js'

const ID_TOKEN = 'POST /v1/me/id-token'
const HANGS = Symbol('never calls back')
const LATE = Symbol('calls back when the second call begins')

/** What the first two calls of wx.login do, and the code of the error if both fail. */
const PAIRS = {
  'the first never calls back': [[HANGS]],
  'the first calls back late': [[LATE]],
  'the first calls `complete` alone': [['complete']],
  'the first fails': [['login:fail system error']],
  'the first fails at the time limit of the phone': [['login:fail timeout']],
  'neither calls back': [[HANGS, HANGS], 'network_error'],
  'the first calls back late, and the second never': [[LATE, HANGS], 'network_error'],
  'the first never calls back, and the second fails': [[HANGS, 'login:fail system error'], 'wx_login_failed'],
  'the first fails, and the second never calls back': [['login:fail system error', HANGS], 'network_error'],
  'the first never calls back, and there is no network': [[HANGS, 'login:fail net::ERR_FAILED'], 'network_error'],
}

const ofGuest = () => start()
async function withExpiredSession() {
  const started = await loggedIn()
  const { phone } = started
  phone.time += 10 ** 9
  phone.next('POST /v1/refresh', fates.answers(400, { code: 'session_expired' }))
  return started
}

/** The operations that need codes of wx.login, the phone on which they do, and the number of codes. */
const OPERATIONS = {
  login: [ofGuest, (auth) => auth.login()],
  'login with force': [loggedIn, (auth) => auth.login({ force: true })],
  'login with fields': [loggedIn, (auth) => auth.login({ nickname: '小明' })],
  loginCode: [ofGuest, (auth) => auth.loginCode()],
  idToken: [loggedIn, (auth) => auth.idToken('shop')],
  'idToken of a session that has expired': [withExpiredSession, (auth) => auth.idToken('shop'), 2],
  deleteAccount: [loggedIn, (auth) => auth.deleteAccount()],
  'approve of a scan': [loggedIn, (auth) => approve(auth, { id: 'x' })],
  'the answer to a site': [loggedIn, (auth) => authorize(auth, { redirect_uri: 'https://shop.example.com/callback' })],
  request: [ofGuest, (auth) => auth.request({ url: '/v1/me' })],
  'a request with a timeout of its own': [ofGuest, (auth) => auth.request({ url: '/v1/me', timeout: 3000 })],
  'a request of a session that has expired': [withExpiredSession, (auth) => auth.request({ url: '/v1/me' })],
  getToken: [ofGuest, (auth) => auth.getToken()],
  bindPhone: [
    ofGuest,
    async (auth, { person }) => auth.bindPhone((await wechat('/phone-codes', { person })).code),
  ],
  decrypt: [ofGuest, (auth) => auth.decrypt({ encryptedData: 'AA==', iv: 'AA==' })],
  updateProfile: [ofGuest, (auth) => auth.updateProfile({ nickname: '小明' })],
  sessions: [ofGuest, (auth) => auth.sessions()],
}

for (const [what, [fatesOfLogin, code]] of Object.entries(PAIRS))
  for (const [name, [begin, call, codes = 1]] of Object.entries(OPERATIONS))
    test(`${name}: ${what}`, async (t) => {
      const { auth, phone } = await begin()
      const { login } = phone.wx
      const left = [...fatesOfLogin]
      let called = 0
      let callBackLate
      t.mock.method(phone.wx, 'login', (options) => {
        called += 1
        if (callBackLate) callBackLate()
        const fate = left.shift()
        if (fate === LATE) callBackLate = () => login(options)
        else if (fate === 'complete') setImmediate(options.complete, { errMsg: 'login:ok', code: 'x' })
        else if (fate !== HANGS) login({ ...options, ...(fate && { success: () => options.fail({ errMsg: fate }) }) })
      })
      const { expire, timers } = withoutWaiting(t)
      const outcome = call(auth, phone).then(
        (value) => [value],
        (error) => [null, error],
      )
      for (const [n, fate] of fatesOfLogin.entries()) {
        while (called <= n) await new Promise(setImmediate)
        if (![HANGS, LATE, 'complete'].includes(fate)) continue
        await new Promise(setImmediate)
        assert.ok((await expire()) <= 15_000)
      }
      const [value, error] = await outcome
      assert.deepEqual([called, timers.size], [code ? 2 : 1 + codes, 0])
      if (code) assert.equal(error.code, code)
      else if (error) assert.ok(error.status, `${error}`) // wxauth has had the second code
      else assert.ok(value !== null)
    })

for (const HOW of ['logout', 'another login'])
  test(`a wx.login that hangs is not called again after a ${HOW}, and its code is not sent`, async (t) => {
    const { auth, phone } = await loggedIn()
    const { expire } = withoutWaiting(t)
    phone.next('login', fates.silent)
    const asked = rejection(auth.idToken('shop'), 'session_revoked')
    while (!phone.count('login')) await new Promise(setImmediate)
    await auth.logout()
    if (HOW === 'another login') await auth.login()
    const [logins, sent] = [phone.count('login'), phone.count('POST /v1/me/id-token')]
    await expire()
    await asked
    assert.deepEqual([phone.count('login') - logins, phone.count('POST /v1/me/id-token') - sent], [1, 0])
  })

test('an id_token whose response is lost is asked for once more, with a fresh code', async () => {
  for (const fate of [fates.answerLost, fates.notSent, fates.tooLate]) {
    const { auth, phone } = await loggedIn()
    phone.next(ID_TOKEN, fate, fates.answers(200, { id_token: 'x' }))
    assert.equal(await auth.idToken('shop'), 'x')
    const codes = phone.callsOf(ID_TOKEN).map(({ data }) => data.login_code)
    assert.equal(new Set(codes).size, 2)
  }
})
