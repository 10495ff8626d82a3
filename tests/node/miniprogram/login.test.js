import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates, Gate } from '../../../examples/phone/phone.mjs'
import { approve } from '../../../clients/miniprogram/wxauth-scan.js'
import { authorize } from '../../../clients/miniprogram/wxauth-site.js'
import {
  ask,
  AuthError,
  ban,
  checkError,
  createAuth,
  DAY,
  endSession,
  expireAtService,
  kept,
  LIFE,
  loggedIn,
  logInElsewhere,
  newPerson,
  pass,
  passAtService,
  rejection,
  secondInstance,
  start,
  startAgain,
  times,
  wechat,
  APP_ID,
  OTHER_APP_ID,
  SERVICE_URL,
} from './world.js'

const LOGIN = 'POST /v1/login'
const codes = (phone) => phone.callsOf(LOGIN).map((call) => call.data.code)
const gives = (code) => async () => ({ code })

test('making a client asks nothing of the network', async () => {
  const { auth, phone } = start()
  await auth.login()
  phone.calls.length = 0
  startAgain(phone)
  await new Promise(setImmediate)
  assert.deepEqual(phone.calls, [])
})

test('a first login is one wx.login and one POST /v1/login, and resolves to the user', async () => {
  const { auth, phone } = start()
  const user = await auth.login()
  assert.deepEqual(
    phone.calls.map((call) => call.kind),
    ['login', LOGIN],
  )
  assert.equal(user.app_id, APP_ID)
  assert.equal(user.nickname, null)
  assert.deepEqual(user, auth.user)
  const { data } = await auth.request({ url: '/v1/me' })
  assert.deepEqual(data, user)
})

test('a login says which app it is for, and without an app id it is the first one of the service', async () => {
  const { auth, phone } = start({ appId: OTHER_APP_ID })
  phone.appId = OTHER_APP_ID
  assert.equal((await auth.login()).app_id, OTHER_APP_ID)
  const { auth: without } = start({ appId: undefined })
  assert.equal((await without.login()).app_id, APP_ID)
})

for (const found of [['wx'], ['uni'], ['uni', 'wx']])
  test(`the platform is found by itself: ${found[0]}, where there is ${found.join(' and ')}`, async (t) => {
    const { phone } = start()
    const refused = new Proxy({}, { get: () => assert.fail('the other one is used') })
    t.after(() => found.forEach((name) => delete globalThis[name]))
    for (const name of found) globalThis[name] = name === found[0] ? phone.wx : refused
    await secondInstance({ phone, platform: undefined }).login()
    assert.equal(phone.count(LOGIN), 1)
    assert.equal(phone.callsOf('login')[0].provider, 'weixin', 'uni asks which one')
  })

test('a kept session with time left is used without a call', async () => {
  const { auth, phone } = start()
  const user = await auth.login()
  phone.calls.length = 0
  assert.deepEqual(await auth.login(), user)
  assert.deepEqual(await startAgain(phone).login(), user)
  assert.deepEqual(await auth.login({}), user)
  assert.deepEqual(phone.calls, [])
})

test('a kept session whose access token is over is used too: its refresh token has time left', async () => {
  const { auth, phone } = start()
  const user = await auth.login()
  await pass(phone, DAY)
  phone.calls.length = 0
  assert.deepEqual(await startAgain(phone).login(), user)
  assert.deepEqual(phone.calls, [])
})

test('coming back after a month logs in anew, silently', async () => {
  const { auth, phone } = start()
  const user = await auth.login()
  await pass(phone, 31 * DAY)
  phone.calls.length = 0
  const again = startAgain(phone)
  assert.deepEqual(again.user, user)
  assert.equal((await again.login()).id, user.id)
  assert.deepEqual(
    phone.calls.map((call) => call.kind),
    ['login', LOGIN],
  )
})

test('logins at the same time share one, two taps at once included', async () => {
  const { auth, phone } = start()
  const users = await times(10, () => auth.login())
  assert.equal(new Set(users.map((user) => user.id)).size, 1)
  assert.deepEqual(
    phone.calls.map((call) => call.kind),
    ['login', LOGIN],
  )
})

