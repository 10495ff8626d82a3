import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import {
  APP_ID,
  ask,
  endSession,
  exchangeElsewhere,
  expireAtService,
  isGood,
  kept,
  keptRefreshToken,
  LIFE,
  loggedIn,
  logInElsewhere,
  newPerson,
  pass,
  rejection,
  secondInstance,
  SKEW,
  start,
  startAgain,
  wechat,
} from './world.js'

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
const PICTURE = 'http://tmp/chosen.png'

test('the user is null before a login, and known at once after a restart', async () => {
  const { auth, phone } = start()
  assert.equal(auth.user, null)
  const user = await auth.login()
  phone.isOnline = false
  assert.deepEqual(startAgain(phone).user, user)
})

test('onChange is called with the user after each change, not at the start', async () => {
  const { auth, phone } = start()
  const changes = []
  auth.onChange((user) => changes.push(user && user.nickname))
  assert.deepEqual(changes, [])
  await auth.login()
  await auth.updateProfile({ nickname: '小明' })
  await auth.updateProfile({ nickname: '小明' })
  await auth.request({ url: '/v1/me' })
  await auth.logout()
  await auth.logout()
  assert.deepEqual(changes, [null, '小明', null])
  const again = startAgain(phone)
  again.onChange(() => assert.fail('called at the start'))
  await new Promise(setImmediate)
})

test('onChange returns the way to stop, for this one alone', async () => {
  const { auth } = start()
  const changes = []
  const listener = (user) => changes.push(user.nickname)
  const stop = auth.onChange(listener)
  auth.onChange(listener)
  await auth.login()
  assert.equal(changes.length, 2)
  assert.equal(stop(), undefined)
  stop()
  await auth.updateProfile({ nickname: '小明' })
  assert.deepEqual(changes, [null, null, '小明'])
})

test('a listener that throws harms nobody, and its error is shown', async (t) => {
  const { auth } = start()
  const shown = t.mock.method(console, 'error', () => {})
  const changes = []
  auth.onChange(() => {
    throw new Error('mine')
  })
  auth.onChange((user) => changes.push(user.id))
  const { id } = await auth.login()
  assert.deepEqual(changes, [id])
  await new Promise(setImmediate)
  assert.equal(shown.mock.calls[0].arguments[0].message, 'mine')
})

test('a listener sees what is kept, and may log out', async () => {
  const { auth, phone } = start()
  auth.onChange((user) => user && assert.match(kept(phone), new RegExp(user.id)))
  const left = new Promise((resolve) => auth.onChange((user) => user && resolve(auth.logout())))
  await auth.login()
  await left
  assert.deepEqual([auth.user, kept(phone)], [null, undefined])
})

test('updateProfile changes what is named, and null or empty clears', async () => {
  const { auth, phone } = await loggedIn()
  const user = await auth.updateProfile({ nickname: '小明', avatarUrl: 'https://example.com/1.png' })
  assert.deepEqual([user.nickname, user.avatar_url], ['小明', 'https://example.com/1.png'])
  assert.deepEqual(auth.user, user)
  assert.equal((await auth.updateProfile({ avatarUrl: null })).nickname, '小明')
  assert.equal((await auth.updateProfile({ nickname: '' })).nickname, null)
  assert.deepEqual((await auth.request({ url: '/v1/me' })).data, auth.user)
  assert.deepEqual(startAgain(phone).user, auth.user)
})

test('updateProfile rejects with what the service says', async () => {
  const { auth } = await loggedIn()
  const before = auth.user
  const error = await rejection(auth.updateProfile({ avatarUrl: PICTURE }), 'invalid_request')
  assert.deepEqual([error.status, error.errors.map(({ field }) => field)], [422, ['avatar_url']])
  assert.deepEqual(auth.user, before)
})

for (const [what, picture] of [
  ['a local path', PICTURE],
  ['the event of chooseAvatar', { type: 'chooseavatar', detail: { avatarUrl: PICTURE } }],
])
  test(`setAvatar takes ${what}`, async () => {
    const { auth, phone } = await loggedIn()
    phone.files.set(PICTURE, PNG)
    const user = await auth.setAvatar(picture)
    assert.match(user.avatar_url, /^https:\/\/auth\.test\/.+/)
    assert.deepEqual(auth.user, user)
    assert.equal(phone.callsOf('UPLOAD /v1/me/avatar')[0].name, 'file')
    assert.equal(
      (await fetch(phone.calls[0].url.replace('/v1/me/avatar', new URL(user.avatar_url).pathname))).status,
      200,
    )
  })

