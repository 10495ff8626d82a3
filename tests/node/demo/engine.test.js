// A game of an engine without modules, as docs/build/mini-games.md shows. Its code finds `auth` by name, even in
// TypeScript 2.8.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MiniProgram } from '../../../examples/phone/mini_program.mjs'
import { Phone } from '../../../examples/phone/phone.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const { SERVICE_URL, WECHAT_URL, APP_ID } = process.env
const CLIENT = '../../../clients/miniprogram/'
const TSC = here('../node_modules/typescript-2.8/bin/tsc')
const GAME = `class Player {
    public answer: Promise<string>
    constructor() { this.answer = auth.login().then((user) => user.openid) }
}
window['player'] = new Player()`

for (const page of ['build/mini-games.md', 'zh/build/mini-games.md'])
  test(`${page}: the game logs in without a module`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'game-'))
    after(() => rmSync(folder, { recursive: true }))
    const text = readFileSync(here(`../../../docs/${page}`), 'utf8')
    const blocks = (language) => [...text.matchAll(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``, 'g'))].map(([, block]) => block)
    const [auth, game] = blocks('js')
    const [declaration] = blocks('ts')
    mkdirSync(join(folder, 'libs'))
    cpSync(here(`${CLIENT}wxauth.js`), join(folder, 'wxauth.js'))
    cpSync(here(`${CLIENT}wxauth.d.ts`), join(folder, 'libs/wxauth.d.ts'))
    writeFileSync(join(folder, 'auth.js'), auth.replace('https://auth.example.com', SERVICE_URL))
    writeFileSync(join(folder, 'game.js'), game)
    writeFileSync(join(folder, 'game.json'), '{}')
    writeFileSync(join(folder, 'weapp-adapter.js'), '')
    writeFileSync(join(folder, 'libs/laya.core.js'), "if (!window.auth) throw new Error('the engine comes after auth')")
    writeFileSync(join(folder, 'libs/auth.d.ts'), declaration)
    writeFileSync(join(folder, 'game.ts'), GAME)
    const options = ['--module', 'none', '--target', 'es5', '--lib', 'es2015,dom', '--outFile', 'bundle.js']
    execFileSync(process.execPath, [TSC, ...options, 'libs/auth.d.ts', 'game.ts'], { cwd: folder, stdio: 'inherit' })
    const phone = new Phone({ wechat: WECHAT_URL, person: 'player', appId: APP_ID })
    new MiniProgram(folder, phone).require('game.js')
    assert.match(await globalThis.player.answer, /^o/)
  })