test('fields go along with the login', async () => {
  const { auth, phone } = start()
  const user = await auth.login({ nickname: '小明', avatarUrl: 'https://example.com/1.png' })
  assert.equal(user.nickname, '小明')
  assert.equal(user.avatar_url, 'https://example.com/1.png')
  assert.deepEqual(Object.keys(phone.callsOf(LOGIN)[0].data), [
    'code',
    'app_id',
    'nickname',
    'avatar_url',
  ])
})

test('force logs in anew without a field, and calls at the same time share one', async () => {
  const { auth, phone } = start()
  const { id } = await auth.login()
  phone.calls.length = 0
  const users = await Promise.all([auth.login({ force: true }), auth.login({ force: true }), auth.login()])
  assert.deepEqual(
    users.map((user) => user.id),
    [id, id, id],
  )
  assert.deepEqual(
    phone.calls.map((call) => call.kind),
    ['login', LOGIN],
  )
  assert.deepEqual(Object.keys(phone.callsOf(LOGIN)[0].data), ['code', 'app_id'])
  await auth.login({ force: false })
  assert.equal(phone.count(LOGIN), 1)
})

test('the client says whether the last login made the user', async () => {
  const { auth, phone } = start()
  assert.equal(auth.isNewUser, false)
  await auth.login()
  assert.equal(auth.isNewUser, true)
  assert.equal(secondInstance({ phone }).isNewUser, false)
  await auth.login({ force: true })
  assert.equal(auth.isNewUser, false)
})

test('whoever is told of a new user can ask whether it is one', async () => {
  const { auth } = start()
  const told = []
  auth.onChange(() => told.push(auth.isNewUser))
  await auth.login()
  assert.deepEqual(told, [true])
})

test('a phone code that fails leaves the login as it is, and the client says why', async () => {
  const { auth, person } = start()
  const user = await auth.login({ phoneCode: 'errcode-40029' })
  assert.equal(user.phone, null)
  assert.equal(auth.phoneError, 'invalid_code')
  const { code: phoneCode } = await wechat('/phone-codes', { person })
  await auth.login({ phoneCode })
  assert.equal(auth.phoneError, null)
})

test('the button sends its event along with the login, and what gives no code only says why', async () => {
  const { auth, phone, person } = start()
  const { code } = await wechat('/phone-codes', { person })
  assert.match((await auth.login({ phone: { detail: { code, errMsg: 'getPhoneNumber:ok' } } })).phone, /^\+86138/)
  assert.equal(auth.phoneError, null)
  const taps = [
    [{ detail: { errMsg: 'getPhoneNumber:fail user deny' } }, 'phone_refused'],
    [{ detail: { errMsg: 'getPhoneNumber:fail no permission' } }, 'phone_unavailable'],
    [{ detail: { errMsg: 'getPhoneNumber:fail', errno: 1400001 } }, 'phone_quota_used_up'],
    [{ detail: {} }, 'phone_unavailable'],
    [{}, 'invalid_argument'],
    [null, null],
  ]
  for (const [tap, why] of taps)
    for (const fields of [{ phone: tap }, { phoneCode: tap }, { phone: null, phoneCode: tap }]) {
      await auth.login(fields)
      assert.deepEqual([auth.phoneError, phone.callsOf(LOGIN).at(-1).data.phone_code || null], [why, null])
    }
})

test('what the service left out of a login is told', async () => {
  const { auth, phone } = start()
  assert.equal(auth.ignored, null)
  const ignored = { nickname: 'invalid_request' }
  phone.next(LOGIN, async (ask) => {
    const answer = await ask()
    return { ...answer, data: { ...answer.data, ignored } }
  })
  await auth.login({ nickname: '微信' })
  assert.deepEqual(auth.ignored, ignored)
  await auth.login({ force: true })
  assert.equal(auth.ignored, null)
})

test('in the single page that Moments shows nobody logs in, and nothing is sent', async () => {
  const { auth, phone } = start()
  phone.wx.getEnterOptionsSync = () => ({ scene: 1154 })
  const ways = [
    () => auth.login(),
    () => auth.login({ nickname: '小明' }),
    () => auth.loginCode(),
    () => auth.getToken(),
    () => auth.request({ url: '/v1/me' }),
    () => auth.setAvatar('http://tmp/1.png'),
  ]
  for (const way of ways) assert.equal((await rejection(way(), 'single_page')).title, '请点击底部“前往小程序”')
  await auth.logout()
  assert.deepEqual(phone.calls, [])
  for (const scene of [1155, undefined]) {
    phone.wx.getEnterOptionsSync = () => ({ scene })
    await auth.login({ force: true })
  }
  phone.wx.getEnterOptionsSync = () => assert.fail('an old base library')
  await auth.login({ force: true })
  assert.equal(phone.count(LOGIN), 3)
})

