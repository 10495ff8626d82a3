import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { expireAtService, isGood, listen, rejection, SERVICE_URL, start, times } from './world.js'

const REFRESH = 'POST /v1/refresh'

/** Log a phone in, and start a sibling that it may send its token to. */
async function withSibling(
  t,
  answer = () => [200, { 'Content-Type': 'application/json', 'X-Here': 'yes' }, '{"ok":true}'],
) {
  const sibling = await listen(t, answer)
  const { auth, phone } = start({ origins: [sibling.url] })
  await auth.login()
  phone.calls.length = 0
  return { auth, phone, sibling }
}

const frozen = (value) => {
  if (value && typeof value === 'object') Object.values(Object.freeze(value)).forEach(frozen)
  return value
}

test('an answer is what wx.request answers', async (t) => {
  const { auth, phone, sibling } = await withSibling(t, () => [200, { 'X-Here': 'yes', 'Set-Cookie': ['a=1', 'b=2'] }, '{"ok":true}'])
  const url = `${sibling.url}/orders`
  const profile = { rtt: 7 }
  phone.next('GET /orders', async (ask) => ({ ...(await ask()), profile, useHttpDNS: true }))
  const { statusCode, data, header, cookies, errMsg, ...more } = await auth.request({ url })
  assert.deepEqual([statusCode, data, header['x-here'], cookies], [200, { ok: true }, 'yes', ['a=1', 'b=2']])
  assert.deepEqual([errMsg, more], ['request:ok', { profile, useHttpDNS: true }])
  const own = await new Promise((success) => phone.wx.request({ url, success }))
  assert.deepEqual(Object.keys(await auth.request({ url })).sort(), Object.keys(own).sort())
})

test('the token goes along as a bearer, and is good', async (t) => {
  const { auth, sibling } = await withSibling(t)
  await auth.request({ url: `${sibling.url}/orders` })
  const [, token] = /^Bearer (.+)$/.exec(sibling.requests[0].headers.authorization)
  assert.ok(await isGood(token))
})

test('method, data, query and headers are as for wx.request', async (t) => {
  const { auth, sibling } = await withSibling(t)
  await auth.request({
    url: `${sibling.url}/orders?a=1`,
    method: 'PUT',
    data: { tea: '乌龙' },
    header: { 'X-Mine': 'é'.length },
  })
  await auth.request({ url: `${sibling.url}/orders`, data: { page: 2 } })
  const [put, get] = sibling.requests
  assert.deepEqual(
    [put.method, put.url, put.body, put.headers['x-mine']],
    ['PUT', '/orders?a=1', '{"tea":"乌龙"}', '1'],
  )
  assert.deepEqual([get.method, get.url], ['GET', '/orders?page=2'])
})

for (const name of ['Authorization', 'authorization', 'AUTHORIZATION'])
  test(`the bearer stands in place of the caller's ${name}, whose other headers are kept`, async (t) => {
    const { auth, phone, sibling } = await withSibling(t)
    await auth.request({ url: sibling.url, header: { [name]: 'Bearer mine', 'X-Other': 'kept', Cookie: 'a=b' } })
    const { headers } = sibling.requests[0]
    assert.match(headers.authorization, /^Bearer eyJ/)
    assert.deepEqual([headers['x-other'], headers.cookie], ['kept', 'a=b'])
    assert.deepEqual(Object.keys(phone.calls[0].header).sort(), ['Authorization', 'Cookie', 'X-Other'])
  })

test("nothing of the caller's is changed, and it may be frozen", async (t) => {
  const { auth, sibling } = await withSibling(t)
  const make = () => ({
    url: `${sibling.url}/a`,
    method: 'POST',
    header: { Authorization: 'mine', A: '1' },
    data: { list: [1, { b: 2 }] },
  })
  const options = frozen(make())
  await auth.request(options)
  assert.deepEqual(options, make())
})

test('success, fail and complete of the caller are not called', async (t) => {
  const { auth, sibling } = await withSibling(t)
  const called = () => assert.fail('called')
  assert.equal(
    (await auth.request({ url: sibling.url, success: called, fail: called, complete: called })).statusCode,
    200,
  )
})

