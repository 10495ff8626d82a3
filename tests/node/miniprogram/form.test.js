import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import vm from 'node:vm'
import { parse, tokenizer } from 'acorn'
import { APP_ID, LIFE, pass, SERVICE_URL, start } from './world.js'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const SOURCE = readFileSync(here('../../../clients/miniprogram/wxauth.js'), 'utf8')
const TSC = here('../node_modules/typescript/bin/tsc')

test('the client is smaller than 12,000 bytes, and its lines are for reading', () => {
  assert.ok(Buffer.byteLength(SOURCE) < 12_000, `${Buffer.byteLength(SOURCE)} bytes`)
  const lines = SOURCE.split('\n')
  assert.ok(lines.every((line) => line.length <= 120))
  assert.ok(lines.length > 200)
})

test('it is one module without imports that exports createAuth and AuthError', async () => {
  const { body } = parse(SOURCE, { ecmaVersion: 2018, sourceType: 'module' })
  assert.deepEqual(
    body.filter((node) => node.type === 'ImportDeclaration'),
    [],
  )
  const exported = await import('../../../clients/miniprogram/wxauth.js')
  assert.deepEqual(Object.keys(exported), ['AuthError', 'createAuth'])
})

test('it has no syntax and calls nothing that is younger than ES2018, which old phones lack', () => {
  const tokens = [...tokenizer(SOURCE, { ecmaVersion: 2018, sourceType: 'module' })].map(
    (token) => token.value || token.type.label,
  )
  const called = tokens.filter((_, i) => tokens[i - 1] === '.' && tokens[i + 1] === '(')
  const younger =
    'flat flatMap fromEntries trimStart trimEnd matchAll replaceAll allSettled any at hasOwn findLast findLastIndex ' +
    'toSorted toReversed toSpliced with withResolvers groupBy try'
  assert.ok(called.includes('exec'))
  assert.deepEqual(
    called.filter((name) => younger.split(' ').includes(name)),
    [],
  )
})

test('it needs nothing of a browser or of Node, and logs nothing', async () => {
  const { phone } = start()
  const context = vm.createContext({ setTimeout, clearTimeout, uni: phone.wx })
  vm.runInContext(`${SOURCE.replace(/^export /gm, '')}; globalThis.createAuth = createAuth`, context)
  const auth = context.createAuth({ baseURL: SERVICE_URL, appId: APP_ID, now: phone.now })
  await auth.login()
  await pass(phone, LIFE)
  assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 200)
  await assert.rejects(auth.request({ url: 'https://evil.example.com' }), { code: 'origin_not_allowed' })
  await assert.rejects(auth.request({ url: '/v1/me', method: 'PATCH' }), { code: 'network_error' })
  await auth.updateProfile({ nickname: '小明' })
  await auth.sessions()
  await auth.logout({ everywhere: true })
  await auth.login()
  await auth.deleteAccount()
})

const tsc = (config) =>
  promisify(execFile)(process.execPath, [TSC, '--pretty', 'false', '-p', here(`types/${config}`)]).catch((failure) =>
    assert.fail(failure.stdout),
  )

test('tsc finds the client as its types say', () => tsc('tsconfig.client.json'))
test('a native mini-program uses each member by its type, and wx fits', () => tsc('tsconfig.json'))
test('uni of uni-app fits', () => tsc('tsconfig.uni.json'))
