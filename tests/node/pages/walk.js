// Leads a browser through every state of the pages for users who log in to a site, with a running `wxauth-desk dev`.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { PATIENCE } from '../browser.js'
import { asks, makeAdministrator } from '../console/driving.js'
import { json } from '../oauth/person.js'

const { SERVICE_URL } = process.env
const CALLBACK = 'https://shop.example.com/callback' // shown on pages, but never opened
export const OPENED = `${SERVICE_URL}/livez`
const CHALLENGE = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM' // from RFC 7636, appendix B
const IPHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile/15E148'
const IN_WECHAT = `${IPHONE} MicroMessenger/8.0.60`
const IN_WEB_VIEW = `${IN_WECHAT} miniProgram/wx1234567890abcdef`
const picture = async (path) => `data:image/png;base64,${await readFile(new URL(path, import.meta.url), 'base64')}`
const LOGO = await picture('logo.png')
const SITE_LOGO = await picture('../../../desk/src/wxauth_desk/shop.png')
const UNKNOWN = 'A'.repeat(22)

/** The data of a page in each language: sites with short and long names, and a user. */
export const LANGUAGES = {
  en: { site: 'pages-en', title: 'Corner Shop', long: 'pages-long-en', longTitle: 'Returns, Repairs and Exchanges for Members of the Corner Shop', person: 'Alice', tool: 'pages-tool-en', toolTitle: 'Cluster', longPerson: 'Alexandra-Constantina_Wolfeschlegelsteinhausenbergerdorff_Kent' },
  'zh-CN': { site: 'pages-zh', title: '小店', long: 'pages-long-zh', longTitle: '街角小店会员服务中心（退换货、维修预约与积分兑换综合办理平台）', person: '李晓梅', tool: 'pages-tool-zh', toolTitle: '集群', longPerson: '街角小店三号店的店长助理李晓梅（周末值班，急事请打电话，谢谢）' },
}

/** Add the sites. */
export async function addSites() {
  const root = await makeAdministrator('root')
  const headers = { 'Content-Type': 'application/json' }
  const doors = { account_app_id: 'wxdevaccount0000d4', website_app_id: 'wxdevwebsite0000e5', sso: true }
  const add = async (name, title, link, app_id, logo) => {
    const body = JSON.stringify({ name, title, link, logo, app_id, is_public: true, redirect_uris: [CALLBACK, 'http://127.0.0.1/livez'], ...doors })
    const answer = await asks(root, '/v1/admin/clients', { method: 'POST', body, headers })
    assert.ok(answer.ok, await answer.clone().text())
  }
  const shop = { app_id: 'wxdev00000000000c3', app_secret: 'dev-secret-of-the-third-app', title: '街角小店', logo: LOGO }
  assert.ok((await asks(root, '/v1/admin/apps', { method: 'POST', body: JSON.stringify(shop), headers })).ok)
  for (const { site, title, long, longTitle, tool, toolTitle } of Object.values(LANGUAGES)) {
    await add(site, title, true, shop.app_id, SITE_LOGO)
    await add(long, longTitle, false)
    for (const [name, user_code] of [[tool, true], [`${tool}-2`, false]]) {
      const body = JSON.stringify({ name, title: toolTitle, device: true, user_code, redirect_uris: ['http://localhost:8000'] })
      const answer = await asks(root, '/v1/admin/clients', { method: 'POST', body, headers })
      secrets.set(name, (await answer.json()).client_secret)
    }
  }
}

/** The secrets of the tools, which start a login with the device grant. */
const secrets = new Map()

/** Start a login as a tool on another computer. */
export async function startAtTool(name) {
  const headers = { authorization: `Basic ${btoa(`${name}:${secrets.get(name)}`)}`, 'X-Forwarded-For': '203.0.113.7' }
  const answer = await fetch(`${SERVICE_URL}/v1/device_authorization`, { method: 'POST', headers, body: new URLSearchParams({ scope: 'openid' }) })
  assert.ok(answer.ok, await answer.clone().text())
  return answer.json()
}

