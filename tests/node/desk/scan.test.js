// The example sites in a real browser. The desk's phone logs in to them, with a running `wxauth-desk dev`.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, afterEach, before, test } from 'node:test'
import { Complaints, PATIENCE, assertNoBarriers, launch } from '../browser.js'

const { DESK_URL, SERVICE_URL, SITE_URL, SCREENSHOTS } = process.env
const complaints = new Complaints(new URL(DESK_URL).origin, SERVICE_URL, SITE_URL)
let browser
let contexts = []
before(async () => {
  browser = await launch()
})
after(() => browser.close())
afterEach(async () => {
  for (const context of contexts) await context.close()
  contexts = []
  complaints.check()
})

/** Open a page in a new browser context with these options of Playwright. */
async function newBrowser(options = {}) {
  const context = await browser.newContext({ locale: 'zh-CN', viewport: { width: 1280, height: 900 }, ...options })
  context.setDefaultTimeout(PATIENCE)
  contexts.push(context)
  return complaints.hear(await context.newPage())
}

async function desk() {
  const page = await newBrowser()
  await page.goto(DESK_URL)
  await page.waitForSelector('h1:not(:empty)')
  const person = `person-${randomUUID().slice(0, 8)}`
  await page.fill('#person', person)
  await page.locator('#person').blur()
  return { page, person }
}

/** Follow the site's own link to the page with the QR code, and return the code's scene. */
async function codePage(page) {
  await page.goto(SITE_URL)
  await page.click('a[href="/login"]')
  await page.waitForURL(`${SERVICE_URL}/v1/authorize?**`)
  await page.waitForFunction(() => document.querySelector('.code img').naturalWidth > 200)
  return (await page.getAttribute('.code img', 'src')).split('/')[3]
}

const picture = async (page, name, options) =>
  SCREENSHOTS && page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true, ...options })

async function scan(phone, scene, entry = '1047') {
  await phone.fill('#code', scene)
  await phone.selectOption('#entry', entry)
  await phone.click('#scan button')
}

test('a newcomer opens the site, scans on the desk, and is logged in', async () => {
  const site = await newBrowser()
  const { page: phone } = await desk()
  const scene = await codePage(site)
  await picture(site, 'code')
  await phone.waitForFunction((newest) => document.querySelector('#code').value === newest, scene)
  await scan(phone, scene, '1049')
  await phone.locator('#toast code', { hasText: /^scan_forwarded$/ }).waitFor() // this toast disappears soon
  await scan(phone, scene)
  await phone.waitForSelector('#sheet strong')
  assert.match(await phone.locator('#sheet').innerText(), /Example Shop/)
  await picture(phone, 'desk')
  await site.waitForFunction(() => document.querySelector('main').dataset.state === 'claimed')
  assert.match(await site.locator('.status').innerText(), /手机上确认/)
  await picture(site, 'claimed')
  await phone.click('#sheet .buttons button:last-child')
  await phone.waitForSelector('#sheet', { state: 'hidden' })
  await site.waitForURL(`${SITE_URL}/`)
  const told = JSON.parse(await site.locator('pre').textContent())
  assert.equal(told.iss, SERVICE_URL)
  assert.deepEqual(told.amr, ['wechat_scan'])
  await phone.click('[data-tap=devices]')
  await phone.waitForFunction(() => document.querySelector('#sheet .devices')?.innerText.includes('wxauth-example'))

  await site.click('a[href="/logout"]')
  await site.waitForSelector('a[href="/login"]')
  await phone.click('[data-tap=devices]')
  await phone.waitForFunction(() => document.querySelectorAll('#sheet .devices li').length === 1)
})

/** Log in to the shop with a scan, and return its page. */
async function atTheShop(options) {
  const shop = await newBrowser(options)
  const { page: phone } = await desk()
  await scan(phone, await codePage(shop))
  await phone.click('#sheet .buttons button:last-child')
  await shop.waitForURL(`${SITE_URL}/`)
  return shop
}