test("the other options are wx.request's", async (t) => {
  const { auth, phone, sibling } = await withSibling(t)
  const { data } = await auth.request({
    url: sibling.url,
    responseType: 'arraybuffer',
    timeout: 1234,
    enableHttp2: true,
  })
  assert.ok(data instanceof ArrayBuffer)
  assert.deepEqual([phone.calls[0].timeout, phone.calls[0].enableHttp2], [1234, true])
  assert.equal((await auth.request({ url: sibling.url, dataType: 'text' })).data, '{"ok":true}')
})

test('an answer without a header has an empty one', async () => {
  const { auth, phone } = start()
  phone.next('GET /v1/me', fates.answers(204, '', undefined))
  assert.deepEqual(await auth.request({ url: '/v1/me' }), { statusCode: 204, data: '', header: {}, errMsg: 'request:ok' })
})

test('header names come as the phone gives them', async (t) => {
  const { auth, phone, sibling } = await withSibling(t)
  phone.headerName = (name) => name.toUpperCase()
  assert.equal((await auth.request({ url: sibling.url })).header['X-HERE'], 'yes')
})

for (const status of [201, 204, 304, 400, 403, 404, 409, 422, 429, 500, 503])
  test(`a ${status} resolves`, async (t) => {
    const { auth, sibling } = await withSibling(t, () => [status, {}, ''])
    assert.equal((await auth.request({ url: sibling.url })).statusCode, status)
    assert.equal(sibling.requests.length, 1)
  })

test('a 401 refreshes once and sends once more, the same again with a new token', async (t) => {
  const { auth, phone, sibling } = await withSibling(t, (_, n) => [n === 1 ? 401 : 200, {}, `${n}`])
  const { statusCode, data } = await auth.request({
    url: `${sibling.url}/orders`,
    method: 'POST',
    data: { n: 1 },
    header: { A: 'b' },
  })
  assert.deepEqual([statusCode, data], [200, 2])
  const [first, second] = sibling.requests
  assert.deepEqual(
    [second.method, second.url, second.body, second.headers.a],
    [first.method, first.url, first.body, first.headers.a],
  )
  assert.notEqual(second.headers.authorization, first.headers.authorization)
  assert.deepEqual([phone.count(REFRESH), phone.count('login')], [1, 0])
})

test('a second 401 is the answer', async (t) => {
  const { auth, phone, sibling } = await withSibling(t, () => [
    401,
    { 'WWW-Authenticate': 'Bearer' },
    '{"code":"invalid_token"}',
  ])
  const { statusCode, data } = await auth.request({ url: sibling.url })
  assert.deepEqual([statusCode, data], [401, { code: 'invalid_token' }])
  assert.deepEqual([sibling.requests.length, phone.count(REFRESH)], [2, 1])
})

for (const [fate, code] of [
  ['answerLost', 'network_error'],
  ['notSent', 'network_error'],
  ['tooLate', 'timeout'],
])
  test(`a request without an answer (${fate}) rejects with ${code}, and is not sent again`, async (t) => {
    const { auth, phone, sibling } = await withSibling(t)
    phone.next('POST /orders', fates[fate])
    const error = await rejection(auth.request({ url: `${sibling.url}/orders`, method: 'POST' }), code)
    assert.equal(error.status, null)
    assert.equal(phone.count('POST /orders'), 1)
    assert.ok(auth.user)
  })

for (const [errMsg, code] of [
  ['fail timeout', 'timeout'],
  ['fail The request timed out.', 'timeout'],
  ['fail errcode:-118 cronet_error_code:-118 error_msg:net::ERR_CONNECTION_TIMED_OUT', 'timeout'],
  ['fail 请求超时。', 'timeout'],
  ['fail interrupted', 'network_error'],
  ['fail url not in domain list', 'domain_not_allowed'],
])
  test(`"request:${errMsg}" is ${code}, and the developer reads why`, async (t) => {
    const { auth, phone, sibling } = await withSibling(t)
    phone.next('GET ', async () => {
      throw errMsg
    })
    const error = await rejection(auth.request({ url: sibling.url }), code)
    assert.equal(error.message, `${code}: request:${errMsg} (${sibling.url})`)
  })