/** Create a user's phone. `claim` scans a code, and `decide` approves or denies. */
export async function phoneOf(code, nickname, picture) {
  const { access_token } = await json('/v1/login', { code, nickname })
  const headers = { authorization: `Bearer ${access_token}` }
  if (picture) {
    const body = new FormData()
    body.append('file', new Blob([picture], { type: 'image/png' }), 'picture.png')
    assert.ok((await fetch(`${SERVICE_URL}/v1/me/avatar`, { method: 'POST', body, headers })).ok)
  }
  return {
    claim: (scene, entry_scene = 1047) => json('/v1/me/scans', { scene, entry_scene }, headers),
    decide: ({ id }, verdict) => json(`/v1/me/scans/${id}/${verdict}`, { login_code: code }, headers),
  }
}

/** Open a page of a browser in this language. */
export async function openPage(browser, lang, options = {}) {
  const context = await browser.newContext({ locale: lang, viewport: { width: 1280, height: 720 }, ...options })
  context.setDefaultTimeout(PATIENCE)
  // otherwise the page in the web-view would go on
  await context.addInitScript(() => (window.WeixinJSBridge = { invoke() {} }))
  return context.newPage()
}

export const authorizeUrl = (site, more = {}) => {
  const asked = { client_id: site, redirect_uri: CALLBACK, response_type: 'code', scope: 'openid profile', state: 'a' }
  return `${SERVICE_URL}/v1/authorize?${new URLSearchParams({ ...asked, code_challenge: CHALLENGE, code_challenge_method: 'S256', ...more })}`
}

/** Open the page of a site, and wait for its QR code, unless the code is folded. */
export async function openCode(page, site, more) {
  await page.goto(authorizeUrl(site, more))
  await page.waitForFunction(() => {
    const code = document.querySelector('.code img')
    return code && (!code.checkVisibility() || code.naturalWidth > 200)
  })
}

export const sceneOf = async (page) => (await page.getAttribute('.code img', 'src')).split('/')[3]

/** Set the user agent that this page sends. */
export const be = (page, userAgent) => page.setExtraHTTPHeaders(userAgent ? { 'User-Agent': userAgent } : {})
export { IPHONE }

/** Show each state on this page, and call `look` with the state's name. */
export async function walk(page, lang, look) {
  const { site, long, person, longPerson, tool } = LANGUAGES[lang]
  const phone = await phoneOf(`person-${lang}`, person, await portrait(page))
  const nameless = await phoneOf(`nameless-${lang}`)
  const longNamed = await phoneOf(`long-named-${lang}`, longPerson)
  const show = async (name, path) => {
    await page.goto(SERVICE_URL + path)
    await look(name)
  }
  const state = (name) => page.waitForSelector(`main[data-state=${name}]`)

  await openCode(page, site)
  await look('code')
  await page.click('summary')
  await look('code-other-ways')
  const claimed = await phone.claim(await sceneOf(page))
  await state('claimed')
  await look('claimed')
  await page.route('**/next', (route) => route.fulfill({ status: 204 })) // the page stays as it is
  await phone.decide(claimed, 'deny')
  await state('denied')
  await look('denied')
  await page.unroute('**/next')
  await page.route('**/state', (route) => route.fulfill({ status: 404, body: '' }))
  await openCode(page, long)
  await state('over')
  await page.unroute('**/state')
  await look('over')

  await be(page, IPHONE)
  await openCode(page, long)
  await look('phone')
  await page.click('summary')
  await page.waitForFunction(() => document.querySelector('.code img').naturalWidth > 200)
  await look('phone-another')
  await openCode(page, site)
  await look('link')
  await page.route('**/link', (route) => route.fulfill({ status: 204 })) // doesn't open WeChat
  await page.click('form button')
  await page.waitForSelector('#number', { state: 'visible' })
  await look('link-pressed')
  await page.unroute('**/link')
  const own = (await page.getAttribute('form.number', 'action')).replace(/\/number$/, '')
  const typeIn = async (number, name) => {
    await page.fill('#number', number)
    await page.click('form.number button')
    await page.waitForSelector('[role=alert]')
    await look(name)
  }
  await typeIn('482', 'number-missing')
  const pressed = await page.request.post(SERVICE_URL + own + '/link', { maxRedirects: 0 })
  const scene = decodeURIComponent(new URL(pressed.headers().location).searchParams.get('query')).replace(/^s=/, '')
  const { number } = await phone.decide(await phone.claim(scene, 1286), 'approve')
  await typeIn(number === '482913' ? '482914' : '482913', 'number-wrong')
  for (let presses = 1; presses < 10; presses++) await page.request.post(SERVICE_URL + own + '/link', { maxRedirects: 0 })
  await page.click('form:not(.number) button')
  await page.waitForFunction(() => !document.querySelector('form'))
  await look('used-up')

  await be(page, IN_WECHAT)
  await show('account', authorizeUrl(site).slice(SERVICE_URL.length))
  await be(page, IN_WEB_VIEW)
  await show('web-view', authorizeUrl(site).slice(SERVICE_URL.length))
  await be(page)
  await walkDevices(page, tool, phone, look)
  for (const [name, path] of [
    ['link-opened', `/d/${UNKNOWN}`],
    ['snapshot', `/v1/authorize/${UNKNOWN}/wechat/snapshot`],
    ['again', `/v1/authorize/${UNKNOWN}/wechat/again`],
    ['over-at-wechat', `/v1/authorize/${UNKNOWN}/wechat/over`],
    ['done', `/v1/authorize/${UNKNOWN}/wechat/done`],
    ['away', '/v1/authorize/wechat/away'],
    ['elsewhere', `/v1/authorize/${UNKNOWN}/cancel`],
    ['not-confirmed', `/v1/authorize/${UNKNOWN}/next`],
    ['mistake', `/v1/authorize?client_id=${long}&redirect_uri=https://shop.example.com/wrong`],
    ['wrong-log-out', '/v1/end_session?id_token_hint=a'],
    ['nobody', '/v1/end_session'],
  ])
    await show(name, path)
  await page.route('**/post.js', (route) => route.fulfill({ contentType: 'text/javascript', body: '' }))
  await openCode(page, site, { response_mode: 'form_post' })
  await page.click('.links a')
  await page.waitForSelector('form')
  await look('form-post')
  await page.unroute('**/post.js')

  for (const [name, who, next] of [
    ['continue-without-name', nameless, site],
    ['continue-with-long-name', longNamed, long],
    ['continue', phone, site],
  ]) {
    await openCode(page, site, { prompt: 'login', redirect_uri: OPENED })
    await who.decide(await who.claim(await sceneOf(page)), 'approve')
    await page.waitForURL(`${OPENED}?**`)
    await page.goto(authorizeUrl(next))
    await look(name)
  }
  await show('log-out', '/v1/end_session')
  await page.click('form button')
  await page.waitForFunction(() => !document.querySelector('form'))
  await look('logged-out')
}

