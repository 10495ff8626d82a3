// The client works although frameworks and interceptors have changed WeChat's functions, or left some out.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates, Phone } from '../../../examples/phone/phone.mjs'
import { APP_ID, AuthError, createAuth, listen, loggedIn, newPerson, rejection, SERVICE_URL, start, WECHAT_URL } from './world.js'

/** Define these global variables of a mini-program until the test ends. */
function globals(t, named) {
  Object.assign(globalThis, named)
  t.after(() => Object.keys(named).forEach((name) => delete globalThis[name]))
}

const newPhone = () => new Phone({ wechat: WECHAT_URL, person: newPerson(), appId: APP_ID })
const client = (phone) => createAuth({ baseURL: SERVICE_URL, appId: APP_ID, now: phone.now })

test('wx comes before uni, whose interceptors touch nothing of the client', async (t) => {
  const phone = newPhone()
  const intercepted = (name) => () => assert.fail(`uni.${name}`)
  globals(t, { wx: phone.wx, uni: { ...phone.wx, request: intercepted('request'), login: intercepted('login') } })
  const auth = client(phone)
  assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 200)
})

for (const wx of [undefined, null, {}, { request() {} }, { login() {} }, { login: null, request: null }])
  test(`uni serves where wx is ${wx && `{ ${Object.keys(wx)} }`}`, async (t) => {
    const phone = newPhone()
    globals(t, { uni: phone.wx, ...(wx !== undefined && { wx }) })
    assert.ok((await client(phone).login()).id)
  })

test('where there is no platform at all, what needs one says so', async () => {
  const auth = createAuth({ baseURL: SERVICE_URL })
  assert.equal(auth.user, null)
  for (const call of [auth.login(), auth.loginCode(), auth.request({ url: '/v1/me' })]) await rejection(call, 'no_platform')
  await auth.logout()
  const guest = createAuth({ baseURL: SERVICE_URL, silent: false })
  await rejection(guest.request({ url: '/v1/me' }), 'no_platform')
  await rejection(guest.getToken(), 'login_required')
})

const chatting = async (t, change) => {
  const server = await listen(t, () => [200, {}, 'one'])
  const { auth, phone } = await loggedIn({ origins: [server.url] })
  const { request } = phone.wx
  t.mock.method(phone.wx, 'request', (options) => change(() => request(options), options))
  const [tasks, pieces] = [[], []]
  const ask = (more) =>
    auth.request({ url: `${server.url}/chat`, onTask: (task) => (tasks.push(task), task), onChunk: (piece) => pieces.push(piece), ...more })
  return { server, ask, tasks, pieces }
}

for (const [what, change] of Object.entries({
  'a promise of the task': async (send) => send(),
  'a promise of something else': async (send) => void send(),
  'a promise that rejects': async (send) => { send(); throw new Error('of an interceptor') },
  'a promise that never resolves': (send) => (send(), new Promise(() => {})),
  'nothing': (send) => void send(),
  'a task without functions': (send) => (send(), {}),
  'a frozen task': (send) => Object.freeze(send()),
}))
  test(`a request of which the platform returns ${what} is answered`, async (t) => {
    const { ask, tasks } = await chatting(t, change)
    assert.deepEqual([(await ask()).statusCode, tasks.length], [200, 1])
    assert.equal((await ask({ enableChunked: true })).statusCode, 200)
  })

test('a promise of the task is awaited for its pieces', async (t) => {
  const { ask, pieces } = await chatting(t, async (send) => send())
  await ask({ enableChunked: true })
  assert.equal(pieces.map((piece) => Buffer.from(piece).toString()).join(''), 'one')
})

for (const [what, change] of Object.entries({
  'no task': (send) => void send(),
  'a promise of the task': async (send) => send(),
  'a task that cannot be aborted': (send) => ({ ...send(), abort: undefined }),
}))
  test(`with ${what}, abort() rejects with aborted`, async (t) => {
    const { ask } = await chatting(t, change)
    await rejection(ask({ onTask: (task) => task.abort() }), 'aborted')
  })

test("an error of the page's listener is its own, and the request is answered", async (t) => {
  const errors = []
  t.mock.method(console, 'error', (error) => errors.push(error.message))
  const { ask } = await chatting(t, (send) => ({ ...send(), onChunkReceived: (tell) => tell({ data: new ArrayBuffer(1) }) }))
  const broken = (name) => () => { throw new Error(name) }
  const { statusCode } = await ask({ enableChunked: true, onTask: broken('onTask'), onChunk: broken('onChunk') })
  assert.deepEqual([statusCode, errors.sort()], [200, ['onChunk', 'onTask']])
})

