// A native shop, as mini_program.mjs of examples/phone runs it: see docs/build/mini-program.md, "In Node or CI".
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { fates, Phone } from '../../../examples/phone/phone.mjs'

const { SERVICE_URL, WECHAT_URL, ORDERS_URL, APP_ID } = process.env
const CLIENT = fileURLToPath(new URL('../../../clients/miniprogram/wxauth.js', import.meta.url))
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
const FILES = {
  'app.json': '{ "pages": ["pages/cart/cart", "pages/login/login"] }',
  'app.js': `const { auth } = require('auth.js')
App({ globalData: { title: 'shop' }, onLaunch() { this.started = auth.login() } })`,
  'auth.js': `const { createAuth } = require('./wxauth.js')
exports.auth = createAuth({ baseURL: '${SERVICE_URL}', origins: ['${ORDERS_URL}'] })`,
  'pages/cart/cart.js': `const { auth } = require('../../auth')
const { price } = require('/utils/price.js')
const local = require('local.js')
Page({
  data: { goods: [{ count: 1 }], user: null },
  async onLoad({ id }) {
    this.setData({ id, 'goods[0].count': 2, price: price(100), local, title: getApp().globalData.title })
    const { data } = await auth.request({ url: '${ORDERS_URL}/orders' })
    this.setData({ orders: data }, () => this.loaded())
  },
  toLogin() { wx.navigateTo({ url: '../login/login?from=cart%20x', success: () => this.went = true }) },
  async setAvatar(event) { this.setData({ user: await auth.setAvatar(event) }) },
})`,
  'pages/cart/local.js': 'module.exports = 7',
  'pages/login/login.js': `Component({
  properties: { from: String, size: { type: Number, value: 3 } },
  data: { shown: false },
  lifetimes: {
    attached() { this.setData({ attached: true }) },
    ready() { this.setData({ gotAtReady: this.data.got }) },
  },
  pageLifetimes: { show() { this.setData({ shown: true }) } },
  methods: {
    onLoad({ from }) { this.setData({ got: from, depth: getCurrentPages().length }) },
    done() { this.triggerEvent('done', { ok: true }); wx.navigateBack() },
  },
})`,
  'components/total/total.js': `Component({
  data: { add: (n) => n + 1, rows: [{ n: 1, add: (n) => n + 2 }], since: new Date(0), none: null },
})`,
  'utils/price.js': `const money = require('money')
exports.price = (fen) => money(fen)`,
  'miniprogram_npm/money/index.js': `module.exports = (fen) => '¥' + fen / 100`,
  'libs/engine.js': 'var engine = { name: "laya" }; class Sprite {}',
}

const folder = mkdtempSync(join(tmpdir(), 'shop-'))
after(() => rmSync(folder, { recursive: true }))
for (const [name, text] of Object.entries(FILES)) {
  mkdirSync(dirname(join(folder, name)), { recursive: true })
  writeFileSync(join(folder, name), text)
}
cpSync(CLIENT, join(folder, 'wxauth.js'))

const shown = []
const phone = new Phone({ wechat: WECHAT_URL, person: 'native', appId: APP_ID })
const shop = new MiniProgram(folder, phone, { showToast: (options) => shown.push(options.title) })
let cart

test('its pages run as WeChat runs them, with its modules and packages', async () => {
  const app = shop.launch()
  await app.started
  const loaded = new Promise((resolve) => {
    shop.require('pages/cart/cart.js')
    shop.defined.loaded = resolve
  })
  cart = shop.open('pages/cart/cart', { id: '1' })
  await loaded
  const { orders, ...data } = cart.data
  assert.deepEqual(data, { goods: [{ count: 2 }], user: null, id: '1', price: '¥1', local: 7, title: 'shop' })
  assert.equal(orders[0].item, 'oolong tea')
  assert.deepEqual(phone.calls.map(({ kind }) => kind), ['login', 'POST /v1/login', 'GET /orders'])
  assert.equal(globalThis.getApp(), app)
})

test('a page leads to a component, and back', () => {
  cart.toLogin()
  const login = shop.pages.at(-1)
  assert.deepEqual([cart.went, login.route], [true, 'pages/login/login'])
  const given = { from: 'cart x', size: 3, shown: true, attached: true, got: 'cart x', gotAtReady: 'cart x', depth: 1 }
  assert.deepEqual(login.data, { ...given, depth: 2 })
  assert.deepEqual(login.properties, login.data)
  login.done()
  assert.deepEqual([shop.pages, login.triggered], [[cart], [{ name: 'done', detail: { ok: true } }]])
  for (const way of ['redirectTo', 'reLaunch', 'switchTab']) globalThis.wx[way]({ url: '/pages/login/login' })
  assert.deepEqual(globalThis.getCurrentPages().map(({ route }) => route), ['pages/login/login'])
  assert.deepEqual(shop.component('pages/login/login', { size: 5, other: 1 }).data, { from: undefined, size: 5, shown: false, attached: true, gotAtReady: undefined })
})

test('each component has data of its own, which may have functions', () => {
  const [one, other] = [shop.component('components/total/total'), shop.component('components/total/total')]
  one.setData({ 'rows[0].n': 5 })
  assert.deepEqual([one.data.rows[0].n, other.data.rows[0].n], [5, 1])
  assert.deepEqual([other.data.add(1), other.data.rows[0].add(1), other.data.since, other.data.none], [2, 3, new Date(0), null])
})

test('a picture is uploaded, what is shown is seen, and the network fails on demand', async () => {
  phone.files.set('http://tmp/1.png', PNG)
  await cart.setAvatar({ detail: { avatarUrl: 'http://tmp/1.png' } })
  assert.match(cart.data.user.avatar_url, /^http/)
  globalThis.wx.showToast({ title: '已保存' })
  assert.deepEqual(shown, ['已保存'])
  phone.next('UPLOAD /v1/me/avatar', fates.answerLost)
  await assert.rejects(cart.setAvatar({ detail: { avatarUrl: 'http://tmp/1.png' } }), { code: 'network_error' })
})

test('what does nothing succeeds, by callback and by promise', async () => {
  const { wx } = globalThis
  assert.equal(await new Promise((success) => wx.showModal({ success: ({ confirm }) => success(confirm) })), true)
  assert.equal((await wx.hideLoading()).errMsg, 'ok')
  assert.equal(wx.getAccountInfoSync().miniProgram.appId, APP_ID)
  wx.clearStorageSync()
  assert.equal(phone.storage.size, 0)
})

test('a script that is no module declares what is global', () => {
  shop.script('libs/engine.js')
  assert.equal(new Function('return engine.name + typeof Sprite')(), 'layafunction')
})

test('what is in no place is not found', () => {
  writeFileSync(join(folder, 'broken.js'), "require('nothing.js')")
  assert.throws(() => shop.require('broken.js'), { code: 'MODULE_NOT_FOUND' })
})

test('a request over https fails, because the phone speaks only http', async () => {
  const { errMsg } = await new Promise((fail) => wx.request({ url: 'https://statistics.test/', fail }))
  assert.equal(errMsg, 'request:fail only http is simulated here')
})
