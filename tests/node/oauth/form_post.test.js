// A site on another origin that asks for the response in a form. Chromium posts the form with scripts and without.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, afterEach, before, test } from 'node:test'
import { text } from 'node:stream/consumers'
import * as client from 'openid-client'
import { Complaints, eventually, launch, PATIENCE } from '../browser.js'
import { phone } from './person.js'

const { SERVICE_URL, SHOP_SECRET } = process.env
const STATE = `"><script>alert('1')</script>&amp; +</form>é微信`
const insecure = { execute: [client.allowInsecureRequests] }

const received = []
const site = createServer(async (request, response) => {
  received.push({ method: request.method, url: request.url, body: await text(request) })
  // Browsers also check the redirects after a form against the policy of the form's page.
  if (request.method === 'POST') response.writeHead(303, { location: '/done' }).end()
  else response.end('done')
})
let browser, callback, complaints
before(async () => {
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))
  callback = `http://127.0.0.1:${site.address().port}/callback`
  complaints = new Complaints(SERVICE_URL, new URL(callback).origin)
  browser = await launch()
})
after(async () => {
  await browser.close()
  site.close()
  site.closeAllConnections()
})
afterEach(() => complaints.check())

async function asked(more = {}) {
  const config = await client.discovery(new URL(SERVICE_URL), 'shop', SHOP_SECRET, undefined, insecure)
  const verifier = client.randomPKCECodeVerifier()
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: callback,
    scope: 'openid',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    response_mode: 'form_post',
    state: STATE,
    ...more,
  })
  return { config, url: url.href, checks: { pkceCodeVerifier: verifier, expectedState: STATE } }
}

async function opened(url, options) {
  const context = await browser.newContext(options)
  context.setDefaultTimeout(PATIENCE)
  const page = complaints.hear(await context.newPage())
  await page.goto(url)
  return page
}

const posts = () => received.splice(0).filter(({ method }) => method === 'POST')

test('the script of the page posts the code, which stands in no URL, and the browser goes back over it', async () => {
  const { config, url, checks } = await asked()
  const { user, decide } = await phone()
  const page = await opened(url)
  await decide(/\/v1\/scans\/([\w-]{22})\/code/.exec(await page.content())[1])
  await page.getByText('done').waitFor()
  const [{ url: path, body }, ...more] = posts()
  assert.deepEqual([path, more], ['/callback', []])
  const headers = { 'content-type': 'application/x-www-form-urlencoded' }
  const tokens = await client.authorizationCodeGrant(config, new Request(callback, { method: 'POST', headers, body }), {
    ...checks,
    idTokenExpected: true,
  })
  assert.equal(tokens.claims().sub, user.id)
})

test('an error is posted, too', async () => {
  const page = await opened((await asked({ prompt: 'none' })).url)
  await page.getByText('done').waitFor()
  const [{ body }] = posts()
  const form = new URLSearchParams(body)
  assert.deepEqual([form.get('error'), form.get('state'), form.get('iss')], ['login_required', STATE, SERVICE_URL])
})

test('without scripts, a button posts it', async () => {
  const page = await opened((await asked({ prompt: 'none' })).url, { javaScriptEnabled: false, locale: 'en' })
  assert.deepEqual(posts(), [])
  await page.getByRole('button', { name: 'Continue' }).click()
  await eventually(() => assert.equal(new URL(page.url()).pathname, '/done'))
  assert.equal(posts().length, 1)
})