test('a token in what the platform says of a failure is left out', async (t) => {
  const { auth, phone, sibling } = await withSibling(t)
  const token = await auth.getToken()
  phone.next('GET ', async () => {
    throw `fail {"header":{"Authorization":"Bearer ${token}"}}`
  })
  const error = await rejection(auth.request({ url: sibling.url }), 'network_error')
  assert.ok(!error.message.includes(token.slice(4)))
})

test('a relative url is appended to baseURL, its path included', async (t) => {
  const proxy = await listen(t, async ({ method, url, headers, body }) => {
    const inner = await fetch(SERVICE_URL + url.replace(/^\/auth/, ''), {
      method,
      headers: { 'content-type': 'application/json', authorization: headers.authorization || '' },
      body: body || undefined,
    })
    return [inner.status, { 'Content-Type': 'application/json' }, await inner.text()]
  })
  const { auth } = start({ baseURL: `${proxy.url}/auth/` })
  for (const url of ['/v1/me', 'v1/me', '?x=1', '//v1/me', '/v1/me?then=https://else.where'])
    await auth.request({ url })
  assert.deepEqual(
    proxy.requests.map((request) => request.url),
    [
      '/auth/v1/login',
      '/auth/v1/me',
      '/auth/v1/me',
      '/auth?x=1',
      '/auth//v1/me',
      '/auth/v1/me?then=https://else.where',
    ],
  )
})

test("the token goes to baseURL's origin and to origins, however they are written", async (t) => {
  const { sibling } = await withSibling(t)
  const { port } = new URL(sibling.url)
  for (const origin of [sibling.url, `${sibling.url}/`, `${sibling.url}/some/path?x`, `HTTP://127.0.0.1:${port}`]) {
    const { auth } = start({ origins: [origin] })
    for (const url of [
      sibling.url,
      `${sibling.url}/a`,
      `${sibling.url}?q`,
      `${sibling.url}#f`,
      `HTTP://127.0.0.1:${port}/订单`,
    ])
      assert.equal((await auth.request({ url })).statusCode, 200, `${origin} ${url}`)
    assert.equal((await auth.request({ url: `${SERVICE_URL}/v1/me` })).statusCode, 200)
  }
})

test('the default port may be written or not', async () => {
  const { auth, phone } = start({ origins: ['https://api.example.com', 'http://plain.example.com:80'] })
  await auth.login()
  for (const url of [
    'https://api.example.com:443/a',
    'https://API.example.com/a',
    'http://plain.example.com/a',
    'http://plain.example.com:80/a',
  ]) {
    phone.next('GET /a', fates.answers(200, {}))
    assert.equal((await auth.request({ url })).statusCode, 200, url)
  }
})

const ELSEWHERE = [
  'https://evil.example.com/',
  'https://api.example.com.evil.com/',
  'https://evil.com/https://api.example.com/',
  'http://api.example.com/',
  'https://api.example.com:444/',
  'https://api.example.com:80/',
  'https://api.example.com@evil.com/',
  'https://api.example.com:443@evil.com/',
  'https://user@api.example.com/',
  'https://user:password@api.example.com/',
  'https://@api.example.com/',
  'https://api.example.com\\@evil.com/',
  'https://api.example.com/\\evil.com',
  'https:\\\\api.example.com/',
  'https:api.example.com/',
  'https:/api.example.com/',
  'https:///api.example.com/',
  'https://api.example.com\t.evil.com/',
  'https://api.example.com%2eevil.com/',
  'https://api.example.com，evil.com/',
  'https://ａpi.example.com/',
  'https://api.example.com./',
  'https://',
  'wss://api.example.com/',
  'javascript:alert(1)',
  'data:text/plain,1',
  'wxfile://tmp/1',
  '\\\\evil.com/',
  '/\\evil.com/',
]
for (const url of ELSEWHERE)
  test(`the token does not go to ${JSON.stringify(url)}`, async () => {
    const { auth, phone } = start({ origins: ['https://api.example.com'] })
    await auth.login()
    phone.calls.length = 0
    await rejection(auth.request({ url }), 'origin_not_allowed')
    assert.deepEqual(phone.calls, [])
  })

