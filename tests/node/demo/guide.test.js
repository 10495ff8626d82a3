// Runs the mini-program that the code in docs/build/mini-program.md and mini-program-recipes.md makes. See
// tests/miniprogram/test_guide.py.
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { ask, isGood, logInElsewhere, newPerson, wechat } from '../miniprogram/world.js'
import { MiniProgram, ORDERS_URL, SERVICE_URL, askedInWebView, browserAtSite, until } from './mini_program.js'

let guide
beforeEach(() => {
  const changes = () => ({ 'http://127.0.0.1:8002': ORDERS_URL, 'http://127.0.0.1:8000': SERVICE_URL })
  guide = new MiniProgram({ folder: process.env.GUIDE, person: newPerson(), changes })
})
afterEach(() => guide.close())

const me = async () => (await ask('GET', '/v1/me', { token: (await logInElsewhere(guide.person)).access_token })).body

test('a request waits for the login that the start has begun', async () => {
  const orders = await guide.launch().module('orders.js').orders()
  assert.deepEqual(orders.map(({ item }) => item), ['oolong tea'])
  assert.equal(guide.phone.count('login'), 1)
})

test('an error of the service has a title, even if a gateway answers instead', async () => {
  const { orders } = guide.launch().module('orders.js')
  async function assertThrown(status, body, [code, title]) {
    guide.phone.next('GET /orders', fates.answers(status, body, {}))
    await assert.rejects(orders(), { name: 'AuthError', code, title, status })
  }
  await assertThrown(403, { code: 'not_yours', title: 'Ask the shop' }, ['not_yours', 'Ask the shop'])
  for (const body of ['<html>', null, {}]) await assertThrown(502, body, ['http_error', '出错了，请重试'])
})

test('a user whose account is banned reads why and is led to the login page, and one who signs out is not', async () => {
  const shown = []
  guide.launch()
  Object.assign(globalThis.wx, {
    showModal: ({ content, complete }) => (shown.push(content), complete()),
    navigateTo: ({ url }) => shown.push(url),
  })
  guide.module('ended.js')
  const { auth } = guide.module('auth.js')
  const { orders } = guide.module('orders.js')
  for (const [code, reason] of [['account_disabled', '账号已停用'], ['session_revoked', '登录已失效']]) {
    await auth.login()
    guide.phone.next('GET /orders', fates.answers(401, {}, {}))
    guide.phone.next('POST /v1/refresh', fates.answers(code === 'account_disabled' ? 403 : 400, { code }))
    await orders().catch(() => {})
    assert.deepEqual(shown.splice(0), code === 'account_disabled' ? [reason, '/pages/login/login'] : [])
  }
  await auth.logout()
  assert.deepEqual([auth.user, shown], [null, []])
})

test('the page shows and changes name and phone number', async () => {
  const page = guide.launch().open('profile')
  await page.call('saveNickname', { detail: { value: { nickname: '小明' } } })
  const { code } = await wechat('/phone-codes', { person: guide.person })
  await page.call('bindPhone', { detail: { code } })
  await page.shows('+86138')
  assert.equal((await me()).nickname, '小明')
  await page.call('setAvatar', { detail: { avatarUrl: 'http://tmp/gone.png' } })
  assert.equal(guide.toasts.length, 1)
})

test('encrypted data is opened, after one more login where it does not open', async () => {
  const data = { stepInfoList: [{ timestamp: 1795104000, step: 8848 }] }
  const seal = () => wechat('/encrypted-data', { person: guide.person, data })
  const unopenable = { encryptedData: 'q0EJbVMXC0kYb9rMbJcMdA==', iv: 'r7BXXKkLb8qrSNn05n0qiA==' }
  const given = []
  guide.wx.getWeRunData = async () => given.shift() || seal()
  const { steps } = guide.launch().module('steps.js')
  await guide.module('orders.js').orders()

  assert.deepEqual(await steps(), data.stepInfoList)
  assert.equal(guide.phone.count('login'), 1)
  given.push(unopenable)
  assert.deepEqual(await steps(), data.stepInfoList)
  assert.equal(guide.phone.count('login'), 2)
  given.push(unopenable, unopenable)
  await assert.rejects(steps(), { code: 'session_key_expired' })
})

