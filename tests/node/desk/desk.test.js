// The desk's phone in a real browser, with a running `wxauth-desk dev`.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before } from 'node:test'
import { Complaints, Pages, SIZES, assertNoBarriers, eventually, turns, walkByTab } from '../browser.js'

const { DESK_URL, SERVICE_URL } = process.env
const DESK = new URL(DESK_URL).origin
const LOGIN = [
  ['phoneToWeChat', 'wx.login()', 'code'],
  ['phoneToService', 'POST /v1/login', '200'],
  ['serviceToWeChat', 'GET /sns/jscode2session', '200'],
]
const PIXEL = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGMQqXIFAAF5ANTR/QH1AAAAAElFTkSuQmCC',
  'base64',
)

const complaints = new Complaints(DESK, SERVICE_URL)
const pages = new Pages(DESK, complaints, { locale: 'zh-CN', viewport: { width: 1440, height: 900 } })
const test = turns(() => open())
let page

before(() => pages.start())
after(() => pages.browser.close())
afterEach(() => complaints.check())

/** Open the phone of a new user. The options set the browser's language and size. */
async function open(options) {
  page = await pages.fresh(options)
  await page.goto(DESK_URL)
  await page.waitForSelector('h1:not(:empty)') // the page has started
  await page.click('.tabs [value=faults]') // scan.test.js uses the other tab
  await page.fill('#person', `person-${randomUUID().slice(0, 8)}`)
  await page.locator('#person').blur()
}

/** Return an element on the page, and open its tab first if it's in a tab. */
async function reach(selector) {
  const found = page.locator(selector).first()
  const tab = await found.evaluate((each) => each.closest('.tools')?.id)
  if (tab) await page.click(`.tabs [value=${tab}]`)
  return found
}
const press = async (selector) => (await reach(selector)).click()
const tap = (name) => press(`[data-tap=${name}]`)
const shown = async (selector) => (await reach(selector)).innerText()
const nothingWaits = () =>
  page
    .locator('.waiting')
    .count()
    .then((count) => assert.equal(count, 0))

/** Return the requests of the last tap, each with its direction, name and outcome. */
const wires = () =>
  page.evaluate(() =>
    [...(document.querySelector('.tap:not(.elsewhere)')?.querySelectorAll('.wire') ?? [])].map((wire) => [
      wire.dataset.direction,
      wire.querySelector('.what').textContent,
      wire.querySelector('.outcome').textContent,
    ]),
  )

const sent = (expected) => eventually(async () => (await nothingWaits(), assert.deepEqual(await wires(), expected)))
/** Wait for a toast. Call this before you wait for lasting content, because a toast disappears after some seconds. */
const toasted = (text) => eventually(async () => assert.match(await shown('#toast'), text))

async function logIn() {
  await tap('login')
  await sent(LOGIN)
}

/** Switch the language. The page loads the texts of the other language only now. */
async function switchLanguage(title = 'Simulated phone') {
  await page.click('#language')
  await eventually(async () => assert.equal(await shown('h1'), title))
}

/** Choose what WeChat does next, and wait until all faults are shown. Some choices arrange two faults. */
async function makeFail(fault, faults = 1) {
  await reach('#what')
  await page.selectOption('#what', JSON.stringify(fault))
  await page.click('#trouble button')
  await page.locator('#armed code').nth(faults - 1).waitFor()
}

test('a login is shown up to WeChat, and nothing secret with it', async () => {
  await logIn()
  const written = await page.evaluate(() => document.querySelector('.taps').textContent)
  assert.match(written, /secret=•••/)
  assert.match(written, /"session_key": "•••"/)
  assert.doesNotMatch(written, /dev-secret|eyJ[\w-]{20}|wxr_[\w-]{20}/)
  assert.match(await shown('#user-id'), /^[0-9a-f-]{36}$/)
})

test('the page is walked through by Tab alone, there and back', async () => {
  await logIn()
  await walkByTab(page)
})

test('nothing on the page is a barrier, on a computer and on a phone, in the light and in the dark', async () => {
  await open({ colorScheme: 'dark' })
  await logIn()
  await assertNoBarriers(page, { runOnly: ['color-contrast'], sizes: SIZES.slice(0, 1) }) // only the colours differ
  await page.emulateMedia({ colorScheme: 'light' })
  await assertNoBarriers(page)
})

test('what was sent before the page knew anything of the service is shown too', async () => {
  let letGo
  const held = new Promise((resolve) => (letGo = resolve))
  await page.route('**/wires/0', async (route) => (await held, await route.continue()))
  await page.reload()
  await page.waitForSelector('h1:not(:empty)')
  await tap('login')
  await page.waitForSelector('#user-id:not(:empty)', { state: 'attached' })
  letGo()
  await sent(LOGIN)
})