test('what is not allowed is said before anybody is logged in, with the address and what is allowed', async () => {
  const { auth, phone } = start({ origins: ['https://api.example.com'] })
  const error = await rejection(auth.request({ url: 'http://localhost:8001/orders?key=1' }), 'origin_not_allowed')
  const allowed = `${new URL(SERVICE_URL).origin}, https://api.example.com`
  assert.equal(
    error.message,
    `origin_not_allowed: http://localhost:8001/orders is not at baseURL, nor in origins: ${allowed}`,
  )
  assert.deepEqual(phone.calls, [])
})

test('an address that is not allowed is named without the password in it', async () => {
  const error = await rejection(start().auth.request({ url: 'https://me:pass@example.com/a?b=c@d' }), 'origin_not_allowed')
  assert.match(error.message, /: …@example\.com\/a is not at baseURL/)
})

test('a redirect is not followed but given to the caller, and its target sees no token', async (t) => {
  const evil = await listen(t, () => [200, {}, 'stolen'])
  const { auth, sibling } = await withSibling(t, () => [302, { Location: evil.url }, ''])
  const { statusCode, header } = await auth.request({ url: sibling.url })
  assert.deepEqual([statusCode, header.location, evil.requests], [302, evil.url, []])
  await auth.request({ url: sibling.url, redirect: 'follow' })
  assert.deepEqual(evil.requests, [])
})

test('a redirect in the place of a login or a refresh sends no code and no token elsewhere', async (t) => {
  const evil = await listen(t, () => [200, {}, '{}'])
  const portal = await listen(t, () => [307, { Location: evil.url }, ''])
  const { auth, phone } = start({ baseURL: portal.url })
  assert.equal((await rejection(auth.login(), 'http_error')).status, 307)
  assert.deepEqual(evil.requests, [])
  assert.equal(phone.count('POST /v1/login'), 1)
})

for (const [what, call] of Object.entries({
  'request()': (auth) => auth.request(),
  'request(null)': (auth) => auth.request(null),
  'request without a url': (auth) => auth.request({ method: 'GET' }),
  'request with an empty url': (auth) => auth.request({ url: '' }),
  'request with a url that is no text': (auth) => auth.request({ url: new URL(SERVICE_URL) }),
  'updateProfile()': (auth) => auth.updateProfile(),
  'decrypt()': (auth) => auth.decrypt(),
  'setAvatar()': (auth) => auth.setAvatar(),
  'setAvatar of an event without a picture': (auth) => auth.setAvatar({ detail: {} }),
  'bindPhone()': (auth) => auth.bindPhone(),
  'revokeSession()': (auth) => auth.revokeSession(),
  "revokeSession('')": (auth) => auth.revokeSession(''),
}))
  test(`${what} rejects with invalid_argument, and asks nothing`, async () => {
    const { auth, phone } = start()
    await rejection(call(auth), 'invalid_argument')
    assert.deepEqual(phone.calls, [])
  })

test('more requests than WeChat sends at once wait for their turn, and are answered', async () => {
  const { auth, phone } = start()
  await auth.login()
  await expireAtService()
  const answers = await times(25, () => auth.request({ url: '/v1/me' }))
  assert.ok(answers.every((answer) => answer.statusCode === 200))
  assert.equal(phone.count(REFRESH), 1)
})

test('members need no this', async () => {
  const { auth } = start()
  const { login, request, getToken, sessions, logout } = auth
  await login()
  assert.equal((await request({ url: '/v1/me' })).statusCode, 200)
  assert.ok(await getToken())
  assert.equal((await sessions()).length, 1)
  await logout()
  assert.equal(auth.user, null)
})
