import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import vm from 'node:vm'
import { parse, tokenizer } from 'acorn'
import { APP_ID, LIFE, pass, SERVICE_URL, start } from './world.js'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const SOURCE = readFileSync(here('../../../clients/miniprogram/wxauth.js'), 'utf8')
const TYPES = readFileSync(here('../../../clients/miniprogram/wxauth.d.ts'), 'utf8')
const WECHAT = readFileSync(here('../node_modules/miniprogram-api-typings/types/wx/lib.wx.api.d.ts'), 'utf8')
const DOCS = '../../../docs/'

test('the client has at most 30,000 bytes, all of the package 40,000, and its lines are for reading', () => {
  assert.ok(Buffer.byteLength(SOURCE) <= 30_000, `${Buffer.byteLength(SOURCE)} bytes`)
  const folder = here('../../../clients/miniprogram/')
  const packed = readdirSync(folder).filter((name) => /\.js$/.test(name)).map((name) => readFileSync(folder + name).length)
  assert.ok(packed.length >= 3)
  assert.ok(packed.reduce((sum, size) => sum + size) <= 40_000, packed.join(' + '))
  const lines = SOURCE.split('\n')
  assert.ok(lines.every((line) => line.length <= 120))
  assert.ok(lines.length > 200)
})

test('its README says how many kilobytes it has', () => {
  const readme = readFileSync(here('../../../clients/miniprogram/README.md'), 'utf8')
  const shown = [...readme.matchAll(/(\d+) KB/g)].map(([, kilobytes]) => Number(kilobytes))
  const kilobytes = Math.ceil(Buffer.byteLength(SOURCE) / 1000)
  assert.deepEqual(shown, [kilobytes, kilobytes]) // once in English and once in Chinese
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

/**
 * Return the base library version from which a member of `wx` or of an interface exists, according to WeChat's typings.
 */
function since(name, within = WECHAT) {
  const [, comment] = new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\s*${name}\\??(?:<[^(]*)?[(:]`).exec(within) || []
  const found = /^[ *]*需要基础库： `([\d.]+)`/m.exec((comment || '').replaceAll('/**', ''))
  return found && found[1]
}

test('what the client uses of WeChat is as old as the guides say', () => {
  const used = new Set([since('getAppBaseInfo')])
  const [, platform] = /export interface Platform {([^]*?)\n}/.exec(TYPES)
  for (const [, name, options] of platform.matchAll(/^  (\w+)\??\((?:options: {([^]*?)^  })?/gm)) {
    used.add(since(name))
    const kind = name[0].toUpperCase() + name.slice(1)
    const [known] = new RegExp(`interface ${kind}Option\\b[^]*?\n    }`).exec(WECHAT) || ['']
    for (const [, option] of (options || '').matchAll(/^    (\w+)\??:/gm)) used.add(since(option, known))
  }
  used.delete(null)
  assert.ok(used.size > 2)
  assert.match(SOURCE, /attempt\(\(\) => [^\n]*wx\.getAppBaseInfo\(\)/)
  for (const guide of ['build/mini-program-recipes.md', 'zh/build/mini-program-recipes.md']) {
    const [, rows] = /^\| (?:base library|基础库) \|.*\n.*\n((?:\|.*\n)+)/m.exec(readFileSync(here(DOCS + guide), 'utf8'))
    assert.deepEqual(new Set([...rows.matchAll(/^\| `([\d.]+)`/gm)].map((row) => row[1])), used)
  }
})

async function tsc(config, compiler = 'typescript') {
  const program = here(`../node_modules/${compiler}/bin/tsc`)
  const compiling = promisify(execFile)(process.execPath, [program, '--pretty', 'false', '-p', resolve(here('types'), config)])
  await compiling.catch((failure) => assert.fail(failure.stdout))
}

/** Run tsc over copies of the client's files as `change` makes them, in a project that checks JavaScript. */
async function checkCopies(t, options, change) {
  const folder = mkdtempSync(join(tmpdir(), 'project-'))
  t.after(() => rmSync(folder, { recursive: true }))
  symlinkSync(here('../node_modules'), join(folder, 'node_modules'))
  const from = here('../../../clients/miniprogram/')
  for (const name of readdirSync(from).filter((each) => /\.(js|d\.ts)$/.test(each)))
    writeFileSync(join(folder, name), change(readFileSync(from + name, 'utf8')))
  const config = { extends: here('types/tsconfig.json'), compilerOptions: { allowJs: true, checkJs: true, ...options } }
  const files = ['wxauth.js', 'wxauth-scan.js', 'wxauth-site.js']
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ ...config, files }))
  await tsc(join(folder, 'tsconfig.json'))
}

test('tsc finds the client as its types say', (t) => {
  const options = { noImplicitAny: false, useUnknownInCatchVariables: false }
  return checkCopies(t, options, (text) => text.replace('// @ts-nocheck\n', ''))
})
test('a project that checks its JavaScript strictly finds no fault with the copies', (t) => checkCopies(t, {}, (text) => text))
test('a native mini-program uses each member by its type, and wx fits', () => tsc('tsconfig.json'))
test('uni of uni-app fits, and what its own requests take', () => tsc('tsconfig.uni.json'))
test('wx of a mini-game fits', () => tsc('tsconfig.minigame.json'))
test("an engine's TypeScript 2.8 uses each member", () => tsc('tsconfig.old.json', 'typescript-2.8'))
