// The mini-program with WeChat's AI. Its SKILL runs in its own context next to the pages, and they share a storage.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { fates } from '../../../examples/phone/phone.mjs'
import { newPerson } from '../miniprogram/world.js'
import { MiniProgram, ORDERS_URL, SERVICE_URL, until } from './mini_program.js'

const FOLDER = fileURLToPath(new URL('../../../examples/miniprogram-ai', import.meta.url))
const SKILL = 'skills/orders-skill'
const { apis } = JSON.parse(readFileSync(`${FOLDER}/${SKILL}/mcp.json`))
const LOGIN = 'POST /v1/login'
const REFRESH = 'POST /v1/refresh'
const clock = Date.now

let demo
let skill
let late // the delay in milliseconds
beforeEach(() => {
  late = 0
  Date.now = () => clock() + late
  const changes = () => ({ 'http://127.0.0.1:8000': SERVICE_URL, 'http://127.0.0.1:8002': ORDERS_URL })
  demo = new MiniProgram({ folder: FOLDER, person: newPerson(), changes, codeIn: ['.', SKILL] })
  skill = { middleware: [], apis: {} }
  const createSkill = (path) => {
    assert.equal(path, SKILL)
    return { use: (one) => skill.middleware.push(one), registerAPI: (name, api) => (skill.apis[name] = api) }
  }
  demo.wx = { modelContext: { createSkill }, onAgentHandoff: (handler) => (skill.handOver = handler) }
  demo.launch()
})
afterEach(() => {
  Date.now = clock
  demo.close()
})

/** Call an interface as WeChat does. The call goes through the middleware, which can return another answer. */
async function call(name, args = {}) {
  if (!skill.middleware.length) demo.module(`${SKILL}/index.js`)
  const [around] = skill.middleware
  let answer
  const replaced = await around({ name }, async () => (answer = await skill.apis[name](args)))
  return replaced || answer
}

/** Tap the card that an answer of this interface has shown. */
function open(name, { handoff }) {
  const path = apis.find((api) => api.name === name)._meta.ui.pagePath
  skill.handOver({ pageId: '1', path, ...handoff })
  return demo.open('tea', { pageId: '1', query: handoff.query })
}

const orders = async () => (await call('getMyOrders')).structuredContent.orders

test('each interface is declared and registered', async () => {
  await call('showTea')
  assert.deepEqual(Object.keys(skill.apis).sort(), apis.map(({ name }) => name).sort())
})

test('the AI reads as the person, who logs in nowhere', async () => {
  assert.deepEqual(await orders(), ['oolong tea'])
  await orders()
  assert.equal(demo.phone.count(LOGIN), 1)
})

test('the page that is opened shows its content, and logs in at the action, with the session of the SKILL', async () => {
  const page = await open('showTea', await call('showTea', { tea: 'jasmine' })).shows('茉莉花茶')
  await page.does('orders')
  await page.shows('oolong tea')
  assert.equal(demo.phone.count(LOGIN), 1)
})

test('a page takes what was handed to it alone, and once', async () => {
  const shown = await call('showTea', { tea: 'jasmine' })
  skill.handOver({ pageId: '1', ...shown.handoff })
  await demo.open('tea', { pageId: '2' }).shows('乌龙茶')
  await demo.open('tea', { pageId: '1' }).shows('茉莉花茶')
  await demo.open('tea', { pageId: '1' }).shows('乌龙茶')
  await demo.open('tea', { pageId: '1', query: { tea: 'jasmine' } }).shows('茉莉花茶')
})

for (const id of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', undefined])
  test(`a page or a tea with the id ${id} shows what it should`, async () => {
    await call('showTea')
    await demo.open('tea', { pageId: id }).shows('乌龙茶')
    await demo.open('tea', { pageId: '1', query: { tea: id } }).shows('乌龙茶')
    const { handoff } = await call('showTea', { tea: 'jasmine' })
    skill.handOver({ pageId: id, ...handoff })
    await demo.open('tea', { pageId: id }).shows('茉莉花茶')
    await demo.open('tea', { pageId: id }).shows('乌龙茶')
    assert.ok((await call('showTea', { tea: id })).isError)
  })

test('what is declared is where WeChat looks for it', () => {
  for (const { name, outputSchema, _meta } of apis) {
    assert.match(readFileSync(`${FOLDER}/${SKILL}/apis/${name}.js`, 'utf8'), new RegExp(`async function ${name}\\(`))
    assert.ok(outputSchema.properties)
    if (_meta) assert.match(_meta.ui.pagePath, /^\/pages\//)
  }
})

test('a page that nobody has logged in to asks nothing of the network until the action', async () => {
  const page = await demo.open('tea').shows('乌龙茶')
  assert.deepEqual(demo.phone.calls, [])
  await page.does('orders')
  await page.shows('oolong tea')
})

test('both contexts refresh one session at the same moment, and none is logged out', async () => {
  await orders()
  const page = demo.open('tea')
  await page.does('orders')
  await page.shows('oolong tea')
  late = 3600_000
  const [read] = await Promise.all([orders(), page.does('orders')])
  assert.deepEqual(read, ['oolong tea'])
  await until(() => demo.phone.count(REFRESH) === 2)
  late *= 2
  assert.deepEqual(await orders(), ['oolong tea'])
  assert.deepEqual([demo.phone.count(REFRESH), demo.phone.count(LOGIN)], [3, 1])
})

test('what fails is said to the AI in words, without a token', async () => {
  demo.phone.next(LOGIN, fates.notSent, fates.notSent)
  const { isError, content } = await call('getMyOrders')
  assert.ok(isError)
  assert.match(content[0].text, /^网络不可用。/)
})
