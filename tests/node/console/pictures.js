// Takes the screenshots of docs/manage/console.md and of the desk, in both languages. scripts/pictures runs it.
import { launch } from '../browser.js'
import { CONSOLE_URL, DESK_URL, SERVICE_URL, LATER_APP, asks, linkFor, logIn, makeAdministrator } from './driving.js'

const [folder] = process.argv.slice(2)
const NAMES = ['小明', '李雷', '韩梅梅', 'Anna', '王芳', '张伟', 'Ben', '刘洋', '陈静', '赵敏', 'Chloé', '孙悦']
const IPHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44'
const ANDROID = 'Mozilla/5.0 (Linux; Android 14) MicroMessenger/8.0.47'

const root = await makeAdministrator('root')
await logIn('alice', { nickname: 'Alice' }) // the user of the desk
const people = []
// most users have no nickname
for (const [place, device] of [IPHONE, ANDROID].entries()) await logIn(`nameless-${place}`, {}, { 'User-Agent': device, 'X-Forwarded-For': `198.51.100.${20 + place}` })
for (const [place, nickname] of NAMES.entries()) {
  const browser = { 'User-Agent': place % 2 ? ANDROID : IPHONE, 'X-Forwarded-For': `203.0.113.${(place * 37) % 200}` }
  people.push(await logIn(`person-${place}`, { nickname, phoneCode: place % 3 ? undefined : `phone-1380013800${place}` }, browser))
}
const change = (path, method, body) =>
  asks(root, `/v1/admin${path}`, { method, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } })
for (const [name, url, types] of [
  ['crm', new URL('/webhook', DESK_URL).href, []],
  ['orders', 'https://orders.example.com/hooks/wxauth', ['user.erased', 'user.merged']],
])
  await change('/webhooks', 'POST', { name, url, types })
const friday = new Date(Date.now() + 5 * 86_400_000).toISOString()
await change(`/users/${people[1].user.id}`, 'PATCH', { status: 'disabled', reason: '群发广告', until: friday })
await change(`/users/${people[0].user.id}`, 'PATCH', { attributes: { tier: 'gold' } })
for (const [place, roles] of [[2, ['editor']], [7, ['support']], [9, ['editor', 'auditor']], [11, ['buyer']]])
  await change(`/users/${people[place].user.id}`, 'PATCH', { roles })
await change(`/users/${people[3].user.id}/sessions`, 'DELETE', {})
// Users who can't log in.
for (const [code, app_id] of [['person-1'], ['an old code'], ['person-1'], ['person-2', 'wx0000000000000000']])
  await fetch(`${SERVICE_URL}/v1/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ code, app_id }),
  })
await change('/apps', 'POST', { ...LATER_APP, title: '小店', push_token: 'devPushTokenOfTheThirdApp' })
await change('/keys/rotate', 'POST', {})
for (const [name, scopes] of [
  ['billing', ['introspect', 'users', 'phones']],
  ['crm', ['events', 'users']],
  ['shop', ['introspect', 'access_token']],
])
  await change('/clients', 'POST', { name, scopes })
// The numbers of thirty days, so that the service seems to have some history.
const wave = (place) => Math.round(900 + 260 * Math.sin(place * 0.9) + 14 * place)
const day = (place) => new Date(Date.now() - (29 - place) * 86_400_000).toISOString().slice(0, 10)
const numbers = {
  estimated: [],
  users: 48_213,
  sessions: 61_004,
  active_day: 2_904,
  active_week: 11_870,
  active_month: 28_402,
  days: Array.from({ length: 30 }, (_, place) => ({
    date: day(place),
    new_users: Math.round(wave(place + 2) / 9),
    logins: wave(place),
  })),
}

/** Change the times of list items, so that they seem to have come over two days. */
const spread = async (page) => {
  await page.route(/\/v1\/admin\/(users|logins|refusals|events)(\?|$)/, async (route) => {
    const response = await route.fetch()
    const json = await response.json()
    for (const [place, item] of (json.items ?? []).entries())
      for (const field of ['at', 'last_login_at']) if (item[field]) item[field] = new Date(Date.now() - (3 + 11 * place + 5 * place * place) * 60_000).toISOString()
    await route.fulfill({ response, json })
  })
}

const browser = await launch()
for (const [lang, scheme] of [
  ['en', 'light'],
  ['zh-CN', 'light'],
  ['en', 'dark'],
  ['zh-CN', 'dark'],
]) {
  const context = await browser.newContext({
    viewport: { width: 1200, height: 760 },
    locale: lang,
    colorScheme: scheme,
    timezoneId: 'Asia/Shanghai',
  })
  const page = await context.newPage()
  await page.addInitScript(() => localStorage.setItem('wxauth.secret-key-is-kept', 'yes')) // hides the first steps
  await page.route('**/v1/admin/numbers*', (route) => route.fulfill({ json: numbers }))
  await spread(page)
  const suffix = (lang === 'en' ? '' : `.${lang}`) + (scheme === 'dark' ? '.dark' : '')
  const shoot = async (name) => {
    await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'), null, { timeout: 40_000 })
    await page.screenshot({ path: `${folder}/${name}${suffix}.png` })
  }
  const show = async (name, hash = name) => {
    await page.evaluate((to) => (location.hash = to), `#/${hash}`)
    await page.waitForFunction((to) => document.querySelector('[aria-current=page]')?.getAttribute('href') === to, `#/${name.split('-')[0]}`)
    await shoot(name)
  }
  await page.goto(`${CONSOLE_URL}?lang=${lang}`)
  await page.waitForSelector('main button')
  if (scheme === 'light') await shoot('login')
  await page.goto(await linkFor(root, lang))
  await page.waitForSelector('.chart')
  await shoot('overview')
  if (scheme === 'dark') continue
  await show('users')
  await show('users-person', `users/${people[0].user.id}`)
  await page.click('main .dangers li:nth-child(2) button')
  await page.fill('dialog input[type=search]', people[4].user.id)
  await page.keyboard.press('Enter')
  await page.click('dialog .result button')
  await shoot('merge')
  await page.keyboard.press('Escape')
  await show('events')
  await show('signins')
  await show('signins-refused', 'signins?show=refused')
  await show('services')
  await show('webhooks', 'webhooks/crm')
  await show('apps')
  await show('keys')
  await page.setViewportSize({ width: 390, height: 760 })
  await page.goto(`${page.url().split('#')[0]}#/users`)
  await page.waitForSelector('main tbody tr')
  await shoot('phone')
}

for (const lang of ['en', 'zh-CN']) {
  const page = await (await browser.newContext({ viewport: { width: 1200, height: 720 }, locale: lang })).newPage()
  await page.goto(DESK_URL)
  await page.waitForSelector('#first:not([hidden])', { state: 'attached' })
  await page.click('#empty') // the desk has shown all requests of this program
  for (const tap of ['login', 'allow']) {
    await page.click(`[data-tap=${tap}]`)
    // The newest tap comes first, and wxauth's calls to WeChat for this tap are shown last.
    await page.waitForFunction(() => document.querySelector('.tap').querySelector('[data-direction=serviceToWeChat]'))
    await page.waitForFunction(() => !document.querySelector('.waiting'))
  }
  for (const [colorScheme, suffix] of [['light', ''], ['dark', '.dark']]) {
    await page.emulateMedia({ colorScheme })
    await page.screenshot({ path: `${folder}/../desk${lang === 'en' ? '' : `.${lang}`}${suffix}.png` })
  }
}
// the next pictures add this app again, with its logo
await asks(root, `/v1/admin/apps/${LATER_APP.app_id}`, { method: 'DELETE' })
await browser.close()