test('setAvatar with an expired token uploads once more', async () => {
  const { auth, phone } = await loggedIn()
  phone.files.set(PICTURE, PNG)
  await expireAtService()
  assert.ok((await auth.setAvatar(PICTURE)).avatar_url)
  assert.equal(phone.count('UPLOAD /v1/me/avatar'), 2)
})

test('setAvatar rejects with what the service says of a file that is no picture, and where there is none', async () => {
  const { auth, phone } = await loggedIn()
  phone.files.set(PICTURE, Buffer.from('no picture'))
  assert.equal((await rejection(auth.setAvatar(PICTURE), 'invalid_request')).status, 422)
  assert.match((await rejection(auth.setAvatar('http://tmp/none'), 'invalid_argument')).message, /file not found/)
  phone.isOnline = false
  await rejection(auth.setAvatar(PICTURE), 'network_error')
  assert.equal(auth.user.avatar_url, null)
})

test('setAvatar does not take a page for a user', async () => {
  const { auth, phone } = await loggedIn()
  phone.next('UPLOAD /v1/me/avatar', fates.answers(200, '<html></html>'))
  await rejection(auth.setAvatar(PICTURE), 'http_error')
})

for (const [what, wrapped] of [
  ['the code', (code) => code],
  ['the event of getphonenumber', (code) => ({ detail: { code, errMsg: 'getPhoneNumber:ok' } })],
])
  test(`bindPhone takes ${what}`, async () => {
    const { auth, person } = await loggedIn()
    const { code } = await wechat('/phone-codes', { person, app_id: APP_ID })
    const { phone } = await auth.bindPhone(wrapped(code))
    assert.match(phone, /^\+86138\d{8}$/)
    assert.equal(auth.user.phone, phone)
  })

const REFUSED = ['phone_refused', '未授权手机号']
const UNAVAILABLE = ['phone_unavailable', '暂时无法获取手机号']
const USED_UP = ['phone_quota_used_up', '暂时无法获取手机号']
const TAPS = [
  ...[
    { errMsg: 'getPhoneNumber:fail no permission', errno: 103 },
    { errMsg: 'getPhoneNumber:fail scope unauthorized', errno: 103 },
    { errMsg: 'getPhoneNumber:fail scope unauthorized', errno: '103' },
    { errMsg: 'getPhoneNumber:fail scope unauthorized', errno: 104 },
    { errMsg: 'getPhoneNumber:fail access denied', errno: 104 },
    { errMsg: 'getPhoneNumber:fail no enough quota', errno: '103' },
    { errMsg: 'getPhoneNumber:fail User Deny' },
    { errMsg: 'getPhoneNumber:FAIL:USER DENIED' },
    { errMsg: 'getPhoneNumber:fail user cancelled' },
    { errMsg: 'getPhoneNumber:fail auth deny' },
    { errMsg: 'getPhoneNumber:fail Auth Denied' },
    { errMsg: 'getPhoneNumber:fail auth cancel' },
    { errMsg: 'getPhoneNumber:fail Privacy permission is not authorized' },
  ].map((detail) => [detail, REFUSED]),
  ...[
    { errMsg: 'getPhoneNumber:fail access denied' },
    { errMsg: 'getPhoneNumber:fail scope unauthorized' },
    { errMsg: 'getPhoneNumber:fail scope unauthorized', errno: 1030 },
    { errMsg: 'getPhoneNumber:fail permission denied' },
    { errMsg: 'getPhoneNumber:fail System permission denied', errno: 3 },
    { errMsg: 'getPhoneNumber:fail user permission denied' },
    { errMsg: 'getPhoneNumber:fail not authorized' },
    { errMsg: 'getPhoneNumber:fail the author denied it' },
    { errMsg: 'getPhoneNumber:fail cancel' },
    { errMsg: 'getPhoneNumber:fail', errno: 1030 },
    { errMsg: 'getPhoneNumber:fail jsapi has no permission, event is not from user', errno: -1 },
  ].map((detail) => [detail, UNAVAILABLE]),
  ...[
    { errMsg: 'getPhoneNumber:fail no enough quota' },
    { errMsg: 'getPhoneNumber:fail No Enough Quota', errno: 0 },
    { errMsg: 'getPhoneNumber:fail user deny', errno: 1400001 },
    { errMsg: 'getPhoneNumber:fail', errno: '1400001' },
  ].map((detail) => [detail, USED_UP]),
  [{ errMsg: 'getPhoneNumber:fail user deny' }, REFUSED],
  [{ errMsg: 'getPhoneNumber:fail:user cancel' }, REFUSED],
  [{ errMsg: 'getPhoneNumber:fail auth deny', errno: 103 }, REFUSED],
  [{ errMsg: 'getPhoneNumber:fail no permission' }, UNAVAILABLE],
  [{ errMsg: 'getPhoneNumber:fail api scope is not declared in the privacy agreement', errno: 112 }, UNAVAILABLE],
  [{ errMsg: 'getPhoneNumber:ok', encryptedData: 'AA==', iv: 'AA==' }, UNAVAILABLE],
  [{ errMsg: 'getPhoneNumber:fail jsapi has no permission', errno: 1400001 }, USED_UP],
  [{}, UNAVAILABLE],
]