test('without an app id it is the phone that says which mini-program this is', async () => {
  const { phone } = start()
  phone.wx.getAccountInfoSync = () => ({ miniProgram: { appId: OTHER_APP_ID } })
  phone.appId = OTHER_APP_ID
  const auth = secondInstance({ phone, appId: undefined })
  assert.equal((await auth.login()).app_id, OTHER_APP_ID)
})

test('a mini-program that the service does not know is refused before its code is spent', async () => {
  const { phone } = start()
  phone.wx.getAccountInfoSync = () => ({ miniProgram: { appId: 'touristappid' } })
  await rejection(secondInstance({ phone, appId: undefined }).login(), 'unknown_app')
  const [code] = codes(phone)
  assert.equal((await ask('POST', '/v1/login', { body: { code, app_id: APP_ID } })).status, 200)
})

test('a phone whose mini-program cannot be told logs in to the first one of the service', async () => {
  for (const getAccountInfoSync of [undefined, () => ({}), () => assert.fail('asked in vain')]) {
    const { phone } = start()
    phone.wx.getAccountInfoSync = getAccountInfoSync
    assert.equal((await secondInstance({ phone, appId: undefined }).login()).app_id, APP_ID)
  }
})

test('a phone is not asked which mini-program this is where that is given', () => {
  const { phone } = start()
  let asked = 0
  phone.wx.getAccountInfoSync = () => (asked += 1)
  secondInstance({ phone })
  assert.equal(asked, 0)
})

test('a phone code goes along with the login', async () => {
  const { auth, person } = start()
  const { code: phoneCode } = await wechat('/phone-codes', { person })
  assert.match((await auth.login({ phoneCode })).phone, /^\+86138\d{8}$/)
  assert.match(auth.user.phone, /^\+86138/)
})

test('with fields it always logs in', async () => {
  const { auth, phone } = start()
  const { id } = await auth.login()
  assert.equal((await auth.login({ nickname: '小红' })).id, id)
  assert.equal(phone.count(LOGIN), 2)
  assert.equal(auth.user.nickname, '小红')
})

test('with fields it waits for a login under way, and then logs in', async () => {
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  const first = auth.login()
  const second = auth.login({ nickname: '小刚' })
  await gate.arrived
  assert.equal(phone.count('login'), 1)
  gate.open()
  assert.equal((await first).nickname, null)
  assert.equal((await second).nickname, '小刚')
  assert.equal(phone.count('login'), 2)
})

test('with fields it logs in after a login under way that fails', async () => {
  const { auth, phone } = start()
  phone.next('login', gives('errcode-40226'))
  const first = auth.login()
  const second = auth.login({ nickname: '小刚' })
  await rejection(first, 'wechat_user_blocked')
  assert.equal((await second).nickname, '小刚')
})

test('logins with the same fields at the same time share one, as the taps on one button do', async () => {
  const { auth, phone, person } = start()
  const { code } = await wechat('/phone-codes', { person })
  let taps = 0
  const tap = () => ({ type: 'getphonenumber', timeStamp: (taps += 1), detail: { code, errMsg: 'getPhoneNumber:ok' } })
  const consents = { privacy: '2026-05' }
  const users = await times(5, () => auth.login({ phone: tap(), consents }))
  assert.deepEqual([phone.count('login'), phone.count(LOGIN), auth.phoneError], [1, 1, null])
  assert.ok(users.every((user) => user.phone === users[0].phone))
  for (const fields of [{ phoneCode: 'errcode-40029' }, { nickname: '小明' }, { phone: null }, { nickname: '小明', force: true }]) {
    phone.calls.length = 0
    await times(3, () => auth.login(fields))
    assert.equal(phone.count(LOGIN), 1, JSON.stringify(fields))
    await auth.login(fields)
    assert.equal(phone.count(LOGIN), 2, 'and the next one is a login of its own')
  }
})