test('a status as text counts as its number', async () => {
  const { auth, phone } = await loggedIn()
  const texts = (name) => {
    const real = phone.wx[name]
    phone.wx[name] = (options) =>
      real({ ...options, success: (answer) => options.success({ ...answer, statusCode: `${answer.statusCode}` }) })
  }
  texts('request')
  texts('uploadFile')
  phone.files.set('f', Buffer.from('no picture'))
  phone.next('UPLOAD /v1/me/avatar', fates.answers(401, '{}'))
  assert.equal((await rejection(auth.setAvatar('f'), 'invalid_request')).status, 422)
  phone.time += 10 ** 9
  phone.next('POST /v1/refresh', fates.answers(400, { code: 'session_revoked' }))
  assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 200)
  assert.equal(phone.count('login'), 1)
})

for (const [kind, errMsg, code] of [
  ['GET ', 'fail url not in domain list', 'domain_not_allowed'],
  ['GET ', 'fail invalid url', 'invalid_argument'],
  ['UPLOAD ', 'fail file not found', 'invalid_argument'],
  ['UPLOAD ', 'fail no such file or directory', 'invalid_argument'],
  ['UPLOAD ', 'fail url not in domain list:https://auth.example.com', 'domain_not_allowed'],
  ['UPLOAD ', 'fail net::ERR_FAILED', 'network_error'],
  ['login', 'fail url not in domain list', 'wx_login_failed'],
])
  test(`${kind}${errMsg} is ${code}`, async () => {
    const { auth, phone } = await loggedIn()
    const path = kind === 'login' ? '' : kind === 'GET ' ? '/v1/me' : '/v1/me/avatar'
    phone.next(kind + path, ...Array(2).fill(async () => { throw errMsg }))
    const call = { login: auth.loginCode, 'GET ': () => auth.request({ url: '/v1/me' }), 'UPLOAD ': () => auth.setAvatar('f') }[kind]
    const error = await rejection(call(), code)
    if (code === 'domain_not_allowed') assert.equal(error.title, '暂时无法访问。')
  })

for (const [detail, code, more] of [
  [{ errMsg: 'getPhoneNumber:fail privacy permission is not authorized', errno: 104 }, 'phone_refused'],
  [{ errMsg: 'getPhoneNumber:fail privacy permission is not authorized in gap' }, 'phone_refused'],
  [{ errMsg: 'getPhoneNumber:fail', errno: '104' }, 'phone_refused'],
  [{ errMsg: 'getPhoneNumber:fail auth denied' }, 'phone_refused'],
  [{ errMsg: 'getPhoneNumber:fail api scope is not declared in the privacy agreement', errno: 112 }, 'phone_unavailable'],
  [{ errMsg: 'getPhoneNumber:ok', encryptedData: 'x', iv: 'y' }, 'phone_unavailable', /older than 2\.21\.2/],
])
  test(`a tap with ${detail.errMsg} ${detail.errno || ''} is ${code}`, async () => {
    const { auth, phone } = await loggedIn()
    assert.match((await rejection(auth.bindPhone({ detail }), code)).message, more || /getPhoneNumber/)
    assert.deepEqual(phone.calls, [])
  })

test('a picture that was not chosen is aborted', async () => {
  const { auth } = await loggedIn()
  await rejection(auth.setAvatar({ detail: { errMsg: 'chooseAvatar:fail cancel' } }), 'aborted')
  await rejection(auth.setAvatar({ detail: { errMsg: 'chooseAvatar:fail:user Cancel', avatarUrl: '' } }), 'aborted')
  await rejection(auth.setAvatar({ detail: { errMsg: 'chooseAvatar:fail' } }), 'invalid_argument')
})

test("the service's titles are in the language of WeChat, as the client's own", async (t) => {
  for (const [language, title] of [['en', /^[ -~]+$/], ['zh_CN', /[一-鿿]/]]) {
    globals(t, { wx: { getAppBaseInfo: () => ({ language }) } })
    const { auth } = start()
    const error = await auth.login({ stay: 'perhaps' }).catch((refusal) => refusal)
    assert.ok(error instanceof AuthError)
    assert.match(error.title, title)
  }
})
