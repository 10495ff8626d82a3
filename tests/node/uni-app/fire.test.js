// What is inside a component with `<script setup>` is tapped by its class. See tests/foreign/test_uni_app.py.
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { Phone } from '../../../examples/phone/phone.mjs'

const folder = mkdtempSync(join(tmpdir(), 'uni-app-'))
after(() => rmSync(folder, { recursive: true }))
cpSync(process.env.BUILT, folder, { recursive: true })
writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }')

test('a button of the page and one in its component are tapped by their classes', async () => {
  const shop = new MiniProgram(folder, new Phone({ wechat: 'http://127.0.0.1:1', person: 'alice', appId: 'wx0' }))
  shop.launch()
  const page = shop.open('pages/offer/offer')
  const offer = page.selectComponent('#tea')
  assert.deepEqual([page.data.a, offer.data.a], ['0', '0'])
  shop.fire(page, '.more')
  shop.fire(offer, '.buy')
  shop.fire(offer, '.buy')
  for (let n = 0; n < 1000 && offer.data.a !== '2'; n += 1) await new Promise(setImmediate)
  assert.deepEqual([page.data.a, offer.data.a], ['1', '2'])
})