test('logins with other fields, or for another tap, do not share one', async () => {
  const { auth, phone, person } = start()
  const { code } = await wechat('/phone-codes', { person })
  const tap = { detail: { code } }
  await Promise.all([auth.login({ nickname: '小明' }), auth.login({ nickname: '小红' }), auth.login({ nickname: '小明' })])
  assert.deepEqual([phone.count(LOGIN), auth.user.nickname], [3, '小明'])
  await Promise.all([auth.login({ phone: { detail: {} } }), auth.login({ phone: tap }), auth.login({ phone: tap, nickname: '小刚' })])
  assert.deepEqual([phone.count(LOGIN), auth.user.nickname], [6, '小刚'])
})

test('after a logout, a login with the same fields is another one', async () => {
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  const first = rejection(auth.login({ nickname: '小明' }), 'session_revoked')
  await gate.arrived
  await auth.logout()
  const second = auth.login({ nickname: '小明' })
  gate.open()
  await first
  assert.equal((await second).nickname, '小明')
  assert.equal(phone.count(LOGIN), 2)
})

test('a login without fields shares one with fields that is under way', async () => {
  const { auth, phone } = start()
  const users = await Promise.all([auth.login({ nickname: '小明' }), auth.login(), auth.login({})])
  assert.deepEqual(
    users.map((user) => user.nickname),
    ['小明', '小明', '小明'],
  )
  assert.equal(phone.count(LOGIN), 1)
})

test('a login without fields shares the last one under way', async () => {
  const { auth, phone } = start()
  const gate = new Gate()
  phone.next(LOGIN, async (ask) => ask(), gate.after)
  const first = auth.login()
  const second = auth.login({ nickname: '小刚' })
  await first
  await gate.arrived
  const third = auth.login()
  gate.open()
  assert.equal((await second).nickname, '小刚')
  assert.deepEqual(await third, await second)
  assert.equal(phone.count(LOGIN), 2)
})

test('two taps with fields log in one after the other', async () => {
  const { auth, phone } = start()
  const gate = phone.hold(LOGIN)
  const taps = [auth.login({ nickname: '一' }), auth.login({ nickname: '二' })]
  await gate.arrived
  assert.equal(phone.count('login'), 1)
  gate.open()
  assert.deepEqual(
    (await Promise.all(taps)).map((user) => user.nickname),
    ['一', '二'],
  )
  assert.equal(auth.user.nickname, '二')
})

async function spentCode(person) {
  const { code } = await wechat('/codes', { person })
  assert.equal((await ask('POST', '/v1/login', { body: { code } })).status, 200)
  return code
}

const problem = (status, code) =>
  fates.answers(status, { type: `urn:wxauth:problem:${code}`, title: '微信响应超时', status, code })
const TRIED_ONCE_MORE = {
  code_used: (person) => ['login', async () => ({ code: await spentCode(person) })],
  invalid_code: () => ['login', gives('errcode-40029')],
  wechat_unavailable: () => ['login', gives('status-500')],
  wechat_timeout: () => [LOGIN, problem(504, 'wechat_timeout')],
  network_error: () => [LOGIN, fates.answerLost],
  timeout: () => [LOGIN, fates.tooLate],
}
for (const [code, failure] of Object.entries(TRIED_ONCE_MORE)) {
  test(`a login that fails with ${code} is tried once more, with a fresh code`, async () => {
    const { auth, phone, person } = start()
    phone.next(...failure(person))
    const user = await auth.login()
    assert.deepEqual(auth.user, user)
    assert.equal(phone.count('login'), 2)
    assert.equal(new Set(codes(phone)).size, 2)
  })

  test(`a login that fails twice with ${code} rejects, and the next one starts afresh`, async () => {
    const { auth, phone, person } = start()
    phone.next(...failure(person))
    phone.next(...failure(person))
    await rejection(auth.login(), code)
    assert.equal(phone.count('login'), 2)
    assert.equal(auth.user, null)
    await auth.login()
    assert.equal(phone.count('login'), 3)
  })
}

