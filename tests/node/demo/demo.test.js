// Taps through the demo mini-program, with the service, the simulated WeChat and the sibling.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterEach, beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ask, isGood, logInElsewhere, newPerson, wechat } from '../miniprogram/world.js'
import { MiniProgram, ORDERS_URL, SERVICE_URL, WECHAT_URL, askedInWebView, browserAtSite, until } from './mini_program.js'

// A picture with one pixel.
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64',
)

const FOLDER = fileURLToPath(new URL('../../../examples/miniprogram', import.meta.url))
const SIMULATED = "{ url: 'http://127.0.0.1:8001', person: 'alice' }"

let demo
beforeEach(() => {
  const person = newPerson()
  const changes = () => ({
    'http://127.0.0.1:8000': SERVICE_URL,
    'http://127.0.0.1:8002': demo.orders,
    [SIMULATED]: demo.isSimulated ? `{ url: '${WECHAT_URL}', person: '${person}' }` : 'null',
  })
  demo = Object.assign(new MiniProgram({ folder: FOLDER, person, changes }), { isSimulated: true, orders: ORDERS_URL })
})
afterEach(() => demo.close())

/** Start the mini-program, and open a page after the user is logged in. */
async function opened(page) {
  demo.launch()
  await demo.app.started
  return demo.open(page)
}

const me = async () => (await ask('GET', '/v1/me', { token: (await logInElsewhere(demo.person)).access_token })).body

