// The phone's part of a scan, with the real service.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, beforeEach, test } from 'node:test'
import { parse } from 'acorn'
import { AuthError } from '../../../clients/miniprogram/wxauth.js'
import { approve, claim, deny, scanOf, scanSeen } from '../../../clients/miniprogram/wxauth-scan.js'
import { exchange, fates } from '../../../examples/phone/phone.mjs'
import { ask, checkError, newPerson, pass, rejection, SERVICE_URL, start } from './world.js'

const SOURCE = readFileSync(new URL('../../../clients/miniprogram/wxauth-scan.js', import.meta.url), 'utf8')
const CAMERA = 1047
const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

let site
before(async () => {
  const { status, body } = await ask('POST', '/controls/sites', { body: { user_code: true } })
  assert.equal(status, 200)
  site = body
})

let entry
beforeEach(() => {
  entry = { scene: CAMERA }
  globalThis.wx = { getEnterOptionsSync: () => entry }
})

/** Send a request of the site as a form. */
async function siteAsks(path, form = {}, { client_id, client_secret } = site) {
  const authorization = `Basic ${Buffer.from(`${client_id}:${client_secret}`).toString('base64')}`
  const header = { authorization, 'content-type': 'application/x-www-form-urlencoded' }
  const answer = await exchange(SERVICE_URL + path, 'POST', header, new URLSearchParams(form).toString())
  return { status: answer.statusCode, body: JSON.parse(answer.body) }
}

async function shown(browser_ip = '203.0.113.7', at = site) {
  const { body } = await siteAsks('/v1/device_authorization', { browser_ip }, at)
  return { ...body, scene: body.verification_uri_complete.split('/').pop() }
}

const poll = ({ device_code }) => siteAsks('/v1/token', { grant_type: GRANT, device_code })

test('it is one module beside the client, for old phones too', () => {
  const { body } = parse(SOURCE, { ecmaVersion: 2018, sourceType: 'module' })
  const imports = body.filter((node) => node.type === 'ImportDeclaration').map((node) => node.source.value)
  assert.deepEqual(imports, ['./wxauth.js'])
})

test('a code that was scanned is claimed and approved, and the site has a session', async () => {
  const { auth } = start()
  const code = await shown()
  const claimed = await claim(auth, scanOf({ scene: encodeURIComponent(code.scene) }))
  assert.deepEqual(claimed.client, { id: 'shop', title: '示例商店', origin: 'https://shop.example.com', host: null, local: false })
  assert.deepEqual(claimed.browser, { device: null, ip: '203.0.113.7' })
  assert.equal(claimed.typed, false)
  assert.equal(await approve(auth, claimed), undefined)
  const { status, body } = await poll(code)
  assert.equal(status, 200)
  const { sub } = JSON.parse(Buffer.from(body.access_token.split('.')[1], 'base64url'))
  assert.equal(sub, auth.user.id)
})

test('a yes takes a new wx.login, and another one where WeChat refuses its code', async () => {
  const { auth, phone } = start()
  const claimed = await claim(auth, scanOf({ scene: (await shown()).scene }))
  const url = `POST /v1/me/scans/${claimed.id}/approve`
  phone.next('login', async (send) => {
    const { code } = await send()
    assert.equal((await ask('POST', '/v1/login', { body: { code } })).status, 200) // another request uses up the code
    return { code }
  })
  await approve(auth, claimed)
  assert.equal(phone.count('login'), 3)
  assert.equal(phone.count(url), 2)
  await approve(auth, claimed) // approving again isn't an error
  assert.equal(phone.count(url), 3)
})

test('a yes whose answer is lost is sent once more, and counts', async () => {
  const { auth, phone } = start()
  const code = await shown()
  const claimed = await claim(auth, scanOf({ scene: code.scene }))
  phone.next(`POST /v1/me/scans/${claimed.id}/approve`, fates.answerLost)
  await approve(auth, claimed)
  assert.equal((await poll(code)).status, 200)
})