const TRIED_ONCE = {
  wechat_user_blocked: { fate: ['login', gives('errcode-40226')], status: 403 },
  wechat_rate_limited: { fate: ['login', gives('errcode-45011')], status: 429 },
  wechat_misconfigured: { fate: ['login', gives('errcode-40125')], status: 502 },
  wechat_bad_response: { fate: ['login', gives('garbage')], status: 502 },
  internal_error: { fate: [LOGIN, problem(500, 'internal_error')], status: 500 },
  storage_unavailable: { fate: [LOGIN, problem(503, 'storage_unavailable')], status: 503 },
  rate_limited: { fate: [LOGIN, problem(429, 'rate_limited')], status: 429 },
  http_error: { fate: [LOGIN, fates.answers(502, '<html>Bad Gateway</html>', {})], status: 502 },
  invalid_request: { fields: { stay: 'perhaps' }, status: 422 },
  unknown_app: { options: { appId: 'wx0000' }, status: 400 },
}
for (const [code, { fate, fields, options, status }] of Object.entries(TRIED_ONCE)) {
  test(`a login that fails with ${code} is not tried again`, async () => {
    const { auth, phone } = start(options)
    if (fate) phone.next(...fate)
    const error = await rejection(auth.login(fields), code)
    assert.equal(error.status, status)
    assert.equal(phone.count('login'), 1)
    assert.equal(kept(phone), undefined)
  })
}

/** The errors that wx.login may fail with, and the code that the page gets after two such failures. */
const FAILED_LOGINS = [
  [fates.notSent, 'network_error'],
  ...[
    'fail errcode:-106 cronet_error_code:-106 error_msg:net::ERR_INTERNET_DISCONNECTED',
    'fail errcode:-1009 似乎已断开与互联网的连接。',
    'fail Net::err_name_not_resolved',
    'fail timeout',
    'fail The request timed out.',
    'fail 请求超时。',
    'fail network error',
  ].map((errMsg) => [fates.fails(errMsg), 'network_error']),
  [async () => ({}), 'wx_login_failed'],
  [async () => ({ code: '' }), 'wx_login_failed'],
  [fates.throws(new Error('no')), 'wx_login_failed'],
  ...['fail interrupted', 'fail system error', 'fail url not in domain list', 'fail errcode:40029'].map((errMsg) => [
    fates.fails(errMsg), 'wx_login_failed',
  ]),
]
const WAYS_TO_A_CODE = {
  login: (auth) => auth.login({ force: true }),
  'login with fields': (auth) => auth.login({ nickname: '小明' }),
  loginCode: (auth) => auth.loginCode(),
  idToken: (auth) => auth.idToken('shop'),
  deleteAccount: (auth) => auth.deleteAccount(),
  'approve of a scan': (auth) => approve(auth, { id: 'x' }),
  'the answer to a site': (auth) => authorize(auth, { redirect_uri: 'https://shop.example.com/callback' }),
}
for (const [way, call] of Object.entries(WAYS_TO_A_CODE))
  test(`a wx.login of ${way} that fails is tried once more, and nothing after that`, async () => {
    for (const [fate, code] of FAILED_LOGINS) {
      const { auth, phone } = await loggedIn()
      phone.next('login', fate, fate)
      assert.equal((await rejection(call(auth), code)).status, null)
      assert.deepEqual(phone.calls.map(({ kind }) => kind), ['login', 'login'])
      phone.next('login', fate)
      await call(auth).catch((error) => assert.ok(error.status, error)) // the login gets a response
      assert.equal(phone.count('login'), 4)
    }
  })

test('a request that has to log in makes two calls of wx.login at most', async () => {
  const { auth, phone } = start()
  phone.next('login', ...Array(4).fill(fates.notSent))
  await rejection(auth.request({ url: '/v1/me' }), 'network_error')
  assert.equal(phone.count('login'), 2)
})

test('each code that is wanted has its two calls: one that was used is followed by another', async () => {
  const { auth, phone, person } = start()
  phone.next('login', fates.notSent, async () => ({ code: await spentCode(person) }), fates.notSent)
  assert.ok(await auth.login())
  assert.deepEqual([phone.count('login'), phone.count(LOGIN)], [4, 2])
})

test('a captive portal in the place of the service is http_error with its status, and nothing is kept', async () => {
  const { auth, phone } = start()
  phone.next(LOGIN, fates.answers(200, '<html>请登录 Wi-Fi</html>', { 'Content-Type': 'text/html' }))
  const error = await rejection(auth.login(), 'http_error')
  assert.equal(error.status, 200)
  assert.equal(kept(phone), undefined)
  await auth.login()
})

test('an error has what the service says: the title in Chinese, the status, the request id, the seconds to wait', async () => {
  const { auth, phone } = start()
  phone.next('login', gives('errcode-45011'))
  const error = await rejection(auth.login(), 'wechat_rate_limited')
  assert.equal(error.status, 429)
  assert.match(error.requestId, /^[\w.-]{8,}$/)
  assert.ok(error.retryAfter > 0)
  assert.match(error.message, /^wechat_rate_limited: /)
  assert.equal(error.wechatErrcode, 45011)
})