test('a call of the service stands with the tap that caused it, however slow the page is', async () => {
  await page.evaluate(() => {
    const quickly = Element.prototype.replaceChildren
    Element.prototype.replaceChildren = function (...children) {
      const end = performance.now() + (this.matches('.wire') ? 100 : 0)
      while (performance.now() < end);
      return quickly.apply(this, children)
    }
  })
  await logIn()
})

test('the tokens are decoded, and their time runs down', async () => {
  await logIn()
  assert.match(await shown('#tokens'), /"alg": "ES256"[^]*iss\s+http:\/\/127\.0\.0\.1[^]*openid\s+o/)
  const left = () => shown('[data-left=access]')
  assert.match(await left(), /^剩余 1[45]:\d\d$/)
  const before = await left()
  await eventually(async () => assert.notEqual(await left(), before))
  await press('[data-shift="600000"]')
  assert.match(await left(), /^剩余 4:\d\d$/)
  assert.match(await shown('[data-left=refresh]'), /^剩余 29 天 23 小时$/)
  await switchLanguage()
  assert.match(await shown('[data-left=refresh]'), /^29 d 23 h left$/)
})

test('a second login costs no call, nor does one after a restart or a reload', async () => {
  await logIn()
  await tap('login')
  await sent([])
  await press('#restart')
  await tap('login')
  await sent([])
  await page.reload()
  await eventually(async () => assert.match(await shown('#tokens'), /ES256/))
  await tap('login')
  await sent([])
})

test('my account is opened, and opening it logs in where nobody is', async () => {
  await tap('me')
  await sent([...LOGIN, ['phoneToService', 'GET /v1/me', '200']])
  assert.equal(JSON.parse(await shown('#sheet pre')).id, await shown('#user-id'))
})

test('ten requests at once with an expired token cause one refresh', async () => {
  await logIn()
  await tap('expire')
  assert.equal(await shown('[data-left=access]'), '按手机时钟已过期')
  await tap('ten')
  const me = ['phoneToService', 'GET /v1/me', '200']
  await sent([['phoneToService', 'POST /v1/refresh', '200'], ...Array(10).fill(me)])
})

test('a token that the service refuses is refreshed, and the request sent once more', async () => {
  await logIn()
  await tap('spoil')
  await sent([
    ['phoneToService', 'GET /v1/me', '401 invalid_token'],
    ['phoneToService', 'POST /v1/refresh', '200'],
    ['phoneToService', 'GET /v1/me', '200'],
  ])
})

test('an old refresh token ends the session, and the phone logs in again by itself', async () => {
  await logIn()
  for (const _ of [1, 2]) {
    await tap('refresh')
    await sent([['phoneToService', 'POST /v1/refresh', '200']])
  }
  await tap('oldRefresh')
  await toasted(/为保护账号安全/)
  await sent([['phoneToService', 'POST /v1/refresh', '400 refresh_token_reused']])
  await tap('me')
  await sent([
    ['phoneToService', 'GET /v1/me', '401 invalid_token'],
    ['phoneToService', 'POST /v1/refresh', '400 session_revoked'],
    ...LOGIN,
    ['phoneToService', 'GET /v1/me', '200'],
  ])
})

test('an old refresh token that was used just now is explained, and ends nothing', async () => {
  await logIn()
  await tap('refresh')
  await sent([['phoneToService', 'POST /v1/refresh', '200']])
  await tap('oldRefresh')
  await toasted(/REFRESH_REUSE_GRACE 秒内/)
  await sent([['phoneToService', 'POST /v1/refresh', '200']])
  await tap('me')
  await sent([['phoneToService', 'GET /v1/me', '200']])
})

for (const [api, meaning] of [
  ['code2session', /^手机收到 403 wechat_user_blocked/],
  ['getuserphonenumber', /^手机收到 \d+ (?!wechat_unavailable|invalid_code)/],
])
  test(`the fault that is offered first for ${api} is one that the phone sees`, async () => {
    await reach('#api')
    await page.selectOption('#api', api)
    assert.match(await shown('#meaning'), meaning)
    await page.click('#trouble button')
    await page.waitForSelector('#armed code')
    if (api !== 'code2session') await logIn()
    await tap(api === 'code2session' ? 'login' : 'allow')
    const code = /\d+ (\w+)/.exec(await shown('#meaning'))[1]
    await toasted(new RegExp(`\\s${code}$`))
  })

test('what the client itself says is in the language of the page', async () => {
  await tap('deny')
  await toasted(/^未授权手机号\s+phone_refused$/)
  await switchLanguage()
  await tap('deny')
  await toasted(/^Phone number not shared\s+phone_refused$/)
})