/** Run a sibling that returns these responses, each given as [status, body]. */
async function withSibling(answers, use) {
  const server = createServer((request, response) => {
    const [status, body] = answers.shift()
    response.writeHead(status, { 'Content-Type': status < 300 ? 'application/json' : 'application/problem+json' })
    response.end(JSON.stringify(body))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  demo.orders = `http://127.0.0.1:${server.address().port}`
  try {
    await use()
  } finally {
    server.close()
  }
}

test('the start logs in, without a tap', async () => {
  const page = demo.launch().open('profile')
  await page.shows('登录中…')
  await page.shows((await me()).id)
  assert.equal(demo.phone.count('POST /v1/login'), 1)
  assert.deepEqual(demo.toasts, [])
})

test('the next start shows the person at once, without a network', async () => {
  await (await opened('profile')).shows('用户 ID')
  demo.phone.isOnline = false
  const page = demo.launch().open('profile')
  assert.match(page.text, /用户 ID/)
  assert.equal(demo.phone.count('POST /v1/login'), 1)
})

test('a start without a network says so, and a tap logs in later', async () => {
  demo.phone.isOnline = false
  const page = await (await opened('profile')).shows('尚未登录')
  assert.equal(demo.toasts.length, 1)
  demo.phone.isOnline = true
  await page.does('log-in')
  await page.shows('用户 ID')
  assert.equal(demo.toasts.length, 1)
})

test('with an appid, WeChat is asked for the code', async () => {
  demo.isSimulated = false
  await (await opened('profile')).shows('用户 ID')
  assert.equal(demo.phone.count('login'), 1)
})

test('a chosen avatar is uploaded and shown', async () => {
  const page = await (await opened('profile')).shows('选择')
  assert.equal(page.attribute('avatar-button', 'openType') || page.attribute('avatar-button', 'open-type'), 'chooseAvatar')
  demo.phone.files.set('http://tmp/1.png', PNG)
  await page.does('avatar-button', 'chooseavatar', { avatarUrl: 'http://tmp/1.png' })
  await until(() => page.attribute('avatar', 'src'))
  const picture = await fetch(page.attribute('avatar', 'src'))
  assert.deepEqual([picture.status, picture.headers.get('content-type').split('/')[0]], [200, 'image'])
})

test('a picture that is none is refused with a sentence', async () => {
  const page = await (await opened('profile')).shows('选择')
  demo.phone.files.set('http://tmp/1.png', Buffer.from('no picture'))
  await page.does('avatar-button', 'chooseavatar', { avatarUrl: 'http://tmp/1.png' })
  await until(() => demo.toasts.length)
  assert.deepEqual(demo.toasts, ['图片须为 JPEG、PNG 或 WebP。'])
  await page.shows('选择')
})

test('a nickname is saved', async () => {
  const page = await (await opened('profile')).shows('保存')
  assert.deepEqual(
    ['type', 'name', 'maxlength'].map((name) => `${page.attribute('nickname', name)}`),
    ['nickname', 'nickname', '64'],
  )
  await page.does('name', 'submit', { value: { nickname: '小明' } })
  await until(() => demo.toasts.length)
  assert.deepEqual(demo.toasts, ['已保存'])
  assert.equal(page.attribute('nickname', 'value'), '小明')
  assert.equal((await me()).nickname, '小明')
})

test('a simulated phone number is bound', async () => {
  const page = await (await opened('profile')).shows('未绑定手机号')
  await page.does('phone')
  await page.shows('+86138')
  assert.match((await me()).phone, /^\+86138\d{8}$/)
})

for (const [button, way, refusal, told] of [
  ['phone', 'getPhoneNumber', { errMsg: 'getPhoneNumber:fail user deny' }, /手机号/],
  ['phone-now', 'getRealtimePhoneNumber', { errMsg: 'getRealtimePhoneNumber:fail', errno: 1400001 }, /暂时无法获取手机号/],
])
  test(`the button ${button} binds the number, and says when the person refused or the quota is used up`, async () => {
    demo.isSimulated = false
    const page = await (await opened('profile')).shows('未绑定手机号')
    await page.does(button, way.toLowerCase(), refusal)
    await until(() => demo.toasts.length)
    assert.match(demo.toasts.join(), told)
    const { code } = await wechat('/phone-codes', { person: demo.person })
    await page.does(button, way.toLowerCase(), { code, errMsg: `${way}:ok` })
    await page.shows('+86138')
  })

test('two taps at once do it once', async () => {
  const page = await (await opened('profile')).shows('退出登录')
  const tap = page.all('phone')[0]
  tap.dispatchEvent('tap')
  tap.dispatchEvent('tap')
  await page.shows('+86138')
  assert.equal(demo.phone.count('POST /v1/me/phone'), 1)
})

test('devices are listed, and one is signed out', async () => {
  const other = await logInElsewhere(demo.person)
  const page = await (await opened('devices')).shows('本机')
  assert.equal(page.all('session').length, 2)
  assert.match(page.text, /iOS 17\.1.*\d+月\d+日 \d+:\d\d/)
  await page.does('revoke')
  await page.shows('没有其他设备登录')
  assert.equal(page.all('session').length, 1)
  assert.equal(await isGood(other.access_token), false)
})

test('all other devices are signed out at once', async () => {
  const others = [await logInElsewhere(demo.person), await logInElsewhere(demo.person)]
  const page = await (await opened('devices')).shows('退出其他所有设备')
  await page.does('revoke-others')
  await page.shows('没有其他设备登录')
  for (const { access_token } of others) assert.equal(await isGood(access_token), false)
})

test('a pull shows a device that has come since', async () => {
  const page = await (await opened('devices')).shows('没有其他设备登录')
  await logInElsewhere(demo.person)
  await page.call('onPullDownRefresh')
  await page.shows('退出其他所有设备')
  assert.equal(demo.pullsEnded, 1)
})

test('the sibling takes the token', async () => {
  const page = await (await opened('orders')).shows('oolong tea')
  await page.shows((await me()).openid)
})

test('without orders the page says so', () =>
  withSibling([[200, []]], async () => void (await (await opened('orders')).shows('还没有订单'))))

test('a problem of the sibling is shown, and a pull tries again', async () => {
  const answers = [
    [403, { code: 'insufficient_role', title: '你没有权限进行此操作。' }],
    [200, [{ item: 'tea', for: 'me' }]],
  ]
  await withSibling(answers, async () => {
    const page = await (await opened('orders')).shows('没有取到订单，下拉重试')
    assert.deepEqual(demo.toasts, ['你没有权限进行此操作。'])
    await page.call('onPullDownRefresh')
    await page.shows('tea')
  })
})

test('a sibling that is away is said in a sentence', async () => {
  demo.orders = 'http://127.0.0.1:9'
  await (await opened('orders')).shows('没有取到订单，下拉重试')
  assert.match(demo.toasts.join(), /^网络不可用/)
})

test('after a sign-out nothing is asked for until the person logs in', async () => {
  const page = await (await opened('profile')).shows('退出登录')
  await page.does('log-out')
  await page.shows('尚未登录')
  await until(() => demo.phone.count('POST /v1/logout'))
  const asked = demo.phone.calls.length
  await demo.open('devices').shows('尚未登录')
  await demo.open('orders').shows('尚未登录')
  assert.equal(demo.phone.calls.length, asked)
  await page.does('log-in')
  await page.shows('用户 ID')
})

test('what was listed goes with a sign-out', async () => {
  const page = await (await opened('devices')).shows('本机')
  await demo.open('profile').does('log-out')
  await until(() => demo.phone.count('POST /v1/logout'))
  page.call('onShow')
  await page.shows('尚未登录')
})

test('an account is deleted only after a question', async () => {
  const page = await (await opened('profile')).shows('注销账号')
  const { id } = await me()
  demo.confirms = [false, true]
  await page.does('delete')
  await until(() => demo.confirms.length === 1)
  await page.does('delete')
  await page.shows('尚未登录')
  assert.equal(demo.phone.count('POST /v1/me/erasure'), 1)
  await page.does('log-in')
  await page.shows('用户 ID')
  assert.ok(!page.text.includes(id), 'the next login is a new user')
})

test('a page that is closed hears no more', async () => {
  const page = await (await opened('profile')).shows('用户 ID')
  page.call('onUnload')
  await demo.open('profile').does('log-out')
  await until(() => demo.phone.count('POST /v1/logout'))
  assert.match(page.text, /用户 ID/)
})

test('a code that the camera saw is asked about, and approved', async () => {
  const { scene, goOn } = await browserAtSite()
  demo.wx = { getEnterOptionsSync: () => ({ scene: 1047, query: { scene } }) }
  const page = await opened('scan')
  page.call('onLoad', { scene })
  await page.shows('Example Shop')
  assert.equal(page.all('deny').length, page.all('approve').length)
  await page.does('approve')
  await page.shows('已登录，请回到网页')
  assert.match((await goOn()).get('location'), /[?&]code=/)
})

test('what a program on a computer may do is asked in words', async () => {
  const page = await opened('scan')
  const resource = { title: '小店助手', host: 'mcp.test', scopes: [{ name: 'a', title: '查看你的订单' }, { name: 'b', title: '替你下单' }] }
  for (const local of [true, false]) {
    page.call('setData', { claimed: { id: '1', client: { title: 'Claude', host: 'claude.ai', local }, resource } })
    for (const shown of ['小店助手', 'mcp.test', '查看你的订单', '替你下单', '自称“Claude”', 'claude.ai']) await page.shows(shown)
    await page.shows(local ? '这台电脑上的一个程序' : '允许 claude.ai？')
  }
})

test('a code that was sent by chat is refused, and one that the page reads itself can be refused', async () => {
  const { scene, goOn } = await browserAtSite()
  demo.wx = {
    getEnterOptionsSync: () => ({ scene: 1007, query: { scene } }),
    scanCode: ({ onlyFromCamera, success }) => {
      assert.equal(onlyFromCamera, true)
      success({ scanType: 'WX_CODE', path: `pages/scan/scan?scene=${scene}` })
    },
  }
  const page = await opened('scan')
  page.call('onLoad', { scene })
  await page.shows('请用相机扫描屏幕上的二维码')
  await page.does('scan')
  await page.shows('Example Shop')
  await page.does('deny')
  await page.shows('已拒绝')
  assert.match((await goOn()).get('location'), /error=access_denied/)
})

test('a typed code comes with a warning', async () => {
  const { typed } = await browserAtSite()
  const page = await opened('scan')
  page.call('type', { detail: { value: { code: typed.toLowerCase() } } })
  await page.shows('登录码是手动输入的')
})

test('a site in a web-view is logged in to by the page that it leads to', async () => {
  demo.wx = { getEnterOptionsSync: () => ({ scene: 1001, path: 'pages/profile/profile', query: {} }) }
  const page = await (await opened('authorize')).shows('出错了') // the page is opened without a request
  page.call('onLoad', await askedInWebView())
  await until(() => page.all('site').length)
  const url = new URL(page.attribute('site', 'src'))
  assert.equal(`${url.origin}${url.pathname}`, 'http://127.0.0.1/callback')
  assert.equal(url.searchParams.get('state'), 'a state')
  assert.ok(url.searchParams.get('code'))
})

test("a card with a stranger's request logs nobody in", async () => {
  const query = await askedInWebView()
  demo.wx = { getEnterOptionsSync: () => ({ scene: 1007, path: 'pages/authorize/authorize', query }) }
  const page = await (await opened('authorize')).shows('请从小程序内打开网页')
  page.call('onLoad', query)
  await page.shows('请从小程序内打开网页')
  assert.equal(page.all('site').length, 0)
  assert.equal(demo.phone.count('POST /v1/me/authorizations'), 0)
})
