// The demo with the client as an npm package, built by WeChat's tool. See tests/miniprogram/test_example.py.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { newPerson } from '../miniprogram/world.js'
import { MiniProgram, ORDERS_URL, SERVICE_URL } from './mini_program.js'

let demo
afterEach(() => demo.close())

test('the demo logs in with the client from miniprogram_npm', async () => {
  const changes = () => ({
    "'wxauth-miniprogram'": "'./miniprogram_npm/wxauth-miniprogram/index.js'", // the path that WeChat's require finds
    "{ url: 'http://127.0.0.1:8001', person: 'alice' }": 'null',
    'http://127.0.0.1:8000': SERVICE_URL,
    'http://127.0.0.1:8002': ORDERS_URL,
  })
  demo = new MiniProgram({ folder: process.env.DEMO, person: newPerson(), changes })
  const { auth } = demo.launch().module('auth.js')
  const user = await auth.login()
  assert.equal(auth.user.id, user.id)
  assert.equal((await auth.request({ url: '/v1/me' })).data.id, user.id)
  const { scanOf } = demo.module('miniprogram_npm/wxauth-miniprogram/scan.js')
  globalThis.wx.getEnterOptionsSync = () => ({ scene: 1047 })
  assert.equal(typeof scanOf({ scene: 'a' }), 'object')
})