test('a code used twice is refused in Chinese', async () => {
  await tap('codeTwice')
  await toasted(/^该凭证已被使用，请重试。/)
  await sent([
    ...LOGIN,
    ['phoneToService', 'POST /v1/login', '400 code_used'],
    ['serviceToWeChat', 'GET /sns/jscode2session', '200 errcode 40163'],
  ])
})

test('an errcode is explained, comes once, and its title is shown in the language of the phone', async () => {
  await makeFail({ errcode: 40226 })
  assert.match(await shown('#meaning'), /403 wechat_user_blocked\s+“?微信已限制该账号登录。/)
  assert.match(await shown('#armed'), /code2session: errcode 40226 × 1/)
  const refused = [
    LOGIN[0],
    ['phoneToService', 'POST /v1/login', '403 wechat_user_blocked'],
    ['serviceToWeChat', 'GET /sns/jscode2session', '200 errcode 40226'],
  ]
  await tap('login')
  await toasted(/^微信已限制该账号登录。\s+wechat_user_blocked$/)
  await sent(refused)
  await eventually(async () => assert.equal(await shown('#armed'), ''))
  await switchLanguage()
  await makeFail({ errcode: 40226 })
  await tap('login')
  await toasted(/^WeChat doesn't allow this account to log in\./)
  await sent(refused)
  await logIn()
})

test('a WeChat that hangs is shown waiting, and the login is tried once more', async () => {
  await makeFail({ hang: true })
  // The page itself watches from before the tap, because this state lasts only some seconds.
  const waits = page.waitForFunction(() => {
    const outcomes = document.querySelector('.tap:not(.elsewhere)')?.querySelectorAll('.wire .outcome') ?? []
    return [...outcomes].map((outcome) => outcome.textContent).join() === 'code,进行中,进行中'
  })
  await tap('login')
  await waits
  await sent([
    LOGIN[0],
    ['phoneToService', 'POST /v1/login', '504 wechat_timeout'],
    ['serviceToWeChat', 'GET /sns/jscode2session', '无响应'],
    ...LOGIN,
  ])
})

test('an access token that cannot be had fails the phone number', async () => {
  // For some seconds, no request asks for this token again. So use the app from which no other test gets a number.
  await page.selectOption('#app', 'wxdev00000000000b2')
  await tap('allow')
  await eventually(async () => assert.match(await shown('#number'), /^\+86/))
  await reach('#api')
  await page.selectOption('#api', 'stable_token')
  await makeFail({ errcode: 40164 }, 2)
  await tap('allow')
  await toasted(/^该功能暂不可用。\s+wechat_misconfigured$/)
  await eventually(async () =>
    assert.deepEqual((await wires()).slice(-2), [
      ['serviceToWeChat', 'POST /wxa/business/getuserphonenumber', '200 errcode 42001'],
      ['serviceToWeChat', 'POST /cgi-bin/stable_token', '200 errcode 40164'],
    ]),
  )
})

test('all goes right again when asked to', async () => {
  await reach('#times')
  await page.selectOption('#times', '')
  await makeFail({ garbage: true })
  await tap('login')
  await toasted(/^微信返回的内容异常，请重试。/)
  await press('#clear')
  await eventually(async () => assert.equal(await shown('#armed'), ''))
  await logIn()
})

test('the phone button binds the number', async () => {
  await tap('allow')
  await eventually(async () => assert.match(await shown('#number'), /^\+86138\d{8}$/))
  await eventually(async () => assert.equal((await wires()).at(-1)[1], 'POST /wxa/business/getuserphonenumber'))
})

test('the button that verifies the number binds it, or says that the quota is used up', async () => {
  await tap('noQuota')
  await toasted(/^暂时无法获取手机号\s+phone_quota_used_up$/)
  const asked = async () => (await wires()).filter((wire) => wire[1] === 'POST /wxa/business/getuserphonenumber').length
  const before = await asked()
  await tap('allowNow')
  await eventually(async () => assert.equal(await asked(), before + 1))
  await eventually(async () => assert.match(await shown('#number'), /^\+86138\d{8}$/))
})

test('what WeChat encrypts is opened by the service', async () => {
  await tap('decrypt')
  await eventually(async () => assert.match(await shown('#sheet'), /"step": 8848/))
})

test('a nickname is text, whatever it holds', async () => {
  const name = '<img src=x onerror=alert(1)>'
  await page.fill('#nickname', name)
  await page.click('#rename button')
  await eventually(async () => assert.equal(await shown('#name'), name))
  await tap('me')
  await eventually(async () => assert.equal(JSON.parse(await shown('#sheet pre')).nickname, name))
  assert.equal(await page.locator('img').count(), 1)
})

test('a picture is uploaded and shown', async () => {
  await page.setInputFiles('#file', { name: 'me.png', mimeType: 'image/png', buffer: PIXEL })
  await eventually(async () =>
    assert.ok(await page.evaluate(() => document.querySelector('#picture').naturalWidth > 0)),
  )
  assert.deepEqual((await wires()).at(-1), ['phoneToService', 'POST /v1/me/avatar', '200'])
})

test('what the person withdraws in WeChat is gone', async () => {
  await tap('allow')
  await eventually(async () => assert.match(await shown('#number'), /^\+86/))
  await page.fill('#nickname', '小明')
  await page.click('#rename button')
  await eventually(async () => assert.equal(await shown('#name'), '小明'))
  for (const what of ['withdrawName', 'withdrawPhone']) {
    await tap(what)
    await sent([['weChatToService', 'POST /v1/wechat/push/wxdev00000000000a1', '200']])
  }
  await tap('me')
  await eventually(async () => assert.equal(await shown('#number'), '未绑定手机号'))
  assert.equal(await shown('#name'), '微信用户')
})

test('a membership is bought, and the shop has its notice', async () => {
  await logIn()
  await tap('buy')
  await eventually(async () => assert.match(await shown('#sheet'), /¥18\s*已支付，已发货/))
  const bought = async () => (await wires()).map(([direction, what, outcome]) => [direction, what.replace(/[0-9a-f]{16}/, '…'), outcome])
  // WeChat's own response may arrive after the phone has seen the shop's response.
  await eventually(async () => assert.deepEqual(await bought(), [
    ['phoneToShop', 'POST /orders', '200'],
    ['shopToService', 'POST /v1/apps/wxdev00000000000a1/signatures', '200'],
    ['weChatToService', 'POST /v1/wechat/push/wxdev00000000000a1', '200'],
    ['serviceToShop', 'POST /wechat', '由结果推断'],
    ['phoneToShop', 'GET /orders/…', '200'],
  ]))
})

test('a notice comes once more, and then a refund, of which the shop has a notice too', async () => {
  await logIn()
  await tap('buy')
  for (const [what, state] of [['notifyAgain', '已支付，已发货'], ['refund', '已退款'], ['notifyAgain', '已退款']]) {
    await page.click(`#sheet button:has-text("${what === 'refund' ? '退款' : '再推一次'}")`)
    // The phone and the notice are separate requests, so either can get its response first.
    await eventually(async () => assert.deepEqual((await wires()).map(([direction, , outcome]) => [direction, outcome]).sort(), [
      ['phoneToShop', '200'],
      ['serviceToShop', '由结果推断'],
      ['weChatToService', '200'],
    ]))
    assert.match(await shown('#sheet'), new RegExp(`¥18\\s*${state}`))
  }
})

test('a notice that is requested before the shop has answered shows only its own calls', async () => {
  await logIn()
  let answer
  const isRequested = new Promise((resolve) => (answer = resolve))
  // The phone asks for the order with the only GET.
  await page.route('**/desk/request', (route) => (route.request().method() === 'GET' ? isRequested : Promise.resolve()).then(() => route.continue()))
  await page.route('**/notices', async (route) => {
    const answered = page.waitForResponse((response) => response.url().endsWith('/desk/request'))
    answer()
    await answered
    await route.continue()
  })
  await tap('buy')
  await page.click('#sheet button:has-text("再推一次")')
  await eventually(async () => assert.deepEqual((await wires()).map(([direction, , outcome]) => [direction, outcome]).sort(), [
    ['phoneToShop', '200'],
    ['serviceToShop', '由结果推断'],
    ['weChatToService', '200'],
  ]))
})

test('a shop that fails at a notice is shown', async () => {
  await logIn()
  await tap('buyFailing')
  await eventually(async () => assert.match(await shown('#sheet'), /15 秒后重新推送/))
  const refused = ['weChatToService', 'POST /v1/wechat/push/wxdev00000000000a1', '503'].join()
  await eventually(async () => assert.ok((await wires()).some((wire) => wire.join() === refused)))
})

test('a repeated notice is shown beside its first attempt, and under no tap of another page', async () => {
  const openedAt = Date.now() // the page also shows the notices of earlier purchases, as from elsewhere
  let first
  let injected = null // the id of the call that an additional call repeats
  await page.route('**/desk/wires/*', async (route) => {
    const response = await route.fetch()
    const { revision, calls } = await response.json()
    const isFirst = ({ at, direction, repeats, status }) => at >= openedAt && direction === 'weChatToService' && repeats === null && status === 200
    first ??= calls.find(isFirst)
    if (injected) calls.push({ ...first, id: `repeats ${injected}`, at: Date.now(), repeats: injected })
    injected = null
    await route.fulfill({ response, json: { revision, calls } })
  })
  await logIn()
  await tap('buy')
  await eventually(async () => assert.ok(first))
  await page.click('#sheet button:has-text("再推一次")') // this is another message with the same content
  const messages = (under, count) => eventually(async () => assert.equal(await page.locator(`${under} [data-direction=weChatToService]`).count(), count))
  await messages('.tap:nth-child(1)', 1)
  injected = first.id
  await messages('.tap:nth-child(2)', 2)
  injected = -1
  await messages('.elsewhere:nth-child(1)', 1)
  await messages('.tap:nth-child(2)', 1) // now behind the taps elsewhere
})

test('who has logged in elsewhere since logs in once more to pay', async () => {
  await logIn()
  await page.evaluate(() => fetch('/codes', { method: 'POST', body: JSON.stringify({ person: document.querySelector('#person').value }) })
    .then((answer) => answer.json())
    .then(({ code }) => {
      const query = { appid: 'wxdev00000000000a1', secret: 'dev-secret-of-the-first-app', js_code: code, grant_type: 'authorization_code' }
      return fetch(`/sns/jscode2session?${new URLSearchParams(query)}`)
    }))
  await tap('buy')
  await toasted(/-15005/)
  await tap('loginAgain')
  await tap('buy')
  await eventually(async () => assert.match(await shown('#sheet'), /¥18\s*已支付，已发货/))
})

test('a stream is shown piece by piece, and may be stopped', async () => {
  await logIn()
  await tap('count')
  const counted = () => shown('#sheet output')
  await eventually(async () => assert.match(await counted(), /^1 2/))
  assert.doesNotMatch(await counted(), /10/)
  await page.click('#sheet button:has-text("停止")')
  await toasted(/^已取消\s*aborted$/)
  await sent([['phoneToShop', 'GET /count', '无响应 abort']])
  assert.doesNotMatch(await counted(), /10/)
  await tap('count')
  await sent([['phoneToShop', 'GET /count', '200']])
  assert.match(await counted(), /^1 2 3 4 5 6 7 8 9 10/)
})

/** Return the selects that cut an option off and don't show the chosen one in another way. */
const cutOff = () =>
  page.evaluate(() => {
    const context = document.createElement('canvas').getContext('2d')
    const isCut = (select) => {
      context.font = getComputedStyle(select).font
      return [...select.options].some(({ text }) => context.measureText(text).width > select.clientWidth - 36)
    }
    return [...document.querySelectorAll('select')].filter((each) => each.checkVisibility() && isCut(each) && each.title !== each.selectedOptions[0].text).map(({ id }) => id)
  })

test('at 1280 the phone is whole, scan and browsers are in sight, and a toast covers nothing', async () => {
  for (const locale of ['zh-CN', 'en']) {
    await open({ locale, viewport: { width: 1280, height: 800 } })
    assert.deepEqual(await cutOff(), [])
    await page.click('.tabs [value=use]')
    assert.deepEqual(await cutOff(), [])
    assert.equal(await page.locator('#trouble').isVisible(), false)
    await tap('noQuota')
    await toasted(/phone_quota_used_up/)
    const boxOf = (selector) => page.locator(selector).boundingBox()
    for (const selector of ['.phone', '#scan', '#web-view']) {
      const { y, height } = await boxOf(selector)
      assert.ok(y + height <= 800, `${selector} ends at ${y + height}`)
    }
    const toast = await boxOf('#toast')
    const isOver = (box) =>
      box.x < toast.x + toast.width && toast.x < box.x + box.width && box.y < toast.y + toast.height && toast.y < box.y + box.height
    for (const selector of ['h1', 'nav', '.phone', '#use', '.wires']) assert.ok(!isOver(await boxOf(selector)), selector)
    const heights = await page.locator('.cells:not(.endings) li').evaluateAll((rows) => rows.map((row) => row.offsetHeight))
    assert.ok(Math.max(...heights) - Math.min(...heights) <= 1, `${locale}: ${heights}`)
  }
})

test('a closed WeChat account loses its user', async () => {
  await logIn()
  const id = await shown('#user-id')
  await tap('closeAccount')
  await sent([['weChatToService', 'POST /v1/wechat/push/wxdev00000000000a1', '200']])
  await tap('me')
  await eventually(async () => assert.notEqual(await shown('#user-id'), id))
})

test('documents are agreed to and taken back, and own data is shown', async () => {
  await logIn()
  const inSheet = async () => JSON.parse(await shown('#sheet pre'))
  await tap('agree')
  await eventually(async () => assert.deepEqual((await inSheet()).items.map(({ withdrawn_at }) => withdrawn_at), [null, null]))
  await tap('agree')
  await toasted(/已全部同意/)
  await tap('takeBack')
  await eventually(async () => assert.ok((await inSheet()).items.every(({ withdrawn_at }) => withdrawn_at)))
  await tap('myData')
  await eventually(async () => assert.equal((await inSheet()).user.id, await shown('#user-id')))
})

test('devices are listed and signed out, the phone itself last', async () => {
  await tap('codeTwice') // leaves a session behind, as another device would
  await toasted(/该凭证已被使用/)
  await logIn()
  await tap('devices')
  await eventually(async () => assert.equal(await page.locator('.devices li').count(), 2))
  await page.click('.devices button')
  await eventually(async () => assert.equal(await page.locator('.devices li').count(), 1))
  await tap('signOut')
  await sent([['phoneToService', 'POST /v1/logout', '204']])
  assert.equal(await shown('#name'), '未登录')
  await page.reload()
  await eventually(async () => assert.equal(await shown('#name'), '未登录'))
})

test('another person, or another app, is another phone', async () => {
  await logIn()
  const id = await shown('#user-id')
  await page.selectOption('#app', 'wxdev00000000000b2')
  assert.equal(await shown('#name'), '未登录')
  await logIn()
  assert.equal(await shown('#user-id'), id)
  await page.selectOption('#app', 'wxdev00000000000a1')
  await tap('login')
  await sent([])
})

test('what others ask of WeChat is shown apart', async () => {
  await fetch(`${SERVICE_URL}/v1/login`, {
    method: 'POST',
    body: '{"code": "alice"}',
    headers: { 'Content-Type': 'application/json' },
  })
  await eventually(async () => assert.match(await shown('.elsewhere'), /非本页触发[^]*GET \/sns\/jscode2session/))
})

for (const [locale, title, other] of [
  ['zh-CN', '网页版模拟手机', 'Simulated phone'],
  ['en-GB', 'Simulated phone', '网页版模拟手机'],
])
  test(`the page speaks ${locale} by itself, and the other language when asked`, async () => {
    await open({ locale })
    assert.equal(await shown('h1'), title)
    await switchLanguage(other)
    const untold = await page.evaluate(() =>
      [...document.querySelectorAll('[data-text]')]
        .filter((each) => !each.textContent)
        .map((each) => each.dataset.text),
    )
    assert.deepEqual(untold, [])
  })

for (const locale of ['zh-CN', 'en-GB'])
  test(`at the width of a phone nothing runs over the edge in ${locale}`, async () => {
    await open({ locale, viewport: { width: 375, height: 812 } })
    await logIn()
    await tap('devices')
    await sent([['phoneToService', 'GET /v1/me/sessions?limit=200', '200']])
    for (const tab of ['use', 'tokens-tab', 'faults', 'wires']) {
      await page.click(`.tabs [value=${tab}]`)
      const height = await page.evaluate(() => document.documentElement.scrollHeight)
      assert.ok(height < 2400, `${tab}: ${height}`)
    }
    await page.locator('.wire summary').evaluateAll((wires) => wires.forEach((wire) => wire.click()))
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 375)
  })