for (const [name, options, goOn, told, leave] of [
  ['light', {}, /继续/, /wxauth 已通知本网站/, '退出登录'],
  [
    'dark and small',
    { locale: 'en', colorScheme: 'dark', viewport: { width: 375, height: 667 } },
    /^Continue/,
    /wxauth notified this site/,
    'Log out',
  ],
]) {
  test(`one login is for the shop and its admin, and a log-out of one is told to the other: ${name}`, async () => {
    const shop = await atTheShop(options)
    const admin = complaints.hear(await shop.context().newPage())
    await admin.goto(`${SITE_URL}/admin`)
    await picture(admin, `admin-closed-${name}`)
    assert.equal(await admin.locator('table').count(), 0)
    assert.match(await admin.locator('main').innerText(), /don't have to scan|无需扫码/)
    await admin.click('a.button')
    await admin.getByRole('button', { name: goOn }).click()
    await admin.waitForSelector('table')
    for (const page of [shop, admin]) {
      const { width, inner } = await page
        .locator('html')
        .evaluate((root) => ({ width: root.scrollWidth, inner: root.clientWidth }))
      assert.ok(width <= inner, `${width} of ${inner}`)
      await assertNoBarriers(page, { sizes: [page.viewportSize()] })
    }
    await picture(shop, `shop-${name}`)
    await picture(admin, `admin-${name}`)
    await admin.getByRole('link', { name: leave }).click()
    await admin.waitForURL(`${SITE_URL}/admin/`)
    await shop.getByRole('status').waitFor()
    assert.match(await shop.getByRole('status').innerText(), told)
    await picture(shop, `shop-told-${name}`)
  })
}

test('nobody but wxauth tells the shop that a session has ended', async () => {
  const shop = await atTheShop()
  const claims = JSON.parse(await shop.locator('pre').textContent())
  const body = new URLSearchParams({ logout_token: `e30.${btoa(JSON.stringify(claims))}.e30` })
  for (const form of [body, new URLSearchParams()]) {
    const answer = await fetch(`${SITE_URL}/backchannel-logout`, { method: 'POST', body: form })
    assert.equal(answer.status, 400)
  }
  await shop.reload()
  assert.match(await shop.locator('.who').innerText(), /已登录/)
})

test('a page of the sites is read in the other language', async () => {
  const shop = await newBrowser()
  await shop.goto(SITE_URL)
  await shop.getByRole('link', { name: 'English' }).click()
  await shop.getByRole('link', { name: 'Log in with a WeChat QR code' }).click()
  await shop.waitForURL(/ui_locales=en/)
})

test('a person who refuses is not logged in, and the site says so', async () => {
  const site = await newBrowser({ locale: 'en' })
  const { page: phone } = await desk()
  await scan(phone, await codePage(site))
  await phone.click('#sheet .buttons button:first-child')
  await site.waitForURL(`${SITE_URL}/callback?**`)
  assert.match(await site.locator('body').innerText(), /access_denied/)
})

test('the code that the page shows in letters can be typed, and the phone warns', async () => {
  const site = await newBrowser()
  const { page: phone } = await desk()
  await codePage(site)
  await site.click('summary')
  await scan(phone, await site.locator('.typed').innerText())
  await phone.waitForSelector('#sheet strong')
  assert.match(await phone.locator('#sheet').innerText(), /手动输入/)
  await phone.click('#sheet .buttons button:last-child')
  await site.waitForURL(`${SITE_URL}/`)
})

test('what somebody types, or is about to type, is not replaced by a code that comes then', async () => {
  const site = await newBrowser()
  const { page: phone } = await desk()
  const arrived = (scene) => phone.waitForSelector(`.elsewhere >> text=${scene}`, { state: 'attached' })
  await phone.focus('#code')
  const before = await phone.inputValue('#code')
  const offered = await codePage(site)
  await arrived(offered)
  assert.equal(await phone.inputValue('#code'), before)
  await phone.locator('#code').blur()
  await phone.waitForFunction((scene) => document.querySelector('#code').value === scene, offered)
  await phone.fill('#code', 'BCDF')
  await phone.locator('#code').blur()
  await arrived(await codePage(site))
  assert.equal(await phone.inputValue('#code'), 'BCDF')
})

test('two tabs of one browser go on by themselves', async () => {
  const first = await newBrowser()
  const second = await first.context().newPage()
  second.setDefaultTimeout(PATIENCE)
  const { page: phone } = await desk()
  const scenes = [await codePage(first), await codePage(second)]
  for (const [tab, scene] of [
    [second, scenes[1]],
    [first, scenes[0]],
  ]) {
    await scan(phone, scene)
    await phone.waitForSelector('#sheet strong')
    await phone.click('#sheet .buttons button:last-child')
    await tab.waitForURL(new RegExp(`^${SITE_URL}/`))
    await phone.waitForSelector('#sheet', { state: 'hidden' })
  }
})

test('a code that is over is renewed at a click', async () => {
  const site = await newBrowser()
  const scene = await codePage(site)
  await site.route('**/state', (route) => route.fulfill({ status: 404, body: '' }), { times: 1 })
  await site.waitForSelector('.renew:not([hidden])')
  await picture(site, 'over')
  await site.click('.renew')
  await site.waitForFunction((old) => document.querySelector('.code img')?.src.includes(old) === false, scene)
  await site.waitForSelector('main[data-state=waiting]')
})

test('no network for a moment is no end', async () => {
  const site = await newBrowser()
  const { page: phone } = await desk()
  const scene = await codePage(site)
  await site.route('**/state', (route) => route.abort(), { times: 2 })
  await scan(phone, scene)
  await phone.click('#sheet .buttons button:last-child')
  await site.waitForURL(`${SITE_URL}/`)
  complaints.bearWith(/net::ERR_FAILED/)
})

test('a site in the web-view is logged in to by the mini-program around it, and each person has a web-view', async () => {
  const { page: phone } = await desk()
  const shown = phone.locator('#web-page')
  await phone.click('#web-view button')
  await shown.getByRole('button', { name: '微信扫码登录' }).click()
  await shown.getByText('已登录').waitFor()
  const told = JSON.parse(await shown.locator('pre').innerText())
  assert.deepEqual(told.amr, ['wechat_mini_program'])
  assert.equal(told.sub, await phone.locator('#user-id').innerText())
  assert.match(await phone.locator('#taps').textContent(), /POST \/v1\/me\/authorizations/)
  await phone.fill('#person', `other-${randomUUID().slice(0, 8)}`)
  await phone.locator('#person').blur()
  await phone.click('#web-view button')
  await shown.getByRole('button', { name: '微信扫码登录' }).waitFor()
})

test("one person logs in to a site by WeChat's pages, in WeChat and on a computer", async () => {
  const { page: phone } = await desk()
  const shown = phone.locator('#web-page')
  const people = new Set()
  for (const [browser, button, amr] of [
    ['wechat', '微信登录', 'wechat_account'],
    ['computer', '用这台电脑上的微信登录', 'wechat_website'],
  ]) {
    await phone.selectOption('#browser', browser)
    await phone.click('#web-view button')
    for (const name of ['微信扫码登录', button, /^允许 /]) await shown.getByRole('button', { name }).click()
    await shown.getByText('已登录').waitFor()
    const told = JSON.parse(await shown.locator('pre').innerText())
    assert.deepEqual(told.amr, [amr])
    people.add(told.sub)
  }
  assert.equal(people.size, 1)
})

/** Open the shop in the phone's browser outside WeChat. Its button opens the mini-program next to the page. */
async function linkOpened() {
  const { page: phone } = await desk()
  const shown = phone.locator('#web-page')
  await phone.selectOption('#browser', 'phone')
  await phone.click('#web-view button')
  await shown.getByRole('button', { name: '微信扫码登录' }).click()
  await shown.getByRole('button', { name: '微信登录', exact: true }).click()
  const opened = phone.locator('#sheet')
  await opened.getByText('刚才是你在浏览器中点击了按钮吗').waitFor()
  return { phone, shown, opened }
}

async function typeNumber(shown, number) {
  await shown.getByLabel(/数字/).fill(number)
  await shown.getByRole('button', { name: '继续' }).click()
}

test("in a phone's browser, a button opens the mini-program, and its number is typed beside it", async () => {
  const { phone, shown, opened } = await linkOpened()
  await picture(phone, 'desk-link-asks', { fullPage: false })
  assert.equal(await shown.locator('h1, p').first().isVisible(), true) // the browser's page stays visible
  await opened.getByRole('button', { name: '登录' }).click()
  const number = await opened.locator('output').innerText()
  assert.match(number, /^[0-9]{3} [0-9]{3}$/)
  await picture(phone, 'desk-link-number', { fullPage: false })
  await typeNumber(shown, number.startsWith('000') ? '111111' : '000000')
  await shown.getByText('数字不正确').waitFor()
  assert.equal(await opened.locator('output').innerText(), number)
  await typeNumber(shown, number)
  await shown.getByText('已登录').waitFor()
  assert.deepEqual(JSON.parse(await shown.locator('pre').innerText()).amr, ['wechat_link'])
  await opened.waitFor({ state: 'hidden' })
  // The proof works for both sites.
  await phone.fill('#address', `${SITE_URL}/admin/`)
  await phone.click('#web-view button')
  await shown.getByRole('button', { name: '微信扫码登录' }).click()
  await shown.getByRole('button', { name: /继续/ }).click()
  await shown.getByText('今日概况').waitFor()
})

test("a person who did not press the button in the phone's browser refuses", async () => {
  const { shown, opened } = await linkOpened()
  await opened.getByRole('button', { name: '拒绝' }).click()
  await opened.waitFor({ state: 'hidden' })
  await typeNumber(shown, '000000')
  await shown.getByText('access_denied').waitFor()
})

/** Let the desk's agent ask for approval, and scan the QR code of the page that it opens. Return this page. */
async function connectAgent(phone) {
  const opened = phone.waitForEvent('popup')
  await phone.click('[data-tap=connect]')
  const page = complaints.hear(await opened)
  await page.waitForFunction(() => document.querySelector('.code img')?.naturalWidth > 200)
  await scan(phone, (await page.getAttribute('.code img', 'src')).split('/')[3])
  return page
}

test("the desk's agent is approved on its phone, calls a tool, and is refused once it is ended there", async () => {
  const { page: phone } = await desk()
  const state = phone.locator('#agent-state')
  const toast = (text) => phone.locator('#toast', { hasText: text }).waitFor()
  await phone.click('[data-tap=listOrders]')
  await toast('401')
  const page = await connectAgent(phone)
  const asked = phone.locator('#sheet')
  for (const text of ['Desk agent', '小店助手', '查看你的订单', '替你下单、退单']) await asked.getByText(text).first().waitFor()
  await picture(phone, 'desk-agent-asks')
  await asked.getByRole('button', { name: '允许' }).click()
  await page.getByText('可以关闭此页面').waitFor()
  assert.equal(new URL(page.url()).search, '')
  await state.getByText('orders:read orders:write').waitFor()
  await phone.click('[data-tap=placeOrder]')
  await toast('ordered: 乌龙茶')
  await phone.click('[data-tap=expireAgents]')
  await phone.click('[data-tap=listOrders]')
  await toast(/^乌龙茶$/)
  await picture(phone, 'desk-agent')
  await phone.click('[data-tap=devices]')
  const session = asked.locator('li', { hasText: '小店助手' })
  await session.getByRole('button').click()
  await session.waitFor({ state: 'detached' })
  await phone.click('[data-tap=listOrders]')
  await toast(/^乌龙茶$/) // works until its access token expires
  await phone.click('[data-tap=expireAgents]')
  await phone.click('[data-tap=listOrders]')
  await toast('invalid_grant')
  await state.getByText('未连接').waitFor()
  assert.match(await phone.locator('#taps').textContent(), /POST .*\/mcp/)
})

test("the desk's agent that connects once more after its token has expired calls tools without one", async () => {
  const { page: phone } = await desk()
  await connectAgent(phone)
  await phone.locator('#sheet').getByRole('button', { name: '允许' }).click()
  await phone.locator('#agent-state', { hasText: 'orders:read' }).waitFor()
  await phone.click('[data-tap=expireAgents]')
  await connectAgent(phone)
  await phone.click('[data-tap=listOrders]')
  await phone.locator('#toast code', { hasText: /^401$/ }).waitFor()
})

test("the desk's agent is told that its person has refused", async () => {
  const { page: phone } = await desk()
  await connectAgent(phone)
  await phone.locator('#sheet').getByRole('button', { name: '拒绝' }).click()
  await phone.locator('#toast', { hasText: 'access_denied' }).waitFor()
})

for (const [name, options] of Object.entries({
  phone: { viewport: { width: 320, height: 640 }, userAgent: 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_1) Mobile' },
  dark: { colorScheme: 'dark', locale: 'en' },
  'without a script': { javaScriptEnabled: false },
  'without a picture': {},
})) {
  test(`the page fits: ${name}`, async () => {
    const site = await newBrowser(options)
    const isMissing = name === 'without a picture'
    if (isMissing) await site.route('**/code', (route) => route.abort())
    const missed = isMissing && site.waitForEvent('console', (message) => /net::ERR_FAILED/.test(message.text()))
    await site.goto(SITE_URL)
    await site.click('a[href="/login"]')
    await site.click('summary') // this part of the page contains the code in letters
    await site.waitForSelector('.typed')
    if (await missed) complaints.bearWith(/net::ERR_FAILED/)
    const { width, inner } = await site
      .locator('html')
      .evaluate((root) => ({ width: root.scrollWidth, inner: root.clientWidth }))
      .catch(() => ({ width: 0, inner: 0 }))
    assert.ok(width <= inner, `${width} of ${inner}`)
    assert.match(await site.locator('.typed').innerText(), /^[B-Z]{4}-[B-Z]{4}$/)
    assert.equal(await site.getByRole('button', { name: '微信登录', exact: true }).count(), name === 'phone' ? 1 : 0)
    assert.equal(await site.locator('noscript').count(), 1)
    await picture(site, name.replaceAll(' ', '-'))
  })
}
