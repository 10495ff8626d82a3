// The code of docs/build/mini-games.md, where `wx` has only the names in WeChat's typings for mini-games.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'
import { APP_ID, LIFE, newPerson, pass, rejection, SERVICE_URL, start, wechat } from './world.js'

const read = (path) => readFileSync(fileURLToPath(new URL(path, import.meta.url)), 'utf8')
const TYPINGS = read('../node_modules/minigame-api-typings/types/wx/lib.wx.api.d.ts').replace(/\/\*\*[^]*?\*\//g, '')
const [, MEMBERS] = /^    interface Wx \{$([^]*?)^    \}$/m.exec(TYPINGS)
const NAMES = new Set([...MEMBERS.matchAll(/^        (\w+)[(<:?]/gm)].map(([, name]) => name))
const CLIENT = read('../../../clients/miniprogram/wxauth.js').replace(/^export /gm, '')
const own = (page) => /```js\n([^]*?)```/.exec(read(`../../../docs/${page}`))[1].replace(/^import .*$/m, '').replace(/^export /gm, '')

/** Run the code of this page as a game on a phone. */
function game(page, more) {
  const { phone } = start({ person: newPerson() })
  const known = { ...phone.wx, getAccountInfoSync: () => ({ miniProgram: { appId: APP_ID } }), ...more }
  const wx = new Proxy(known, {
    get(of, name) {
      assert.ok(NAMES.has(name), `wx.${String(name)} is not in a mini-game`)
      return of[name]
    },
  })
  const context = vm.createContext({ setTimeout, clearTimeout, wx, Date: class extends Date { static now = phone.now } })
  const code = own(page).replace('https://auth.example.com', SERVICE_URL)
  vm.runInContext(`${CLIENT};${code};Object.assign(globalThis, { auth, bindPhone, askForName })`, context)
  return { phone, ...context }
}

test('the typings name what a game has, and not what a page has', () => {
  assert.ok(['login', 'request', 'uploadFile', 'getStorageSync', 'getPhoneNumber'].every((name) => NAMES.has(name)))
  assert.ok(!NAMES.has('navigateTo'))
})

for (const page of ['build/mini-games.md', 'zh/build/mini-games.md'])
  test(`${page}: a player logs in, has a picture, gives a number and a name`, async () => {
    const taps = []
    const answers = [{ errMsg: 'getPhoneNumber:fail user deny' }]
    const { auth, bindPhone, askForName, phone } = game(page, {
      getPhoneNumber: ({ complete }) => complete(answers.shift()),
      createUserInfoButton: () => ({ onTap: (tap) => taps.push(tap), destroy: () => taps.push('destroyed') }),
    })
    const user = await auth.login()
    assert.equal((await auth.request({ url: '/v1/me' })).data.id, user.id)
    await pass(phone, LIFE)
    assert.equal((await auth.request({ url: '/v1/me' })).statusCode, 200)
    phone.files.set('f', Buffer.from('no picture'))
    assert.equal((await auth.setAvatar('f').catch((error) => error)).status, 422)
    assert.equal((await bindPhone().catch((error) => error)).code, 'phone_refused')
    answers.push({ errMsg: 'getPhoneNumber:ok', ...(await wechat('/phone-codes', { person: phone.person })) })
    assert.match((await bindPhone()).phone, /^\+86/)
    askForName({})
    taps[0]({})
    taps[0]({ userInfo: { nickName: '小明', avatarUrl: 'https://example.com/1.png' } })
    while (auth.user.nickname !== '小明') await new Promise(setImmediate)
    assert.deepEqual(taps.slice(1), ['destroyed'])
    await auth.logout()
  })

test('in a preview without wx, a game is told so', async () => {
  const { auth } = start({ platform: {} })
  await rejection(auth.login(), 'no_platform')
})
