// Sites whose callbacks lead on: to the scheme of an app, from https to http, or to another host. Chromium checks each
// of these redirects against the policy of the page whose form began them.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { after, before, test } from 'node:test'
import { wxauth } from '../console/driving.js'
import { eventually, launch } from '../browser.js'
import { IPHONE, authorizeUrl, be, phoneOf, sceneOf } from '../pages/walk.js'

const { CERTIFICATE, SERVICE_URL } = process.env
const APP_END = 'com.example.shop:/done'

const arrived = []
const answer = (request, response) => {
  const [, place, end] = request.url.split(/[/?]/)
  if (place === 'from') return response.writeHead(request.method === 'POST' ? 303 : 302, { location: ENDS[end].to }).end()
  if (place === 'end') arrived.push(`http${request.socket.encrypted ? 's' : ''}://${request.headers.host}${request.url}`)
  response.writeHead(place === 'end' ? 200 : 404, { 'content-type': 'text/plain' }).end(place)
}
const listening = async (server, host) => {
  await new Promise((resolve) => server.listen(0, host, resolve))
  return server.address().port
}
const servers = [createServer(answer), createServer(answer), createTlsServer({ key: readFileSync(CERTIFICATE), cert: readFileSync(CERTIFICATE) }, answer)]
const ENDS = {}
let browser, phone

before(async () => {
  const [plain, onV6, secure] = await Promise.all(servers.map((server, index) => listening(server, index === 1 ? '::1' : '127.0.0.1')))
  const [site, local] = [`https://shop.test:${secure}`, `http://127.0.0.1:${plain}`]
  Object.assign(ENDS, {
    app: { from: site, to: APP_END },
    plain: { from: site, to: `http://shop.test:${plain}/end` },
    'other-host': { from: site, to: `https://www.shop.test:${secure}/end` },
    'loopback-name': { from: local, to: `http://localhost:${plain}/end` },
    'loopback-v6': { from: local, to: `http://[::1]:${onV6}/end` },
  })
  const uris = Object.entries(ENDS).flatMap(([end, { from }]) => [`--redirect-uri=${from}/from/${end}`, `--logout-uri=${from}/from/${end}`])
  await wxauth('clients', 'add', 'chains', '--public', '--sso', '--link', ...uris)
  browser = await launch('--host-resolver-rules=MAP *.test 127.0.0.1')
  phone = await phoneOf('chains')
})
after(async () => {
  await browser?.close()
  for (const server of servers) {
    server.close()
    server.closeAllConnections()
  }
})

const callbackOf = (end) => `${ENDS[end].from}/from/${end}`

/** Open a site's page in a new browser, with a login if the user is to have one. */
async function opened({ userAgent, more, isLoggedIn }) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, locale: 'en' })
  const page = await context.newPage()
  if (isLoggedIn) {
    await page.goto(authorizeUrl('chains', { redirect_uri: callbackOf('loopback-name') }))
    await phone.decide(await phone.claim(await sceneOf(page)), 'approve')
    await page.waitForURL(ENDS['loopback-name'].to)
    arrived.length = 0
  }
  if (userAgent) await be(page, userAgent)
  if (more) await page.goto(authorizeUrl('chains', more))
  return page
}

/** Each way to a site that begins with a form. `open` returns the page, and `press` sends the form. */
const WAYS = {
  continue: {
    open: (redirect_uri) => opened({ more: { redirect_uri }, isLoggedIn: true }),
    press: (page) => page.getByRole('button', { name: 'Continue' }).click({ noWaitAfter: true }),
  },
  form_post: {
    open: () => opened({}),
    press: (page, redirect_uri) => page.goto(authorizeUrl('chains', { redirect_uri, response_mode: 'form_post', prompt: 'none' }), { waitUntil: 'commit' }),
  },
  number: {
    async open(redirect_uri) {
      const page = await opened({ userAgent: IPHONE, more: { redirect_uri } })
      const own = (await page.getAttribute('form.number', 'action')).replace(/\/number$/, '')
      const pressed = await page.request.post(`${SERVICE_URL}${own}/link`, { maxRedirects: 0 })
      const scene = new URL(pressed.headers().location).searchParams.get('query').replace(/^s=/, '')
      const { number } = await phone.decide(await phone.claim(scene, 1286), 'approve')
      await page.evaluate(() => (document.querySelector('main').dataset.pressed = 'true')) // shows the field
      await page.fill('#number', number)
      return page
    },
    press: (page) => page.click('form.number button', { noWaitAfter: true }),
  },
  'log-out': {
    async open(post_logout_redirect_uri) {
      const page = await opened({ isLoggedIn: true })
      await page.goto(`${SERVICE_URL}/v1/end_session?${new URLSearchParams({ client_id: 'chains', post_logout_redirect_uri })}`)
      return page
    },
    press: (page) => page.getByRole('button', { name: 'Log out' }).click({ noWaitAfter: true }),
  },
}

for (const [way, { open, press }] of Object.entries(WAYS))
  test(`a person arrives wherever the site leads: ${way}`, async () => {
    for (const end of ['app', 'plain', 'other-host', 'loopback-name', 'loopback-v6']) {
      const { to } = ENDS[end]
      const page = await open(callbackOf(end))
      const blocked = []
      page.on('console', ({ type, text }) => type() === 'error' && blocked.push(text()))
      const apps = []
      page.on('requestfailed', (request) => apps.push(request.url()))
      const protocol = await page.context().newCDPSession(page)
      protocol.on('Network.requestWillBeSent', ({ request }) => apps.push(request.url))
      await protocol.send('Network.enable')
      await press(page, callbackOf(end))
      const places = end === 'app' ? apps : arrived
      await eventually(() => {
        assert.deepEqual(blocked, [], `${way} ${end}`)
        assert.ok(places.includes(to), `${way} ${end}: ${page.url()}`)
      })
      arrived.length = 0
      await page.context().close()
    }
  })