test('the page that a site in a web-view leads to logs in to it', async () => {
  const query = await askedInWebView()
  guide.wx.getEnterOptionsSync = () => ({ path: 'pages/authorize/authorize', query })
  guide.launch()
  const card = guide.open('authorize')
  card.call('onLoad', query)
  assert.equal(guide.phone.count('POST /v1/me/authorizations'), 0)
  assert.equal(guide.phone.count('login'), 0)
  guide.wx.getEnterOptionsSync = globalThis.wx.getEnterOptionsSync = () => ({ path: 'pages/profile/profile', query: {} })
  card.call('onLoad', query)
  await until(() => card.all('site').length)
  assert.match(card.attribute('site', 'src'), /^http:\/\/127\.0\.0\.1\/callback\?code=/)
})

test('a socket is opened with a good token', async () => {
  let opened
  guide.wx.connectSocket = (options) => (opened = options)
  await guide.launch().module('connect.js').connect('wss://api.example.com')
  assert.ok(await isGood(opened.header.Authorization.replace('Bearer ', '')))
})

test('who has logged out sees nothing of what was under way, and no page gets its failure', async () => {
  const { request } = guide.launch().module('request.js')
  const { auth } = guide.module('auth.js')
  const url = `${ORDERS_URL}/orders`
  assert.equal((await request({ url })).data[0].item, 'oolong tea')
  const gate = guide.phone.hold('GET /orders')
  const outcomes = []
  request({ url }).then(({ data }) => outcomes.push(data), (error) => outcomes.push(error.code))
  await gate.arrived
  await auth.logout()
  gate.open()
  await auth.login()
  assert.equal((await request({ url })).statusCode, 200)
  assert.deepEqual(outcomes, [])
  guide.phone.isOnline = false
  await assert.rejects(request({ url }), { code: 'network_error' })
})

test('a download carries a good token, and fails if its user has left', async () => {
  const { download } = guide.launch().module('download.js')
  const { auth } = guide.module('auth.js')
  const { statusCode, tempFilePath } = await download(`${ORDERS_URL}/orders`)
  assert.match(`${statusCode} ${guide.phone.files.get(tempFilePath)}`, /^200 .*oolong tea/)
  for (const next of [() => auth.logout(), () => (guide.phone.person = newPerson()) && auth.logout().then(() => auth.login())]) {
    await auth.login()
    const gate = guide.phone.hold('DOWNLOAD /orders')
    const under = assert.rejects(download(`${ORDERS_URL}/orders`), { code: 'session_revoked', status: null })
    await gate.arrived
    await next()
    gate.open()
    await under
  }
})

test("uni-app's page shows who asks for a login, and nothing for a code that is over", async () => {
  async function opened(scene) {
    guide.wx = { getEnterOptionsSync: () => ({ scene: 1047, query: { scene } }) }
    delete globalThis.uni // defined by the previous phone
    guide.launch()
    const showToast = async ({ title }) => guide.toasts.push(title) && { errMsg: 'showToast:ok' }
    globalThis.uni = { ...globalThis.wx, showToast }
    await guide.module('auth.js').auth.login()
    const { default: shown } = guide.module('scan.js')
    const page = { ...shown.data(), ...shown.methods }
    await shown.onLoad.call(page, { scene })
    return page
  }
  assert.ok(!(await opened('a'.repeat(22))).claimed) // otherwise the template would read claimed.client.title
  assert.equal(guide.toasts.length, 1)
  const page = await opened((await browserAtSite()).scene)
  assert.equal(page.claimed.client.title, 'Example Shop')
  await page.refuse()
  await page.logIn()
  assert.equal(guide.toasts.length, 2)
})