/** Show the pages on which a user brings a tool's login to a browser. */
async function walkDevices(page, tool, phone, look) {
  const { user_code, verification_uri } = await startAtTool(tool)
  const type = async (code) => {
    await page.fill('#user_code', code)
    await page.keyboard.press('Enter')
  }
  await page.goto(verification_uri)
  await look('device')
  await type('BCDF-GHJK')
  await page.waitForSelector('[role=alert]')
  await look('device-wrong')
  await type((await startAtTool(`${tool}-2`)).user_code)
  await page.waitForSelector('details')
  await look('device-not-typed')
  await page.goto(verification_uri)
  await type(user_code)
  await page.waitForURL('**/d/**')
  await look('device-login')
  await page.focus('form button')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelector('.code img')?.naturalWidth > 200)
  await look('device-code')
  await phone.decide(await phone.claim(await sceneOf(page)), 'deny')
  await page.waitForSelector('main[data-state=denied]')
  await look('device-denied')
  await be(page, IPHONE)
  await page.goto(verification_uri)
  await look('device-on-phone')
  await be(page)
}

/** Use up this address's logins for a minute, and show the page that reports this limit. */
export async function walkLimited(page, look) {
  let tries = 0
  while ((await fetch(authorizeUrl(LANGUAGES.en.site))).status !== 429) assert.ok(++tries < 200)
  await page.goto(authorizeUrl(LANGUAGES.en.site))
  await look('limited')
}

/** Draw a small picture of a face, and return it as PNG. */
async function portrait(page) {
  const url = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 144, height: 144 })
    const context = canvas.getContext('2d')
    const fill = (colour, ...circle) => {
      context.fillStyle = colour
      context.beginPath()
      context.arc(...circle, 0, 7)
      context.fill()
    }
    context.fillStyle = '#8fb8d8'
    context.fillRect(0, 0, 144, 144)
    fill('#2f4858', 72, 150, 52)
    fill('#3a2a20', 72, 58, 36)
    fill('#f3cfae', 72, 66, 28)
    return canvas.toDataURL('image/png')
  })
  return Buffer.from(url.split(',')[1], 'base64')
}