test('bindPhone says that the person refused only where they did, else what WeChat says, and asks nothing', async () => {
  const { auth, phone } = await loggedIn()
  for (const [detail, [code, title]] of TAPS) {
    const error = await rejection(auth.bindPhone({ detail }), code)
    assert.equal(error.title, title)
    for (const part of ['errMsg', 'errno']) assert.ok(error.message.includes(detail[part] || ''), error.message)
  }
  for (const nothing of [undefined, '', {}]) await rejection(auth.bindPhone(nothing), 'invalid_argument')
  assert.deepEqual(phone.calls, [])
})

test('bindPhone rejects with what WeChat says of the code', async () => {
  const { auth } = await loggedIn()
  await rejection(auth.bindPhone('errcode-40029'), 'invalid_code')
})

test('decrypt opens what WeChat sealed', async () => {
  const { auth, person } = await loggedIn()
  const sealed = await wechat('/encrypted-data', { person, app_id: APP_ID, data: { stepInfoList: [{ step: 100 }] } })
  const data = await auth.decrypt(sealed)
  assert.deepEqual(data.stepInfoList, [{ step: 100 }])
  assert.equal(data.watermark.appid, APP_ID)
})

test('decrypt of what was sealed with a newer key is session_key_expired, until a login brings the key', async () => {
  const { auth, person } = await loggedIn()
  const seal = () => wechat('/encrypted-data', { person, app_id: APP_ID, data: { steps: 100 } })
  await exchangeElsewhere(person)
  assert.equal((await rejection(auth.decrypt(await seal()), 'session_key_expired')).status, 409)
  await auth.login({ nickname: '' })
  assert.equal((await auth.decrypt(await seal())).steps, 100)
})

test('decrypt does not take a page for data', async () => {
  const { auth, phone } = await loggedIn()
  phone.next('POST /v1/me/decrypt', fates.answers(200, '<html></html>'))
  await rejection(auth.decrypt({ encryptedData: 'AA==', iv: 'AA==' }), 'http_error')
})

test('sessions are an array, this one marked', async () => {
  const { auth, person, phone } = await loggedIn()
  const { session_id: other } = await logInElsewhere(person)
  const sessions = await auth.sessions()
  assert.ok(Array.isArray(sessions))
  assert.equal(sessions.length, 2)
  assert.match(phone.callsOf('GET /v1/me/sessions').at(-1).url, /\?limit=200$/)
  const [here] = sessions.filter((session) => session.current)
  assert.notEqual(here.id, other)
  assert.equal(here.device, 'iOS 17.1, WeChat 8.0.44')
})

test('revokeSession logs out on that device', async () => {
  const { auth, person } = await loggedIn()
  const { session_id: id, access_token: token } = await logInElsewhere(person)
  assert.equal(await auth.revokeSession(id), undefined)
  assert.equal(await isGood(token), false)
  assert.equal((await auth.sessions()).length, 1)
})

const due = (user) => user.consents_due.map(({ document }) => document)

test('consents go along with a login, are given and withdrawn, and the user says what is due', async () => {
  const { auth } = start()
  const told = []
  auth.onChange((user) => told.push(due(user)))
  assert.deepEqual(due(await auth.login({ consents: { privacy: '2026-05' } })), ['terms'])
  assert.deepEqual(due(await auth.consent({ terms: '3' })), [])
  assert.deepEqual(due(auth.user), [])
  assert.deepEqual(due(await auth.withdrawConsent('privacy')), ['privacy'])
  assert.deepEqual(told, [['terms'], [], ['privacy']])
})

test('a document that is not in force cannot be agreed to, nor one withdrawn that was not', async () => {
  const { auth } = await loggedIn()
  await rejection(auth.consent({ privacy: '2025-01' }), 'invalid_request')
  await rejection(auth.withdrawConsent('privacy'), 'not_found')
  await rejection(auth.withdrawConsent(), 'invalid_argument')
})

