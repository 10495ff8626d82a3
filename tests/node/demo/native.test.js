// A native shop, run by mini_program.mjs of examples/phone. See docs/build/mini-program-recipes.md, "In Node or CI".
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MiniProgram, taro } from '../../../examples/phone/mini_program.mjs'
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
  'miniprogram_npm/ui/button/index.js': `Component({ data: { of: 'ui' } })`,
  'custom-tab-bar/index.js': `Component({ data: { selected: 0 }, methods: { select(n) { this.setData({ selected: n }) } } })`,
  'pages/tabs/tabs.js': `Page({
  onShow() { this.getTabBar().select(2); this.total = this.selectComponent('#total') },
})`,
  'pages/tabs/tabs.json': '{ "usingComponents": { "my-buy": "/components/buy/buy", "my-total": "../../components/total/total", "ui-button": "ui/button/index" } }',
  'pages/tabs/tabs.wxml': `<view id="top" class="total"><my-total wx:if="{{a > 1}}" class="big  sum" id="total" /></view>
<ui-button class="pay" /><my-total class='sum' /><my-buy id="offer" />`,
  // Taro generates such a page: a tree of elements, and one function for all events.
  'pages/taro/taro.js': `Page({
  data: { root: { cn: [{ sid: '_A', cl: 'page', cn: [
    { sid: '_B', uid: 'own', cl: 'big pay', cn: [{ sid: '_C', v: 'Pay' }, { sid: '_D', v: '7' }] },
    { sid: '_E', cl: 'name', cn: [] },
  ] }] } },
  onLoad() { this.seen = [] },
  eh({ type, detail, target, currentTarget }) { this.seen.push([type, detail, target.dataset.sid, currentTarget.id]) },
})`,
  // uni-app compiles `<script setup>` to such a component: the markup reads the names of the handlers from the data.
  'components/buy/buy.js': `Component({
  data: { m: 'e0', a: { n: 'e1' }, bought: [] },
  methods: {
    e0(event) { this.setData({ bought: [event.type, event.detail, event.target.id] }); return 'tapped' },
    e1({ detail }) { this.setData({ bought: detail }) },
    plain() { this.setData({ bought: 'plain' }) },
  },
})`,
  'components/buy/buy.wxml': `<view wx:if="{{a > 1}}"><button class="{{['big', c]}}" /><button id="pay" class="buy data-v-1" bindtap="{{m}}">b</button>
<input class="count" bind:input="{{ a.n }}" /><view class="stop" catch:tap="plain" bindlongpress="{{gone}}" /></view>`,
  'pages/window/window.js': `Page({
  data: { isBrowser: window != null || typeof document !== 'undefined' || typeof self === 'object' || (location && 1) },
})`,
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
  Date.now = phone.now
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

test('the clock of the phone is the clock of the client', async () => {
  const request = () => shop.require('auth.js').auth.request({ url: `${ORDERS_URL}/orders` })
  const before = phone.count('POST /v1/refresh')
  await request()
  assert.equal(phone.count('POST /v1/refresh'), before)
  phone.time += 3600 * 1000
  await request()
  assert.equal(phone.count('POST /v1/refresh'), before + 1)
})

test('WeChat rejects logins and phone numbers on demand, and the user refuses a number', async () => {
  const { auth } = shop.require('auth.js')
  const rejected = async (fault) => {
    const answer = await fetch(`${WECHAT_URL}/faults`, { method: 'POST', body: JSON.stringify(fault) })
    assert.equal(answer.status, 200)
    return auth.login({ force: true })
  }
  await assert.rejects(rejected({ api: 'code2session', errcode: 40226 }), { code: 'wechat_user_blocked', status: 403 })
  assert.equal((await rejected({ api: 'code2session', errcode: 40029 })).openid, auth.user.openid)
  await assert.rejects(rejected({ api: 'code2session', errcode: 40029, times: 2 }), { code: 'invalid_code' })
  await assert.rejects(auth.bindPhone({ detail: { code: 'errcode-40029' } }), { code: 'invalid_code' })
  const refusal = { errno: 103, errMsg: 'getPhoneNumber:fail user deny' }
  await assert.rejects(auth.bindPhone({ detail: refusal }), { code: 'phone_refused', status: null })
})

test('what does nothing succeeds, by callback and by promise', async () => {
  const { wx } = globalThis
  assert.equal(await new Promise((success) => wx.showModal({ success: ({ confirm }) => success(confirm) })), true)
  assert.equal((await wx.hideLoading()).errMsg, 'ok')
  assert.equal(wx.getAccountInfoSync().miniProgram.appId, APP_ID)
  wx.clearStorageSync()
  assert.equal(phone.storage.size, 0)
})