test('what a webhook brings is shown, with whether its valid signature, and may be refused', async () => {
  const receiver = `${new URL(DESK_URL).origin}/webhook`
  assert.match(await shown('#webhook-command'), /^\.wxauth\/wxauth webhooks add desk http.*\/webhook$/)
  const brought = async (status) => {
    const answer = await page.request.post(receiver, { data: { type: 'user.erased' } })
    assert.equal(answer.status(), status)
  }
  await brought(204)
  const newest = '#webhook-messages li:first-child summary'
  const without = process.env.AGAIN ? '(密钥未知|签名无效)' : '密钥未知' // a previous run may have entered the secret
  await eventually(async () => assert.match(await shown(newest), new RegExp(`user\\.erased ${without}, 204$`)))
  const answers = async (status) => {
    await reach('#webhook-secret')
    await page.fill('#webhook-secret', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
    await page.selectOption('#webhook-answer', String(status))
    await page.click('#receiver button')
    await eventually(async () => assert.equal((await page.request.post(receiver, { data: {} })).status(), status))
  }
  await answers(410)
  await brought(410)
  await eventually(async () => assert.match(await shown(newest), /user\.erased 签名无效, 410$/))
  await answers(204) // restores the initial state for another run
})

test('the keyboard does', async () => {
  await page.focus('#app')
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await sent(LOGIN)
  await page.focus('.wire summary')
  await page.keyboard.press('Enter')
  assert.equal(await page.locator('.wire[open]').count(), 1)
})

test('a service that is away is told', async () => {
  await page.route('**/desk/request', (route) => route.abort())
  await page.reload()
  await eventually(async () => assert.equal(await shown('#banner'), `wxauth 没有响应： ${SERVICE_URL}`))
  await tap('login')
  await toasted(/^网络不可用.*\s+network_error$/)
  await page.unroute('**/desk/request')
  complaints.bearWith(/ERR_FAILED/)
})

test('the page shows the requests of any client, also those from before it was opened, without their secrets', async () => {
  const code = `person-${randomUUID().slice(0, 8)}`
  const json = { 'Content-Type': 'application/json', 'User-Agent': 'curl/8.5.0' }
  const login = await fetch(`${SERVICE_URL}/v1/login`, { method: 'POST', headers: json, body: JSON.stringify({ code }) })
  const { access_token, refresh_token } = await login.json()
  const others = () =>
    page.evaluate(() => [...document.querySelectorAll('.elsewhere .wire')].map((wire) => [wire.dataset.direction, wire.textContent]))
  const isShown = async (direction, ...texts) =>
    (await others()).some(([found, content]) => found === direction && texts.every((text) => content.includes(text)))
  for (const how of ['a page that is open', 'a page that is opened later']) {
    await eventually(async () => assert.ok(await isShown('clientToService', '客户端 → wxauth', 'POST /v1/login', '200', code, 'curl/8.5.0', '•••'), how))
    await eventually(async () => assert.ok(await isShown('serviceToWeChat', 'GET /sns/jscode2session', code), how))
    const whole = await page.content()
    for (const secret of [access_token, refresh_token, access_token.slice(-20), refresh_token.slice(-20)]) assert.ok(!whole.includes(secret), how)
    await page.reload()
    await page.waitForSelector('h1:not(:empty)')
  }
  await fetch(`${SERVICE_URL}/v1/me`, { headers: { Authorization: 'Bearer none' } })
  await eventually(async () => assert.ok(await isShown('clientToService', 'GET /v1/me', '401 invalid_token', 'Bearer •••')))
  for (const hidden of ['/livez', '/docs', '/v1/pages/icon.svg']) await fetch(SERVICE_URL + hidden)
  await fetch(`${SERVICE_URL}/v1/none`)
  await eventually(async () => assert.ok(await isShown('clientToService', 'GET /v1/none', '404 not_found')))
  for (const [, content] of await others()) assert.doesNotMatch(content, /livez|GET \/docs|icon\.svg/)
})

test('a request of the phone on this page is shown once, with its tap', async () => {
  const countOfLogins = async (path) => {
    await fetch(SERVICE_URL + path)
    const what = page.locator('.wire[data-direction=clientToService] .what')
    await eventually(async () => assert.ok((await what.allTextContents()).includes(`GET ${path}`)))
    return (await what.allTextContents()).filter((text) => text === 'POST /v1/login').length
  }
  const before = await countOfLogins('/v1/before')
  await logIn()
  assert.equal(await countOfLogins('/v1/after'), before)
})

/** Empty the page's list of requests, and keep the notices away from it that WeChat repeats because of earlier tests. */
async function showNothing() {
  await page.route('**/desk/wires/*', async (route) => {
    const response = await route.fetch()
    const { calls, ...news } = await response.json()
    await route.fulfill({ response, json: { ...news, calls: calls.filter(({ direction }) => direction !== 'weChatToService') } })
  })
  await page.click('#empty')
}

for (const locale of ['zh-CN', 'en-GB'])
  test(`before the first request, the page shows an example and a command that makes the first, in ${locale}`, async () => {
    await open({ locale })
    await showNothing()
    const example = page.locator('#example')
    assert.match(await shown('#first'), locale === 'en-GB' ? /“Log in with WeChat”[^]*Example: a login/ : /“微信登录”[^]*示例：一次登录/)
    assert.deepEqual(await example.locator('.what').allTextContents(), LOGIN.map(([, what]) => what))
    assert.equal(await example.getAttribute('aria-hidden'), 'true')
    if (locale === 'zh-CN') {
      await walkByTab(page)
      await assertNoBarriers(page)
      await page.setViewportSize({ width: 1280, height: 800 })
    }
    const command = await shown('#first-command')
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.click('#copy-command')
    await toasted(/^(已复制|Copied)$/)
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command)
    const { user } = JSON.parse(execFileSync('sh', ['-c', command], { encoding: 'utf8' }))
    await eventually(async () => assert.ok((await shown('#taps')).includes('POST /v1/login')))
    assert.ok((await page.locator('#taps').textContent()).includes(user.id))
    assert.equal(await page.locator('#first').isVisible(), false)
    await page.click('#empty')
    await logIn()
    assert.equal(await example.isVisible(), false)
  })

