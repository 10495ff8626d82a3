// examples/uni-app-vue2 on a phone, built by its own toolchain. See tests/foreign/test_uni_app_vue2.py.
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { Phone } from '../../../examples/phone/phone.mjs'
import { isGood, newPerson } from '../miniprogram/world.js'

const { BUILT, SERVICE_URL, WECHAT_URL, ORDERS_URL, APP_ID } = process.env
const PATIENCE = 60000

let folder, phone, shop, profile
const toasts = []

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'uni-app-'))
  cpSync(BUILT, folder, { recursive: true })
  const scripts = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.js'))
  const person = newPerson()
  for (const [written, meant] of [
    ['http://127.0.0.1:8000', SERVICE_URL],
    ['http://127.0.0.1:8001', WECHAT_URL],
    ['http://127.0.0.1:8002', ORDERS_URL],
    ['alice', person],
  ]) {
    const texts = scripts.map((name) => [join(folder, name), readFileSync(join(folder, name), 'utf8')])
    const found = texts.filter(([, text]) => text.includes(written))
    assert.ok(found.length, `${written} is in the built files`)
    for (const [path, text] of found) writeFileSync(path, text.replaceAll(written, meant))
  }
  phone = new Phone({ wechat: WECHAT_URL, person, appId: APP_ID })
  shop = new MiniProgram(folder, phone, { showToast: ({ title }) => toasts.push(title) })
  shop.launch()
  profile = shop.open('pages/profile/profile')
})
after(() => rmSync(folder, { recursive: true }))

async function until(condition) {
  const deadline = Date.now() + PATIENCE
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'waited in vain')
    await sleep(5)
  }
}

/** Fires an event on the element that calls this method, as WeChat does. */
function fire(page, method, type = 'tap', detail = {}) {
  const event = { type, detail, currentTarget: { dataset: { eventOpts: [[type, [[method, ['$event']]]]] } } }
  page.__e(event)
}

test('it logs in at the launch, and its page shows the user', async () => {
  await until(() => profile.data.user)
  assert.equal(phone.count('POST /v1/login'), 1)
  assert.ok(await isGood(await profile.$vm.$auth.getToken()))
  assert.deepEqual(toasts, [])
})

test('its requests carry the token to the other service', async () => {
  fire(profile, 'openOrders')
  const orders = shop.pages.at(-1)
  assert.equal(orders.route, 'pages/orders/orders')
  await until(() => orders.data.orders.length)
  assert.deepEqual(
    orders.data.orders.map(({ item }) => item),
    ['oolong tea'],
  )
  assert.deepEqual(toasts, [])
})

test('the phone button of the simulation binds a number, which the page shows', async () => {
  fire(profile, 'bindPhone', 'getphonenumber', { code: 'from the developer tools' })
  await until(() => profile.data.user.phone)
  assert.match(profile.data.user.phone, /^\+86138\d{8}$/)
})

test('a logout takes the user from the page', async () => {
  fire(profile, 'signOut')
  await until(() => !profile.data.user)
})
