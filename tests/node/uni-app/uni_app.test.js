// examples/uni-app on a phone, built by its own toolchain. See tests/foreign/test_uni_app.py.
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { Phone } from '../../../examples/phone/phone.mjs'
import { isGood, newPerson } from '../miniprogram/world.js'

const { BUILT, SERVICE_URL, WECHAT_URL, ORDERS_URL, APP_ID } = process.env
const require = createRequire(import.meta.url)
const PATIENCE = 60000

let folder, phone
const toasts = []
const built = (name) => require(join(folder, name))

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'uni-app-'))
  cpSync(BUILT, folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }')
  let config = readFileSync(join(folder, 'config.js'), 'utf8')
  const person = newPerson()
  for (const [written, meant] of [
    ['http://127.0.0.1:8000', SERVICE_URL],
    ['http://127.0.0.1:8001', WECHAT_URL],
    ['http://127.0.0.1:8002', ORDERS_URL],
    ['alice', person],
  ]) {
    assert.ok(config.includes(written), `${written} is in config.js`)
    config = config.replaceAll(written, meant)
  }
  writeFileSync(join(folder, 'config.js'), config)

  phone = new Phone({ wechat: WECHAT_URL, person, appId: APP_ID })
  const wx = {
    ...phone.wx,
    getLaunchOptionsSync: () => ({ path: 'pages/profile/profile', query: {}, scene: 1001 }),
    getSystemInfoSync: () => ({ platform: 'ios', language: 'zh_CN', SDKVersion: '3.9.0', pixelRatio: 2, windowWidth: 375 }),
    canIUse: () => true,
    showToast: ({ title }) => toasts.push(title),
  }
  let app
  Object.assign(globalThis, { wx, getApp: () => app, App: (made) => (app = made), Page: () => {}, Component: () => {} })
  built('app.js')
  app.onLaunch({})
})
after(() => rmSync(folder, { recursive: true }))

async function until(condition) {
  const deadline = Date.now() + PATIENCE
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'waited in vain')
    await sleep(5)
  }
}

test('it logs in silently at the start', async () => {
  const { auth } = built('auth.js')
  await until(() => auth.user)
  assert.ok(await isGood(await auth.getToken()))
  assert.equal(phone.count('POST /v1/login'), 1)
  assert.deepEqual(toasts, [])
})

test('its requests carry the token to the other service', async () => {
  const { fetched } = built('auth.js')
  assert.deepEqual(
    (await fetched({ url: `${ORDERS_URL}/orders` })).map(({ item }) => item),
    ['oolong tea'],
  )
})

test('the phone button of the simulation binds a number, which the client tells everybody', async () => {
  const { auth } = built('auth.js')
  const told = []
  auth.onChange((user) => told.push(user && user.phone))
  await auth.bindPhone(await built('simulated.js').simulatedPhoneCode(built('config.js').simulated))
  assert.match(told.at(-1), /^\+86138\d{8}$/)
})

test('its pages have the buttons that WeChat wants', () => {
  const page = readFileSync(join(folder, 'pages/profile/profile.wxml'), 'utf8')
  for (const part of [
    /open-type="chooseAvatar" bindchooseavatar=/,
    /type="nickname" name="nickname"/,
    /open-type="getPhoneNumber" bindgetphonenumber=/,
  ])
    assert.match(page, part)
})