test("revokeSession of a session of somebody else's rejects, and its id cannot reach another path", async () => {
  const { auth, phone } = await loggedIn()
  const { session_id: id } = await logInElsewhere(newPerson())
  await rejection(auth.revokeSession(id), 'not_found')
  await rejection(auth.revokeSession('../../me'), 'http_error').catch(() => {})
  assert.deepEqual(phone.callsOf('DELETE /v1/me'), [])
  assert.ok(await isGood(await auth.getToken()))
})

const ERASURE = 'POST /v1/me/erasure'
const MEMBERS = {
  updateProfile: [(auth) => auth.updateProfile({ nickname: '小明' }), 'POST /v1/me'],
  bindPhone: [
    async (auth, person) => auth.bindPhone((await wechat('/phone-codes', { person })).code),
    'POST /v1/me/phone',
  ],
  sessions: [(auth) => auth.sessions(), 'GET /v1/me/sessions'],
  consent: [(auth) => auth.consent({ terms: '3' }), 'POST /v1/me/consents'],
  deleteAccount: [(auth) => auth.deleteAccount(), ERASURE],
}
for (const [name, [call, kind]] of Object.entries(MEMBERS)) {
  test(`${name}: a 401 refreshes once and sends once more`, async () => {
    const { auth, phone, person } = await loggedIn()
    await expireAtService()
    await call(auth, person)
    const logins = name === 'deleteAccount' ? 1 : 0 // deleteAccount needs a new proof
    assert.deepEqual([phone.count(kind), phone.count('POST /v1/refresh'), phone.count('login')], [2, 1, logins])
  })

  test(`${name}: a second 401 rejects with it`, async () => {
    const { auth, phone, person } = await loggedIn()
    const refusal = fates.answers(401, { code: 'invalid_token', title: '登录已失效', request_id: 'r' })
    phone.next(kind, refusal, refusal)
    assert.equal((await rejection(call(auth, person), 'invalid_token')).status, 401)
    assert.deepEqual([phone.count(kind), phone.count('POST /v1/refresh')], [2, 1])
    assert.ok(auth.user)
  })

  test(`${name}: no network rejects, and it is not sent again`, async () => {
    const { auth, phone, person } = await loggedIn()
    phone.next(kind, fates.notSent)
    await rejection(call(auth, person), 'network_error')
    assert.equal(phone.count(kind), 1)
    assert.ok(auth.user)
  })

  test(`${name}: a page of a captive portal rejects`, async () => {
    const { auth, phone, person } = await loggedIn()
    phone.next(kind, fates.answers(200, '<html>请登录 Wi-Fi</html>'))
    await rejection(call(auth, person), 'http_error')
    assert.ok(auth.user)
  })
}

test('logout forgets at once, then ends the session at the service', async () => {
  const { auth, phone } = await loggedIn()
  const [refresh_token, token] = [keptRefreshToken(phone), await auth.getToken()]
  const leaving = auth.logout()
  assert.deepEqual([auth.user, kept(phone)], [null, undefined])
  assert.equal(await leaving, undefined)
  assert.equal(await isGood(token), false)
  assert.equal((await ask('POST', '/v1/refresh', { body: { refresh_token } })).body.code, 'session_revoked')
  assert.equal(startAgain(phone).user, null)
})

test('logout never rejects: offline, refused, hindered by a portal, or twice', async () => {
  for (const fate of [
    fates.notSent,
    fates.answerLost,
    fates.answers(500, ''),
    fates.answers(200, '<html>'),
    fates.throws(new Error('no')),
  ]) {
    const { auth, phone } = await loggedIn()
    phone.next('POST /v1/logout', fate)
    await auth.logout()
    await auth.logout(null)
    assert.deepEqual([auth.user, kept(phone), phone.count('POST /v1/logout')], [null, undefined, 1])
  }
})

test('logout ends the session that another instance has opened since', async () => {
  const { auth, phone } = start()
  await secondInstance({ phone }).login()
  await auth.logout()
  assert.deepEqual([auth.user, kept(phone), phone.count('POST /v1/logout')], [null, undefined, 1])
})

test('logout of nobody asks nothing', async () => {
  const { auth, phone } = start()
  await auth.logout({ everywhere: true })
  assert.deepEqual(phone.calls, [])
})