test('what a start often asks of the phone is there', async () => {
  const { wx } = globalThis
  const answer = (name, options) => new Promise((success, fail) => wx[name]({ ...options, success, fail }))
  await answer('setStorage', { key: 'k', data: { n: 1 } })
  assert.deepEqual((await answer('getStorage', { key: 'k' })).data, { n: 1 })
  assert.deepEqual([wx.getStorageInfoSync().keys, (await wx.getStorageInfo()).keys], [['k'], ['k']])
  await answer('removeStorage', { key: 'k' })
  await assert.rejects(wx.getStorage({ key: 'k' }), { errMsg: 'getStorage:fail data not found' })
  await assert.rejects(answer('getStorage', { key: 'k' }), { errMsg: 'getStorage:fail data not found' })
  await wx.clearStorage()
  for (const name of ['onAppShow', 'onAppHide', 'offAppShow', 'onNetworkStatusChange']) wx[name](() => assert.fail('called'))
  for (const name of ['getWindowInfo', 'getSystemInfoSync']) assert.equal(wx[name]().windowWidth, 375, name)
  assert.equal((await wx.getSystemInfo()).language, wx.getAppBaseInfo().language)
  assert.equal((await answer('getNetworkType')).networkType, 'wifi')
  assert.equal(wx.canIUse('getUserProfile'), true)
  wx.getUpdateManager().onUpdateReady(() => {})
  await new Promise((resolve) => wx.nextTick(resolve))
})

test('a page finds its components by id and class, and the tab bar of the project', () => {
  const tabs = shop.open('pages/tabs/tabs')
  assert.equal(tabs.getTabBar().data.selected, 2)
  assert.equal(tabs.total.route, 'components/total/total')
  assert.equal(tabs.selectComponent('#total'), tabs.total)
  assert.equal(tabs.selectComponent('.sum').route, 'components/total/total')
  assert.equal(tabs.selectComponent('.pay').data.of, 'ui')
  for (const none of ['#nothing', '.nothing', '#top', '.total']) assert.equal(tabs.selectComponent(none), null, none)
})

test('what is inside a component is tapped by class or id, also if the data names its handlers', () => {
  const offer = shop.open('pages/tabs/tabs').selectComponent('#offer')
  assert.equal(shop.fire(offer, '.buy'), 'tapped')
  assert.deepEqual(offer.data.bought, ['tap', {}, 'pay'])
  shop.fire(offer, '#pay', 'tap', { x: 1 })
  assert.deepEqual(offer.data.bought, ['tap', { x: 1 }, 'pay'])
  shop.fire(offer, '.count', 'input', { value: '2' })
  assert.deepEqual(offer.data.bought, { value: '2' })
  shop.fire(offer, '.stop')
  assert.equal(offer.data.bought, 'plain')
  assert.throws(() => shop.fire(offer, '.nothing'), /buy\.wxml has no element \.nothing/)
  for (const [selector, type] of [['.buy', 'input'], ['.stop', 'longpress']])
    assert.throws(() => shop.fire(offer, selector, type), new RegExp(`has no handler for ${type}`))
})

test("a browser's names are there and undefined", () => {
  assert.equal(shop.open('pages/window/window').data.isBrowser, undefined)
  for (const name of ['window', 'document', 'self', 'location', 'XMLHttpRequest', 'webkit', 'WeixinJSCore'])
    assert.equal(new Function(`return ${name}`)(), undefined, name)
})

test('a page of Taro is read, and touched by class or text', () => {
  const page = shop.open('pages/taro/taro')
  assert.deepEqual(taro.texts(page), ['Pay', '7'])
  taro.fire(page, 'pay')
  taro.fire(page, 'Pay', 'longpress')
  taro.fire(page, 'name', 'input', { value: 'Tom' })
  assert.deepEqual(page.seen, [
    ['tap', {}, '_B', 'own'],
    ['tap', {}, '_B', '_A'],
    ['longpress', {}, '_B', 'own'],
    ['longpress', {}, '_B', '_A'],
    ['input', { value: 'Tom' }, '_E', '_E'],
  ])
  assert.throws(() => taro.fire(page, 'gone'), /gone/)
})

test('a file is downloaded with the header that is given, to the place that is given', async () => {
  const download = (options) => new Promise((success, fail) => globalThis.wx.downloadFile({ ...options, success, fail }))
  const header = { Authorization: `Bearer ${await shop.require('auth.js').auth.getToken()}` }
  const { statusCode, tempFilePath } = await download({ url: `${ORDERS_URL}/orders`, header })
  assert.match(`${statusCode} ${phone.files.get(tempFilePath)}`, /^200 .*oolong tea/)
  const refused = await download({ url: `${ORDERS_URL}/orders`, filePath: 'wxfile://usr/1' })
  assert.deepEqual([refused.statusCode, refused.filePath, phone.count('DOWNLOAD /orders')], [401, 'wxfile://usr/1', 2])
  phone.next('DOWNLOAD /orders', fates.notSent)
  await assert.rejects(download({ url: `${ORDERS_URL}/orders` }), ({ errMsg }) => /^downloadFile:fail errcode:-106/.test(errMsg))
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