test('a page that requires the login leads to it, and the login page back', async () => {
  guide.wx = { navigateTo: ({ url }) => went.push(url), navigateBack: () => went.push('back') }
  const went = [], made = []
  guide.launch()
  globalThis.Page = (page) => made.push(page)
  for (const name of ['guarded.js', 'login.js']) guide.module(name)
  const [guarded, login] = made
  const { auth } = guide.module('auth.js')
  await auth.login()
  await auth.logout()
  await guarded.onShow()
  await login.logIn()
  await guarded.onShow.call({ load: () => went.push('loaded') })
  assert.deepEqual(went, ['/pages/login/login', 'back', 'loaded'])
})

/** Return WeChat's cloud, which calls the services in its containers as the cloud's pages describe. */
function cloudOf(services) {
  let isReady = false
  return {
    init: () => (isReady = true),
    callContainer({ config, path, method, header, data, timeout, followRedirect = true, success, fail }) {
      const { 'X-WX-SERVICE': service, ...others } = header
      assert.ok(isReady, "Cloud API isn't enabled, please call wx.cloud.init first")
      assert.ok(config.env && path[0] === '/' && services[service], 'errCode: -501000, invalid host')
      assert.ok(['GET', 'POST', 'PUT', 'DELETE'].includes(method), 'errCode: 102005')
      assert.ok(timeout <= 15000, 'a longer timeout has no effect')
      guide.phone.wx.request({
        ...{ url: services[service] + path, method, data, timeout, success },
        header: { ...others, 'X-WX-OPENID': 'o-of-the-caller', 'X-WX-SOURCE': 'wx_client' },
        redirect: followRedirect ? 'follow' : 'manual',
        fail: () => fail({ errCode: 102002, errMsg: 'cloud.callContainer:fail 请求超时' }),
      })
    },
  }
}

test('logins and requests reach the containers of 微信云托管 by callContainer', async () => {
  guide.wx = { cloud: cloudOf({ wxauth: SERVICE_URL, orders: ORDERS_URL }) }
  const { auth } = guide.launch().module('cloud.js')
  const { data } = await auth.request({ url: 'https://api.example.com/orders' })
  assert.deepEqual(data.map(({ item }) => item), ['oolong tea'])
  assert.equal((await auth.updateProfile({ nickname: '小明' })).nickname, '小明')
  assert.equal((await me()).openid, auth.user.openid)
  await auth.logout()
  guide.phone.isOnline = false
  await assert.rejects(auth.decrypt({}), { code: 'network_error' })
})

test('a purchase is paid with what the back end has signed, after one more login where WeChat demands it', async () => {
  const order = { number: 7, mode: 'short_series_goods', signData: 'd', paySig: 'p', signature: 's' }
  const answers = [[409, { code: 'session_key_expired' }], [200, order]]
  const paid = []
  guide.wx = { requestVirtualPayment: ({ success, ...asked }) => paid.push(asked) && success() }
  guide.launch()
  const { auth } = guide.module('auth.js')
  auth.request = async () => ([statusCode, data] = answers.shift()) && { statusCode, data }
  let statusCode, data
  assert.equal(await guide.module('buy.js').buy(), 7)
  assert.deepEqual([paid[0].signData, paid[0].paySig, paid[0].signature], ['d', 'p', 's'])
})

test('a consent is given at the login, or with the permission that WeChat asks for', async () => {
  const went = [], given = []
  guide.wx = { navigateTo: ({ url }) => went.push(url), requirePrivacyAuthorize: ({ success }) => success() }
  guide.launch()
  const auth = { login: async ({ consents }) => given.push(consents) && { consents_due: ['terms'] }, consent: (one) => given.push(one) }
  await guide.module('consents.js').asked(auth)
  assert.deepEqual(went, ['/pages/agree/agree'])
  assert.deepEqual(given, [{ privacy: '2026-05', terms: '3' }, { privacy: '2026-05' }])
})
