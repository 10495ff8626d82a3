// Auth.js as examples/nextjs sets it up, without Next.js, with a running `wxauth-desk dev`. See
// tests/foreign/test_relying_parties.py.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { Auth, setEnvDefaults } from '@auth/core'
import { Browser, browse, phone } from './person.js'

const { GUIDE, SERVICE_URL, PORTAL_PORT, PORTAL_SECRET } = process.env
const ENV = { AUTH_WXAUTH_ISSUER: SERVICE_URL, AUTH_WXAUTH_ID: 'portal', AUTH_WXAUTH_SECRET: PORTAL_SECRET }
Object.assign(process.env, ENV)
const { default: shown } = await import(`${GUIDE}/auth.config.js`)
const { POST } = await import(`${GUIDE}/app/backchannel-logout/route.js`)
const SITE = 'http://127.0.0.1:9000'
const form = { 'content-type': 'application/x-www-form-urlencoded' }

/** Create a browser at a site that uses Auth.js, and the actions that it can do there. */
function visitor(changes = {}) {
  const config = { ...shown, basePath: '/api/auth', ...changes }
  setEnvDefaults({ AUTH_SECRET: 'known to the site alone', NODE_ENV: 'production', AUTH_TRUST_HOST: 'true' }, config, true)
  const browser = new Browser((request) => Auth(request, { ...config, logger: { error() {} } }))
  const post = async (action) => {
    const { csrfToken } = await (await browser.ask(`${SITE}/api/auth/csrf`)).json()
    const body = new URLSearchParams({ csrfToken, callbackUrl: `${SITE}/` })
    return (await browser.ask(`${SITE}/api/auth/${action}`, body, form)).headers.get('location')
  }
  return {
    logIn: async (decide, verdict) => {
      const back = await browse(await post('signin/wxauth'), decide, verdict)
      return (await browser.ask(back)).headers.get('location')
    },
    logOut: () => post('signout'),
    session: async () => (await browser.ask(`${SITE}/api/auth/session`)).json(),
  }
}

test('Auth.js logs a person in without an e-mail address, and its sign-out ends the session of wxauth', async () => {
  const { user, decide, sites } = await phone()
  const { logIn, logOut, session } = visitor()
  assert.equal(await logIn(decide), `${SITE}/`)
  assert.deepEqual((await session()).user, { id: user.id })
  assert.deepEqual(await sites(), ['portal'])
  assert.equal(await logOut(), `${SITE}/`)
  assert.equal(await session(), null)
  assert.deepEqual(await sites(), [])
})

test('a sign-out on the phone ends the session of Auth.js, and nonsense ends none', { timeout: 30_000 }, async (t) => {
  const server = createServer(async (request, response) => {
    const { method, headers } = request
    const answer = await POST(new Request(SITE, { method, headers, body: request, duplex: 'half' }))
    response.writeHead(answer.status).end()
  }).listen(Number(PORTAL_PORT), '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { user, decide, leave } = await phone()
  const { logIn, session } = visitor()
  await logIn(decide)
  const nonsense = await fetch(`http://127.0.0.1:${PORTAL_PORT}`, { method: 'POST', body: 'logout_token=no', headers: form })
  assert.equal(nonsense.status, 400)
  assert.equal((await session()).user.id, user.id)
  await leave()
  while (await session()) await setTimeout(20)
})

test('a refusal on the phone logs nobody in at Auth.js', async () => {
  const { decide, sites } = await phone()
  const { logIn, session } = visitor()
  assert.equal(await logIn(decide, 'deny'), `${SITE}/api/auth/signin?error=OAuthCallbackError`)
  assert.equal(await session(), null)
  assert.deepEqual(await sites(), [])
})

test('a wrong client secret is an error of the configuration at Auth.js', async () => {
  const { decide } = await phone()
  const [provider] = shown.providers
  const { logIn } = visitor({ providers: [{ ...provider, clientSecret: `${PORTAL_SECRET} ` }] })
  assert.equal(await logIn(decide), `${SITE}/api/auth/error?error=Configuration`)
})
