// Functions of `wx` that the simulated phone doesn't have: each warns once by its name, and none stops a project.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { Phone } from '../../../examples/phone/phone.mjs'

const TYPINGS = readFileSync(new URL('../node_modules/miniprogram-api-typings/types/wx/lib.wx.api.d.ts', import.meta.url), 'utf8')
const [, MEMBERS] = /^    interface Wx \{$([^]*?)^    \}$/m.exec(TYPINGS.replace(/\/\*\*[^]*?\*\//g, ''))
const SIGNATURES = [...MEMBERS.matchAll(/^        (\w+)([(<][^]*?)(?=^        \w|$(?![^]))/gm)].map(([, name, text]) => [name, text])
const NAMES = [...new Set(SIGNATURES.map(([name]) => name))]
/** The names of functions whose type says that they return a promise. */
const ASYNCHRONOUS = [...new Set(SIGNATURES.filter(([, text]) => /PromisifySuccessResult|\): Promise</.test(text)).map(([name]) => name))]
/** These reach a server, so other tests call them. */
const NETWORK = ['request', 'uploadFile', 'downloadFile', 'login']

const root = mkdtempSync(join(tmpdir(), 'unknown-'))
after(() => rmSync(root, { recursive: true }))

function project(t, wx) {
  const warnings = []
  t.mock.method(console, 'warn', (text) => warnings.push(text))
  const phone = new Phone({ wechat: 'http://127.0.0.1:1', person: 'alice', appId: 'wx0' })
  const shop = new MiniProgram(root, phone, wx)
  shop.open = () => {} // navigation finds no page here
  return { phone, warnings, wx: globalThis.wx }
}

const ARGUMENTS = { navigateTo: { url: '/a' }, redirectTo: { url: '/a' }, switchTab: { url: '/a' }, reLaunch: { url: '/a' } }
const argumentOf = (name) => ARGUMENTS[name] || (/canIUse|Base64|ToArrayBuffer/.test(name) ? 'AAAA' : name === 'nextTick' ? () => {} : {})

test('the typings have the functions that shops use', () => {
  assert.ok(NAMES.length > 400 && ASYNCHRONOUS.length > 100, `${NAMES.length}, ${ASYNCHRONOUS.length}`)
  for (const name of ['checkIsAddedToMyMiniProgram', 'createAnimation', 'setTabBarStyle', 'createSelectorQuery'])
    assert.ok(NAMES.includes(name))
})

test('no function of WeChat throws, and each that is not simulated warns once, by its name', async (t) => {
  const { wx, warnings } = project(t)
  for (const name of NAMES.filter((name) => !NETWORK.includes(name)))
    for (const again of [1, 2]) {
      const result = wx[name](argumentOf(name), again)
      if (result && result.then) await result.catch((error) => assert.ok(error.errMsg)) // getStorage of what is not stored
    }
  const warned = warnings.map((text) => /^wx\.(\w+) is not simulated/.exec(text)[1])
  assert.equal(new Set(warned).size, warned.length)
  for (const name of warned) assert.ok(NAMES.includes(name), name)
  assert.ok(warned.includes('checkIsAddedToMyMiniProgram') && !warned.includes('showToast'))
})

test('the phone has a model and a safe area, which shops read at the launch', (t) => {
  const { wx } = project(t)
  const { model, system, safeArea, screenHeight } = wx.getSystemInfoSync()
  assert.match(model, /^iPhone /)
  assert.match(system, /^iOS /)
  assert.equal(safeArea.bottom, screenHeight)
})

test('an asynchronous function calls success and complete later, or returns a promise', async (t) => {
  const { wx, warnings } = project(t)
  const isUnknown = (name) => !Object.keys(wx).includes(name) && !/^(on|off)[A-Z]/.test(name)
  const names = ASYNCHRONOUS.filter((name) => isUnknown(name) && !NETWORK.includes(name))
  assert.ok(names.length > 80, String(names.length))
  for (const name of names) {
    assert.deepEqual(await wx[name]({}), { errMsg: `${name}:ok` }, name)
    assert.deepEqual(await wx[name](), { errMsg: `${name}:ok` }, name)
    const called = []
    const note = (what) => (result) => called.push([what, result.errMsg])
    const returned = wx[name]({ success: note('success'), fail: note('fail'), complete: note('complete') })
    assert.deepEqual([returned, called], [undefined, []], name)
    await new Promise(setImmediate)
    assert.deepEqual(called, [['success', `${name}:ok`], ['complete', `${name}:ok`]])
  }
  assert.equal(warnings.length, names.length)
})

test('objects can be chained, asked and awaited', async (t) => {
  const { wx } = project(t)
  const actions = wx.createAnimation({ duration: 200 }).opacity(0).translateY(10).step().export()
  assert.deepEqual(actions, { actions: [] })
  const found = await new Promise((done) => {
    const query = wx.createSelectorQuery().in({})
    const heights = []
    query.select('#a').boundingClientRect(({ height }) => heights.push(height))
    query.selectAll('.b').fields({ size: true }, (all) => heights.push(all.length))
    query.selectViewport().scrollOffset()
    query.exec((all) => done([heights, all.length, all[0].width, all[1], all[2].scrollTop]))
  })
  assert.deepEqual(found, [[0, 0], 3, 0, [], 0])
  const audio = wx.createInnerAudioContext()
  audio.src = 'http://tmp/1.mp3'
  audio.onEnded(() => assert.fail('nothing is played'))
  audio.play()
  assert.equal(audio.src, 'http://tmp/1.mp3')
  const advertisement = wx.createRewardedVideoAd({ adUnitId: 'x' })
  await advertisement.load().then(() => advertisement.show())
  assert.ok(await (async () => wx.createVideoContext('v'))())
  await new Promise((complete) => wx.getFileSystemManager().readFile({ filePath: 'f', complete }))
  wx.cloud.init({ env: 'x' })
  wx.createIntersectionObserver({}).relativeToViewport().observe('.a', () => assert.fail('nothing is seen'))
})

test('what returns at once returns something empty, and listeners are never called', async (t) => {
  const { wx } = project(t)
  assert.deepEqual([wx.getExtConfigSync(), wx.getBatteryInfoSync(), wx.getSystemSetting()], [{}, {}, {}])
  assert.equal(wx.onBLEConnectionStateChange(() => assert.fail('no device')), undefined)
  assert.equal(wx.offBLEConnectionStateChange(), undefined)
  assert.equal(Buffer.from(wx.base64ToArrayBuffer(wx.arrayBufferToBase64(Buffer.from('茶')))).toString(), '茶')
  await new Promise(setImmediate)
})

test('canIUse says what the phone can do', (t) => {
  const { wx } = project(t, { getLocation() {} })
  const yes = ['login', 'request.object.timeout', 'getLocation', 'createSelectorQuery', 'button.open-type.getPhoneNumber', 'web-view', 'scroll-view']
  const no = ['logni', 'reqeust', 'logIn', 'showtoast', 'shwoToast', 'buton', 'toString.x', '']
  assert.deepEqual([...yes, ...NAMES, ...no].filter((name) => wx.canIUse(name)), [...yes, ...NAMES])
})

test('a misspelt function warns by its name, and names of the project itself are not functions', async (t) => {
  const { wx, warnings } = project(t)
  await wx.logni({})
  assert.match(warnings[0], /^wx\.logni is not simulated.* correct the name\.$/)
  assert.deepEqual([wx.$store, wx._cache, wx.then, wx.Store], [undefined, undefined, undefined, undefined])
  wx.shopName = 'tea'
  assert.equal(wx.shopName, 'tea')
  assert.equal(await (async () => wx)(), wx)
  assert.equal(warnings.length, 1)
})

test('the storage has JSON, and JSON of JSON where the project stores JSON', (t) => {
  const { wx, phone } = project(t)
  wx.setStorageSync('cart', JSON.stringify({ tea: 2 }))
  assert.deepEqual(JSON.parse(JSON.parse(phone.storage.get('cart'))), { tea: 2 })
})

test('a page has queries of its own', async (t) => {
  project(t)
  const shop = new MiniProgram(root, new Phone({ wechat: 'http://127.0.0.1:1', person: 'a', appId: 'wx0' }))
  shop.definitions.p = { onLoad() { this.createSelectorQuery().select('#a').boundingClientRect((rect) => (this.rect = rect)).exec() } }
  const page = shop.open('p')
  await new Promise(setImmediate)
  assert.equal(page.rect.height, 0)
})