test('the header leads to the shop, the console, the guides and the API docs', async () => {
  for (const [locale, guides] of [['zh-CN', 'docs/zh/README.md'], ['en-GB', 'docs/README.md']]) {
    await open({ locale })
    const links = await page.locator('nav a').evaluateAll((found) => found.map(({ href }) => href))
    const [shop, ...others] = links
    assert.deepEqual(others, [`${SERVICE_URL}/admin/`, `${DESK}/desk/guides/${guides}`, `${SERVICE_URL}/docs`, `${DESK}/about`])
    assert.match(await (await page.request.get(shop)).text(), /小店|Example Shop/)
    for (const link of links) assert.equal((await page.request.get(link)).status(), 200, link)
    await page.goto(links[2])
    if (locale === 'zh-CN') {
      await assertNoBarriers(page)
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), SIZES.at(-1).width)
    }
    const [title, text] = await page.evaluate(() => [document.title, document.body.innerText])
    assert.ok(text.startsWith(title))
  }
})

test('apps have names, in the language of the page, and AppIDs', async () => {
  const names = () => page.locator('#app option').allTextContents()
  assert.deepEqual(await names(), ['示例小店', '示例书店', '示例茶馆'])
  assert.equal(await shown('#app-id'), 'wxdev00000000000a1')
  await page.selectOption('#app', { label: '示例书店' })
  assert.equal(await shown('#app-id'), 'wxdev00000000000b2')
  await switchLanguage()
  assert.deepEqual(await names(), ['Example Shop', 'Example Bookshop', 'Example Teahouse'])
  assert.equal(await page.locator('#app').inputValue(), 'wxdev00000000000b2')
})

