// The adapters of docs/build/mini-program-frameworks.md, with the libraries themselves in a simulated phone.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { fates, Phone } from '../../../examples/phone/phone.mjs'
import { APP_ID, isGood, listen, newPerson, SERVICE_URL, WECHAT_URL } from '../miniprogram/world.js'

const require = createRequire(import.meta.url)
const { ModuleKind, ScriptTarget, transpileModule } = require('typescript-5')
const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const REFRESH = 'POST /v1/refresh'
const PNG = 'http://tmp/1.png'

const compilerOptions = { module: ModuleKind.CommonJS, target: ScriptTarget.ES2018, esModuleInterop: true }
const compiled = (text) => transpileModule(text, { compilerOptions }).outputText
const MODULES = { 'luch.js': process.env.LUCH, 'http.js': process.env.AXIOS, 'shop.js': process.env.ALOVA }

let folder, shop, phone, auth
const requests = []
const closing = []

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'adapters-'))
  const server = await listen({ after: (close) => closing.push(close) }, (request) => {
    requests.push(request)
    const [status, body] = respond(request)
    return [status, { 'Content-Type': 'application/json', 'X-Here': 'yes' }, JSON.stringify(body)]
  })
  const write = (name, text) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  write('package.json', '{ "type": "commonjs" }')
  write('app.js', 'App({})')
  write('wxauth.js', compiled(readFileSync(here('../../../clients/miniprogram/wxauth.js'), 'utf8')))
  write('auth.js', compiled(`import { createAuth } from './wxauth.js'
    export const auth = createAuth({ baseURL: '${SERVICE_URL}', origins: ['${server.url}'], isRefused: ({ data }) => data.errno === 501 })`))
  for (const [name, text] of Object.entries(MODULES)) write(name, compiled(text.replaceAll('http://127.0.0.1:8002', server.url)))
  // as WeChat's "build npm" does
  const luch = here('../node_modules/luch-request/src/lib/')
  for (const name of readdirSync(luch, { recursive: true }).filter((each) => each.endsWith('.js')))
    write(join('miniprogram_npm/luch-request/src/lib', name), compiled(readFileSync(join(luch, name), 'utf8')))
  write('miniprogram_npm/luch-request/index.js', "module.exports = require('./src/lib/luch-request.js')")
  mkdirSync(join(folder, 'miniprogram_npm/axios'))
  cpSync(here('../node_modules/axios/dist/browser/axios.cjs'), join(folder, 'miniprogram_npm/axios/index.js'))
  symlinkSync(here('../node_modules'), join(folder, 'node_modules'))

  phone = new Phone({ wechat: WECHAT_URL, person: newPerson(), appId: APP_ID })
  phone.files.set(PNG, Buffer.from('png'))
  shop = new MiniProgram(folder, phone)
  shop.launch()
  auth = shop.require('auth.js').auth
  await auth.login()
})
after(() => {
  for (const close of closing) close()
  rmSync(folder, { recursive: true })
})

let respond
beforeEach(() => {
  requests.length = 0
  phone.calls.length = 0
  respond = ({ method, url }) => [200, { method, url }]
})

/** What each library calls: a request, its response's body and status, and the interceptors. */
const LIBRARIES = {
  luch: {
    http: () => shop.require('luch.js').http,
    ask: (http, method, url, data, params, header) => http.request({ url, method, data, params, header }),
    statusOf: (response) => response.statusCode,
    headerOf: (response) => response.header,
  },
  axios: {
    http: () => shop.require('http.js').http,
    ask: (http, method, url, data, params, headers) => http.request({ url, method, data, params, headers }),
    statusOf: (response) => response.status,
    headerOf: (response) => response.headers,
  },
}