test('a yes of another person at this WeChat is refused, and asked for once', async () => {
  const { auth, phone } = start()
  const code = await shown()
  const claimed = await claim(auth, scanOf({ scene: code.scene }))
  phone.person = newPerson()
  assert.equal((await rejection(approve(auth, claimed), 'wrong_person')).status, 403)
  assert.equal(phone.count(`POST /v1/me/scans/${claimed.id}/approve`), 1)
  phone.next('login', ...Array(2).fill(fates.throws(new Error('no WeChat'))))
  await rejection(approve(auth, claimed), 'wx_login_failed')
  assert.equal((await poll(code)).body.error, 'authorization_pending')
})

test('a page of a captive portal is neither a yes nor a no', async () => {
  const { auth, phone } = start()
  const claimed = await claim(auth, scanOf({ scene: (await shown()).scene }))
  for (const [name, verdict] of Object.entries({ approve, deny })) {
    phone.next(`POST /v1/me/scans/${claimed.id}/${name}`, fates.answers(200, '<html>请登录 Wi-Fi</html>'))
    await rejection(verdict(auth, claimed), 'http_error')
  }
})

test('what was refused is refused', async () => {
  const { auth } = start()
  const code = await shown()
  const claimed = await claim(auth, scanOf({ scene: code.scene }))
  await deny(auth, claimed)
  assert.equal((await poll(code)).body.error, 'access_denied')
  await rejection(approve(auth, claimed), 'scan_over')
})

test('the console wants a fresh login of an administrator, which the phone makes by itself', async () => {
  const asked = { name: 'console', scopes: ['wxauth:admin'] }
  const { body: console } = await ask('POST', '/controls/sites', { body: asked })
  const { auth, phone } = start()
  const { id: user_id } = await auth.login()
  await ask('POST', '/controls/administrators', { body: { user_id } })
  await claim(auth, scanOf({ scene: (await shown('127.0.0.1', console)).scene }))
  assert.equal(phone.count('login'), 1)
  await pass(phone, 3601)
  const claimed = await claim(auth, scanOf({ scene: (await shown('127.0.0.1', console)).scene }))
  assert.equal(phone.count('login'), 2)
  await approve(auth, claimed)
})

test('a link says when it was scanned', async () => {
  const { auth, phone } = start()
  const code = await shown()
  const q = encodeURIComponent(code.verification_uri_complete)
  const now = await pass(phone, 0).then(() => ask('POST', '/controls/clock', { body: { seconds: 0 } }))
  const scan = scanOf({ q, scancode_time: `${Math.floor(now.body.now)}` })
  assert.deepEqual(scan, {
    url: code.verification_uri_complete,
    scancode_time: Math.floor(now.body.now),
    entry_scene: CAMERA,
  })
  await rejection(claim(auth, { ...scan, scancode_time: 1 }), 'scan_forwarded')
  assert.ok((await claim(auth, { ...scan, url: scan.url })).id)
})

test('how the page was opened counts only where it was opened by this code', async () => {
  const scene = 'a'.repeat(22)
  entry = { scene: CAMERA, query: { scene } }
  assert.deepEqual(scanOf({ scene }), { scene, entry_scene: CAMERA })
  entry = { scene: CAMERA, query: {} } // a camera opened the mini-program earlier, but another page of it leads here
  assert.deepEqual(scanOf({ scene }), { scene })
  entry = { scene: CAMERA, query: { scene: 'b'.repeat(22) } }
  assert.deepEqual(scanOf({ scene }), { scene })
  entry = undefined // the host doesn't know how it was opened
  assert.deepEqual(scanOf({ scene }), { scene })
  globalThis.wx = {}
  assert.deepEqual(scanOf({ scene }), { scene })
})

test('a picture that somebody was sent is refused', async () => {
  const { auth } = start()
  const code = await shown()
  for (const number of [1007, 1008, 1012, 1013, 1048, 1049]) {
    entry = { scene: number }
    const error = await rejection(claim(auth, scanOf({ scene: code.scene })), 'scan_forwarded')
    assert.equal(error.status, 403)
  }
})