/** Return how much the brightness (0 to 255) differs within the lowest two rows of what an element shows. */
async function contrastAtBottom(selector) {
  const { x, y, width, height } = await page.locator(selector).boundingBox()
  const clip = { x: x + 40, y: y + height - 3, width: width - 80, height: 2 } // without the round corners
  const bytes = [...(await page.screenshot({ clip }))]
  return page.evaluate(async (png) => {
    const picture = await createImageBitmap(new Blob([new Uint8Array(png)]))
    const context = new OffscreenCanvas(picture.width, picture.height).getContext('2d')
    context.drawImage(picture, 0, 0)
    const { data } = context.getImageData(0, 0, picture.width, picture.height)
    const greens = data.filter((_, index) => index % 4 === 1)
    return Math.max(...greens) - Math.min(...greens)
  }, bytes)
}

test('what is cut off fades out, and nothing is faded at the end', async () => {
  await open({ viewport: { width: 1280, height: 800 } })
  await logIn()
  for (const _ of [1, 2, 3]) {
    await tap('ten')
    await eventually(nothingWaits)
  }
  for (const [selector, last] of [['.screen', '[data-tap=deleteAccount]'], ['.wires', '.taps .wire >> nth=-1']]) {
    const area = page.locator(selector)
    const end = await area.evaluate((each) => each.scrollHeight - each.clientHeight)
    assert.ok(end > 100, `${selector}: ${end}`)
    for (const top of [0, 14, 28, 42]) {
      await area.evaluate((each, top) => (each.scrollTop = top), top)
      assert.ok((await contrastAtBottom(selector)) < 16, `${selector} at ${top}`)
    }
    await area.evaluate((each) => (each.scrollTop = each.scrollHeight))
    const free = await area.evaluate((each) => parseFloat(getComputedStyle(each, '::after').height))
    const [box, lastBox] = [await area.boundingBox(), await page.locator(last).boundingBox()]
    assert.ok(lastBox.y + lastBox.height <= box.y + box.height - free + 2, selector)
  }
})

test('a name in quotes stands on one line, and nothing runs over the edge, at each width and twice the size', async () => {
  await open({ viewport: { width: 1280, height: 800 } })
  await showNothing()
  for (const width of [375, 390, 412, 430, 640, 900, 1180, 1280]) {
    await page.setViewportSize({ width, height: 400 }) // 640 × 400 is what 1280 × 800 leaves at 200 %
    for (const tab of ['use', 'faults', 'wires'])
      if (await page.locator(`.tabs [value=${tab}]`).isVisible()) await page.click(`.tabs [value=${tab}]`)
    const lines = await page.locator('[data-text] .whole').evaluateAll((names) => names.map((name) => name.getClientRects().length))
    assert.deepEqual(lines, [1], `${width}`)
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width)
  }
})