for (const [name, { http: load, ask, statusOf, headerOf }] of Object.entries(LIBRARIES)) {
  test(`${name}: path, query, headers and body arrive with a good token, and the response comes back`, async () => {
    const http = load()
    const response = await ask(http, 'POST', '/orders', { tea: '乌龙' }, { page: 2, q: 'a b&c' }, { 'X-Mine': '1' })
    const [{ method, url, headers, body }] = requests
    const query = Object.fromEntries(new URL(url, 'http://x').searchParams)
    assert.deepEqual([method, new URL(url, 'http://x').pathname, query, headers['x-mine']], ['POST', '/orders', { page: '2', q: 'a b&c' }, '1'])
    assert.deepEqual(JSON.parse(body), { tea: '乌龙' })
    assert.ok(await isGood(/^Bearer (.+)$/.exec(headers.authorization)[1]))
    assert.deepEqual([statusOf(response), response.data.method, headerOf(response)['x-here']], [200, 'POST', 'yes'])
    await ask(http, 'GET', '/orders?a=1', undefined, { b: 2 })
    assert.deepEqual([requests[1].method, requests[1].url], ['GET', '/orders?a=1&b=2'])
  })

  test(`${name}: a 401 and a refusal in an envelope are sent once more with a new token`, async () => {
    for (const refusal of [[401, {}], [200, { errno: 501 }]]) {
      requests.length = 0
      respond = () => (requests.length === 1 ? refusal : [200, { ok: true }])
      const { data } = await ask(load(), 'GET', '/orders')
      assert.deepEqual([data, new Set(requests.map(({ headers }) => headers.authorization)).size], [{ ok: true }, 2])
    }
    assert.equal(phone.count(REFRESH), 2)
  })

  test(`${name}: interceptors run in the library's order, and see refused statuses`, async () => {
    const http = load()
    const seen = []
    const note = (what) => (value) => (seen.push(what), value)
    const ids = [
      [http.interceptors.request, http.interceptors.request.use(note('request 1'))],
      [http.interceptors.request, http.interceptors.request.use(note('request 2'))],
      [http.interceptors.response, http.interceptors.response.use(note('response 1'), (error) => { seen.push('error 1'); throw error })],
      [http.interceptors.response, http.interceptors.response.use(note('response 2'), (error) => ({ from: error }))],
    ]
    await ask(http, 'GET', '/orders')
    assert.deepEqual(seen.splice(0), ['request 2', 'request 1', 'response 1', 'response 2'])
    respond = () => [422, { msg: 'no tea' }]
    const { from } = await ask(http, 'GET', '/orders')
    assert.deepEqual(seen.splice(0), ['request 2', 'request 1', 'error 1'])
    const response = from.response || from
    assert.deepEqual([statusOf(response), response.data], [422, { msg: 'no tea' }])
    for (const [interceptors, id] of ids) interceptors.eject(id)
  })

  test(`${name}: without an answer, the error has a code and a title, and is not sent again`, async () => {
    phone.next('GET /orders', fates.notSent)
    const error = await ask(load(), 'GET', '/orders').catch((reason) => reason)
    assert.deepEqual([error.code, error.title, requests.length], ['network_error', '网络不可用', 0])
  })

  test(`${name}: a logout during the request rejects it with the reason`, async () => {
    await auth.login()
    const gate = phone.hold('GET /orders')
    const asked = ask(load(), 'GET', '/orders').catch((reason) => reason)
    await gate.arrived
    await auth.logout()
    gate.open()
    assert.equal((await asked).code, 'session_revoked')
  })
}

test('luch: global headers, files and tasks', async () => {
  const { http } = shop.require('luch.js')
  http.setConfig((config) => ({ ...config, header: { 'content-type': 'application/json', 'X-All': '1' } }))
  const uploaded = await http.upload('/files', { filePath: PNG, name: 'file', formData: { order: '7' } })
  assert.match(requests[0].headers['content-type'], /^multipart\/form-data/)
  assert.match(requests[0].body, /name="order"\r\n\r\n7\r\n/)
  assert.deepEqual([requests[0].headers['x-all'], uploaded.statusCode], ['1', 200])
  const { tempFilePath } = await http.download('/files/1')
  assert.match(`${phone.files.get(tempFilePath)}`, /"url":"\/files\/1"/)
  let task
  phone.hold('GET /slow')
  const asked = http.get('/slow', { getTask: (each) => (task = each) }).catch((reason) => reason)
  while (!task) await new Promise(setImmediate)
  task.abort()
  const error = await asked
  assert.deepEqual([error.code, error.errMsg], ['aborted', 'aborted'])
})

test('axios: a signal ends the request, and a header of the token is nowhere in the response', async () => {
  const { http } = shop.require('http.js')
  const controller = new AbortController()
  phone.hold('GET /slow')
  const asked = http.get('/slow', { signal: controller.signal }).catch((reason) => reason)
  while (!phone.count('GET /slow')) await new Promise(setImmediate)
  controller.abort()
  assert.equal((await asked).code, 'ERR_CANCELED')
  assert.doesNotMatch(JSON.stringify(await http.get('/orders')), /eyJ/)
})

test('alova works with the instance of axios', async () => {
  const { alova } = shop.require('shop.js')
  const { data } = await alova.Get('/orders', { params: { page: 2 } })
  assert.equal(data.url, '/orders?page=2')
})
