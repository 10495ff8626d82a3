// The page of /v1/authorize in a mini-program's web-view, in Chromium with WeChat's user agent and the test's own
// bridge.
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Complaints, Pages } from '../browser.js'

const { SERVICE_URL, SITE_URL, WECHAT_URL } = process.env
const userAgent =
  'Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Mobile Safari/537.36 ' +
  'MMWEBID/1 MicroMessenger/8.0.60.2860 WeChat/arm64 NetType/WIFI Language/zh_CN ABI/arm64 miniProgram/wx1234567890abcdef'

const complaints = new Complaints(SERVICE_URL, SITE_URL, WECHAT_URL)
const pages = new Pages(SERVICE_URL, complaints, { userAgent, locale: 'zh-CN', viewport: { width: 375, height: 667 } })
before(() => pages.start())
after(() => pages.browser.close())
afterEach(() => complaints.check())

/**
 * Define the bridge that every web-view has. It records calls for the test. With `after`, it appears after the page has
 * loaded, with its event.
 */
function bridge({ after }) {
  window.calls = []
  const come = () => {
    window.WeixinJSBridge = { invoke: (...call) => void window.calls.push(call.slice(0, 2)) }
    document.dispatchEvent(new Event('WeixinJSBridgeReady'))
  }
  if (after) addEventListener('load', () => setTimeout(come, after))
  else come()
}

async function shown({ after = null } = {}) {
  const page = await pages.fresh(after === null ? {} : { colorScheme: after ? 'dark' : 'light' })
  if (after !== null) await page.addInitScript(bridge, { after })
  await page.goto(`${SITE_URL}/login`)
  return page
}

/** Return the site's request from the URL of the mini-program's page, as the mini-program decodes it. */
function parametersOf(url) {
  const [, query] = url.split('?')
  return Object.fromEntries(query.split('&').map((pair) => pair.split('=').map(decodeURIComponent)))
}

async function json(path, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
  const answer = await fetch(SERVICE_URL + path, { method: 'POST', headers, body: JSON.stringify(body) })
  assert.ok(answer.ok, await answer.clone().text())
  return answer.json()
}

test('the mini-program is asked at once, and by the button again, and the site logs in', async () => {
  const page = await shown({ after: 0 })
  await page.waitForFunction(() => window.calls.length === 1)
  await page.getByRole('button', { name: '登录' }).click()
  const [call, again] = await page.evaluate(() => window.calls)
  assert.deepEqual(again, call)
  const [api, { name, arg }] = call
  assert.deepEqual([api, name, Object.keys(arg)], ['invokeMiniProgramAPI', 'redirectTo', ['url']])
  const [path] = arg.url.split('?')
  assert.equal(path, '/pages/authorize/authorize')
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth))

  const { access_token, user } = await json('/v1/login', { code: 'alice' })
  const asked = parametersOf(arg.url)
  const { redirect_to } = await json('/v1/me/authorizations', { ...asked, login_code: 'alice' }, access_token)
  await page.goto(redirect_to) // the <web-view> of the mini-program's page also does this, with its previous cookies
  await page.getByText('已登录').waitFor()
  assert.match(await page.textContent('pre'), new RegExp(user.id))
})

test("a stranger's answer opens no session of the site in this web-view", async () => {
  const page = await shown({ after: 0 })
  await page.waitForFunction(() => window.calls.length === 1)
  const url = await page.evaluate(() => window.calls[0][1].arg.url)
  const { access_token } = await json('/v1/login', { code: 'mallory' })
  const asked = parametersOf(url)
  const { redirect_to } = await json('/v1/me/authorizations', { ...asked, login_code: 'mallory' }, access_token)
  await page.context().clearCookies() // the web-view of another user has never sent this request
  await page.goto(redirect_to)
  await page.getByText('未登录: mismatching_state').waitFor()
})

test('with response_mode=form_post, a page posts the answer to the site', async () => {
  const page = await shown({ after: 0 })
  await page.waitForFunction(() => window.calls.length === 1)
  const url = await page.evaluate(() => window.calls[0][1].arg.url)
  const { access_token } = await json('/v1/login', { code: 'alice' })
  const asked = parametersOf(url)
  const body = { ...asked, response_mode: 'form_post', login_code: 'alice' }
  const { redirect_to } = await json('/v1/me/authorizations', body, access_token)
  await page.route(`${SITE_URL}/**`, (route) => route.fulfill({ body: 'posted' }))
  const posted = page.waitForRequest((request) => request.method() === 'POST')
  await page.goto(redirect_to)
  const form = new URLSearchParams((await posted).postData())
  assert.deepEqual([...form.keys()], ['code', 'state', 'iss'])
  assert.equal(form.get('state'), asked.state)
  await page.getByText('posted').waitFor()
})

test('a bridge that comes later is waited for', async () => {
  const page = await shown({ after: 100 })
  await page.waitForFunction(() => window.calls.length === 1)
  assert.match(page.url(), /\/v1\/authorize\?/)
  assert.equal(await page.getByRole('button').count(), 1)
})

for (const javaScriptEnabled of [true, false]) {
  test(`in WeChat one button leads to its page, which is asked when it is pressed: scripts ${javaScriptEnabled}`, async () => {
    const page = await pages.fresh({ userAgent: userAgent.replace(/ miniProgram.*/, ''), javaScriptEnabled })
    await page.goto(`${SITE_URL}/login`)
    assert.match(page.url(), /\/v1\/authorize\?/) // nothing has happened automatically
    assert.equal(await page.locator('.button').count(), 1)
    const { width } = await page.locator('main').boundingBox()
    assert.ok(width <= 375)
    await page.getByRole('link', { name: '微信登录' }).click()
    await page.fill('[name=person]', 'alice')
    await page.getByRole('button', { name: '允许' }).click()
    await page.getByText('已登录').waitFor()
    assert.match(await page.textContent('pre'), /wechat_account/)
    assert.ok(!page.url().includes('code='))
  })
}

test('without a bridge the page shows its code after three seconds', async () => {
  const page = await shown()
  await page.getByText(/^[B-Z]{4}-[B-Z]{4}$/).waitFor()
  assert.match(page.url(), /[?&]door=scan(&|$)/)
})