test('a code that the page itself reads by camera is good, of both kinds', async () => {
  const { auth } = start()
  entry = { scene: 1001 }
  for (const seen of [
    (code) => ({ scanType: 'WX_CODE', path: `pages/scan/scan?scene=${code.scene}` }),
    (code) => ({ scanType: 'QR_CODE', result: code.verification_uri_complete }),
    (code) => ({ scanType: 'QR_CODE', result: `wxa:wx1?page=pages/scan/scan&scene=${code.scene}&env=release` }),
  ]) {
    const scan = scanSeen(seen(await shown()))
    assert.equal(scan.scanned, 'camera')
    assert.ok((await claim(auth, scan)).id)
  }
})

test('a link to the page cannot say that a camera has seen its code', async () => {
  const { auth } = start()
  entry = { scene: 1037 } // another mini-program has opened the page
  const { scene, verification_uri_complete: result } = await shown()
  for (const more of [{ result }, { path: `pages/scan/scan?scene=${scene}` }, { scanned: 'camera', errMsg: 'scanCode:ok' }])
    await rejection(claim(auth, scanOf({ scene, ...more })), 'scan_forwarded')
  assert.equal(scanOf({ result }), null)
})

test('a typed code is told to be one', async () => {
  const { auth } = start()
  assert.equal((await claim(auth, { user_code: (await shown()).user_code })).typed, true)
})

test('without a code there is nothing to claim', async () => {
  const { auth } = start()
  for (const options of [undefined, {}, { scene: '' }, { other: '1' }]) assert.equal(scanOf(options) || scanSeen(options), null)
  await rejection(claim(auth, null), 'invalid_argument')
  const { message } = await rejection(claim(auth, 'ABCD-EFGH'), 'invalid_argument')
  assert.match(message, /write claim\(auth, { user_code: 'ABCD-EFGH' }\)/)
  await rejection(approve(auth, undefined), 'invalid_argument')
  await rejection(deny(auth, {}), 'invalid_argument')
  assert.equal(scanOf({ scene: '%' }).scene, '%')
})

test('what is no answer of the service is nothing to decide upon', async () => {
  for (const [status, data] of [[200, '<html>Log in to this Wi-Fi</html>'], [200, null], [502, { code: 502 }], [502, '']]) {
    const auth = { request: async () => ({ statusCode: status, data, header: {} }) }
    assert.equal((await rejection(claim(auth, { scene: 'x' }), 'http_error')).status, status)
  }
})

test('all that goes wrong is an AuthError', async () => {
  const { auth, phone } = start()
  await auth.login()
  const error = await rejection(claim(auth, { scene: 'x', entry_scene: CAMERA }), 'scan_over')
  checkError(error)
  for (let number = 0; number < 5; number += 1) await rejection(claim(auth, { user_code: 'x' }), 'scan_over')
  assert.equal((await rejection(claim(auth, { user_code: 'x' }), 'rate_limited')).retryAfter, 60)
  phone.isOnline = false
  await rejection(claim(auth, scanOf({ scene: 'x' })), 'network_error')
})

test('a link is read, and its approval resolves to a number, which the same code asks for again', async () => {
  for (const name of ['s', 'cq']) {
    entry = { scene: 1286, query: { [name]: 'kq0Vf5Zc3n8xYt1bW7uR2A' } }
    assert.deepEqual(scanOf({ [name]: 'kq0Vf5Zc3n8xYt1bW7uR2A' }), { scene: 'kq0Vf5Zc3n8xYt1bW7uR2A', entry_scene: 1286 })
    entry = { scene: 1286, query: { [name]: 'another' } } // another page has opened this page since then
    assert.deepEqual(scanOf({ [name]: 'kq0Vf5Zc3n8xYt1bW7uR2A' }), { scene: 'kq0Vf5Zc3n8xYt1bW7uR2A' })
  }
  const sent = []
  let made = 0
  const auth = {
    loginCode: async () => `code-${++made}`,
    async request({ data }) {
      sent.push(data.login_code)
      if (sent.length === 1) throw new AuthError('network_error') // the response was lost
      return { statusCode: 200, header: {}, data: { number: '482913', expires_in: 120 } }
    },
  }
  assert.deepEqual(await approve(auth, { id: 'x', link: true }), { number: '482913', expiresIn: 120 })
  assert.deepEqual(sent, ['code-1', 'code-1'])
})