for (const state of ['fresh', 'expired'])
  test(`logout everywhere ends all sessions, with a token that is ${state}`, async () => {
    const { auth, phone, person } = await loggedIn()
    const other = await logInElsewhere(person)
    const refresh_token = keptRefreshToken(phone)
    if (state === 'expired') await pass(phone, LIFE + SKEW)
    await auth.logout({ everywhere: true })
    for (const token of [refresh_token, other.refresh_token])
      assert.equal((await ask('POST', '/v1/refresh', { body: { refresh_token: token } })).body.code, 'session_revoked')
    assert.deepEqual([auth.user, kept(phone)], [null, undefined])
    const counts = state === 'fresh' ? [1, 0] : [2, 1]
    assert.deepEqual([phone.count('DELETE /v1/me/sessions'), phone.count('POST /v1/refresh')], counts)
  })

test('logout everywhere ends this session even where the others cannot be reached', async () => {
  const { auth, phone } = await loggedIn()
  const refresh_token = keptRefreshToken(phone)
  phone.next('DELETE /v1/me/sessions', fates.notSent)
  await auth.logout({ everywhere: true })
  assert.equal((await ask('POST', '/v1/refresh', { body: { refresh_token } })).body.code, 'session_revoked')
})

test('logout everywhere of a session that has been ended does not log in', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  await auth.logout({ everywhere: true })
  assert.deepEqual([auth.user, phone.count('login')], [null, 0])
})

test('after a logout a login is a new session of the same user', async () => {
  const { auth, phone } = start()
  const { id } = await auth.login()
  await auth.logout()
  assert.equal((await auth.login()).id, id)
  assert.equal((await auth.sessions()).length, 1)
  assert.equal(phone.count('login'), 2)
})

const ID_TOKEN = 'POST /v1/me/id-token'
const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))

/** Add a client for another back end, and return its name. */
async function addBackEnd() {
  const name = `s${newPerson()}`
  await ask('POST', '/controls/sites', { body: { name, redirect_uris: [], device: false, phone_id_token: true } })
  return name
}

test('idToken logs the person in to another back end, and proves it by a new wx.login', async () => {
  const { auth, phone } = await loggedIn()
  const name = await addBackEnd()
  const claims = claimsOf(await auth.idToken(name, { nonce: 'n-1' }))
  assert.deepEqual([claims.sub, claims.aud, claims.nonce], [auth.user.id, name, 'n-1'])
  assert.equal('nonce' in claimsOf(await auth.idToken(name)), false)
  assert.equal(phone.count('login'), 2)
  assert.ok(auth.user)
})

test('idToken proves the person once more after invalid_code, and not after a refusal', async () => {
  const { auth, phone } = await loggedIn()
  const name = await addBackEnd()
  phone.next(ID_TOKEN, fates.answers(400, { code: 'invalid_code' }))
  assert.ok(await auth.idToken(name))
  assert.deepEqual([phone.count('login'), phone.count(ID_TOKEN)], [2, 2])
  await rejection(auth.idToken('nobody'), 'invalid_request')
  await rejection(auth.idToken(), 'invalid_argument')
  assert.equal(phone.count(ID_TOKEN), 3)
  phone.person = newPerson()
  await rejection(auth.idToken(name), 'wrong_person')
})

test('deleteAccount erases the person, and the session here', async () => {
  const { auth, phone } = await loggedIn()
  const [{ id }, token] = [auth.user, await auth.getToken()]
  assert.equal(await auth.deleteAccount(), undefined)
  assert.deepEqual([auth.user, kept(phone), await isGood(token)], [null, undefined, false])
  assert.notEqual((await auth.login()).id, id)
})

for (const code of ['code_used', 'invalid_code', 'wechat_unavailable', 'wechat_timeout'])
  test(`deleteAccount proves the person once more after ${code}`, async () => {
    const { auth, phone } = await loggedIn()
    phone.next(ERASURE, fates.answers(400, { code }))
    await auth.deleteAccount()
    assert.deepEqual([auth.user, phone.count('login'), phone.count(ERASURE)], [null, 2, 2])
    const codes = phone.callsOf(ERASURE).map((call) => call.data.login_code)
    assert.notEqual(...codes)
  })

test('deleteAccount of another person than the one in WeChat rejects, and erases nobody', async () => {
  const { auth, phone } = await loggedIn()
  phone.person = newPerson()
  await rejection(auth.deleteAccount(), 'wrong_person')
  assert.ok(auth.user)
  assert.ok(await isGood(await auth.getToken()))
})

test('deleteAccount without a code of WeChat rejects, and asks nothing', async () => {
  const { auth, phone } = await loggedIn()
  phone.next('login', fates.notSent, fates.notSent)
  await rejection(auth.deleteAccount(), 'network_error')
  assert.deepEqual(phone.callsOf(ERASURE), [])
})