test('an error that is not of WeChat has no errcode', async () => {
  const { auth, phone } = start({ appId: 'wx0000' })
  assert.equal((await rejection(auth.login(), 'unknown_app')).wechatErrcode, null)
  phone.next('login', fates.notSent, fates.notSent)
  assert.equal((await rejection(auth.login(), 'network_error')).wechatErrcode, null)
})

const LANGUAGES = { en: /^[A-Z][A-Za-z' ]+$/, zh_CN: /[一-鿿]/u, zh_TW: /[一-鿿]/u, vi: /^[A-Z]/, undefined: /[一-鿿]/u }
for (const [language, title] of Object.entries(LANGUAGES))
  test(`the client's own titles are in the language of a WeChat in ${language}`, async (t) => {
    t.after(() => delete globalThis.wx)
    globalThis.wx = { getAppBaseInfo: () => (language === 'undefined' ? {} : { language }) }
    const codes = ['network_error', 'timeout', 'wx_login_failed', 'phone_refused', 'phone_unavailable', 'session_revoked']
    for (const code of codes) assert.match(new AuthError(code).title, title)
    assert.equal(new AuthError('network_error', { title: '没有网络' }).title, '没有网络')
    const banned = new AuthError('account_disabled', { title: 'Banned.', until: '2027-01-01T00:00:00Z' }).title
    assert.match(banned, language === 'en' || language === 'vi' ? /^Banned\. Until 202[67]-\S+ \d\d:\d\d$/ : /解封时间：/)
  })

test('a WeChat that does not say its language has titles in Chinese', () => {
  assert.match(new AuthError('network_error').title, /[一-鿿]/u)
})

for (const header of [{ 'retry-after': '7' }, { 'Retry-After': '7' }, { 'RETRY-AFTER': 7 }])
  test(`the seconds to wait are found in ${JSON.stringify(header)}`, async () => {
    const { auth, phone } = start()
    phone.next(LOGIN, fates.answers(429, '<html>429</html>', header))
    const error = await rejection(auth.login(), 'http_error')
    assert.equal(error.retryAfter, 7)
  })

for (const header of [undefined, null, {}, { 'Retry-After': 'Wed, 21 Oct 2026 07:28:00 GMT' }])
  test(`without seconds to wait there are none: ${JSON.stringify(header)}`, async () => {
    const { auth, phone } = start()
    phone.next(LOGIN, fates.answers(429, '', header))
    assert.equal((await rejection(auth.login(), 'http_error')).retryAfter, null)
  })

test('a problem document that comes as text is read', async () => {
  const { auth, phone } = start()
  phone.next(LOGIN, fates.answers(503, '{"code":"storage_unavailable","title":"暂时无法服务","request_id":"r-1"}'))
  const error = await rejection(auth.login(), 'storage_unavailable')
  assert.deepEqual([error.title, error.requestId], ['暂时无法服务', 'r-1'])
})

for (const body of [{ code: 'constructor' }, { code: '__proto__', title: {} }])
  test(`a code that is no error of the service has a title too: ${JSON.stringify(body)}`, async () => {
    const { auth, phone } = start()
    phone.next(LOGIN, fates.answers(500, body))
    assert.equal((await rejection(auth.login(), body.code)).title, '出错了，请重试')
  })

for (const body of [{ code: 502, message: 'no' }, [], 'text', 7, null, undefined])
  test(`an answer that is no problem document is http_error: ${JSON.stringify(body)}`, async () => {
    const { auth, phone } = start()
    phone.next(LOGIN, fates.answers(502, body))
    assert.equal((await rejection(auth.login(), 'http_error')).status, 502)
  })

test('a user who is banned is told so at login, and the session is forgotten', async () => {
  const { auth, phone } = start()
  await ban(await auth.login())
  const changes = []
  auth.onChange((user) => changes.push(user))
  const error = await rejection(auth.login({ nickname: '小明' }), 'account_disabled')
  assert.equal(error.status, 403)
  assert.deepEqual([auth.user, kept(phone), changes], [null, undefined, [null]])
  assert.equal(phone.count('login'), 2)
})

for (const [until, end] of [['2027-01-01T00:00:00Z', '解封时间：2027-01-01 08:00'], ['soon', ''], [7, '']])
  test(`a ban until ${until} is told on the phone in its own time, if that is one`, async (t) => {
    const zone = process.env.TZ
    t.after(() => (zone ? (process.env.TZ = zone) : delete process.env.TZ))
    process.env.TZ = 'Asia/Shanghai'
    const { auth, phone } = start()
    phone.next(LOGIN, fates.answers(403, { code: 'account_disabled', title: '该账号已被封禁。', request_id: 'r', until }))
    const error = await rejection(auth.login(), 'account_disabled')
    assert.deepEqual([error.until, error.title], [until, `该账号已被封禁。${end}`])
  })

test('a phone whose clock is a day wrong logs in like any other', async () => {
  for (const days of [-400, -1, 1, 400]) {
    const { auth, phone } = start()
    phone.time += days * DAY * 1000
    await auth.login()
    await passAtService(LIFE / 2)
    phone.time += (LIFE / 2) * 1000
    phone.calls.length = 0
    assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 200)
    assert.equal(phone.calls.length, 1, `${days} days wrong`)
  }
})

for (const url of [undefined, null, '', 'auth.example.com', 'ftp://auth.example.com', 'https://user@auth.example.com'])
  test(`a client cannot be made for the service ${url}`, async () => {
    assert.throws(
      () => start({ baseURL: url }),
      (error) => {
        checkError(error)
        const value = url === '' ? 'empty' : `${url}`.replace('https://user@', '…@')
        assert.ok(error.message.startsWith('invalid_argument: baseURL must be http:// or https:// and a host'))
        assert.ok(error.message.includes(`, not ${value}; write createAuth({ baseURL: `), error.message)
        return error.code === 'invalid_argument'
      },
    )
  })

test('a client that is given nothing says which argument it needs', async () => {
  assert.throws(() => createAuth(), { code: 'invalid_argument', message: /baseURL must be .*, not undefined; write createAuth\({ baseURL: 'https:.*' }\)$/ })
  assert.throws(() => createAuth('https://auth.example.com'), { message: /write createAuth\({ baseURL: 'https:/ })
})

test('a client cannot be made for an origin that is none, and says for which', async () => {
  for (const origins of [['https://api.example.com', '*'], '*'])
    assert.throws(() => start({ origins }), { code: 'invalid_argument', message: /: origins must be .*, not \*; write createAuth\({ origins: \['https:/ })
})

test('if the address of the service and an origin are both none, the client names the address', () => {
  assert.throws(() => createAuth({ baseURL: '*', origins: '*' }), { message: /: baseURL must be / })
})

test('a slash at the end of the address of the service makes no difference', async () => {
  const { auth, phone, person } = start({ baseURL: `${SERVICE_URL}/` })
  const { id } = await auth.login()
  assert.equal(phone.callsOf(LOGIN)[0].url, `${SERVICE_URL}/v1/login`)
  assert.equal(startAgain(phone).user.id, id)
  assert.equal((await logInElsewhere(person)).user.id, id)
})

test('people are told apart', async () => {
  const ids = await times(2, async () => (await start({ person: newPerson() }).auth.login()).id)
  assert.notEqual(ids[0], ids[1])
})

const LEAVING = fates.answers(403, {
  code: 'account_leaving',
  title: '该账号正在注销。',
  request_id: 'r',
  erase_at: '2026-11-27T08:00:00Z',
})

test('a login of who is leaving rejects with the time, and one with stay says so to the service', async () => {
  const { auth, phone } = start()
  phone.next(LOGIN, LEAVING)
  const error = await rejection(auth.login(), 'account_leaving')
  assert.deepEqual([error.eraseAt, error.status, auth.user], ['2026-11-27T08:00:00Z', 403, null])
  await auth.login({ stay: true })
  assert.deepEqual(
    phone.callsOf(LOGIN).map((call) => call.data.stay),
    [undefined, true],
  )
  assert.ok(auth.user)
})

test('who has left on another phone is forgotten at the next request, and is not logged in again', async () => {
  const { auth, phone } = await loggedIn()
  await endSession(auth)
  await expireAtService()
  phone.next(LOGIN, LEAVING)
  await rejection(auth.request({ url: '/v1/me' }), 'account_leaving')
  assert.deepEqual([auth.user, kept(phone), phone.count(LOGIN)], [null, undefined, 1])
})
