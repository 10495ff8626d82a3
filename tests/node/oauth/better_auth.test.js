// better-auth as docs/build/openid/better-auth.md sets it up, with a running `wxauth-desk dev`. See
// tests/foreign/test_relying_parties.py.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { genericOAuth } from 'better-auth/plugins'
import { Browser, browse, phone } from './person.js'

const { GUIDE, SERVICE_URL, PORTAL_SECRET } = process.env
Object.assign(process.env, { WXAUTH_ISSUER: SERVICE_URL, WXAUTH_CLIENT_ID: 'portal', WXAUTH_CLIENT_SECRET: PORTAL_SECRET })
const { options: shown } = await import(`${GUIDE}/auth.options.js`)
const SITE = 'http://127.0.0.1:9000'
const PASSWORD = 'correct horse battery staple'
const LINKING = { ...shown.account, accountLinking: { trustedProviders: ['wxauth'], allowDifferentEmails: true } }

/** Create a site that uses better-auth and has no users yet. */
function site(changes = {}) {
  const tables = { user: [], session: [], account: [], verification: [] }
  const { handler } = betterAuth({
    ...shown,
    baseURL: SITE,
    secret: 'known to the site alone, and long enough',
    database: memoryAdapter(tables),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    rateLimit: { enabled: false },
    logger: { disabled: true },
    ...changes,
  })
  return { tables, visitor: () => visitor(handler) }
}

/** Create a browser at the site, and the actions that it can do there. */
function visitor(handler) {
  const browser = new Browser(handler)
  const post = async (action, body) => {
    const answer = await browser.ask(`${SITE}/api/auth/${action}`, JSON.stringify(body), { 'content-type': 'application/json' })
    assert.ok(answer.ok, `${action}: ${await answer.clone().text()}`)
    return answer.json()
  }
  const back = async ({ url }, decide, verdict) => {
    const answer = await browser.ask(await browse(url, decide, verdict))
    return new URL(answer.headers.get('location'), SITE)
  }
  const asked = { provider: 'wxauth', callbackURL: '/' }
  return {
    signUp: (email) => post('sign-up/email', { email, password: PASSWORD, name: 'somebody' }),
    logIn: async (decide, verdict) => back(await post('sign-in/social', asked), decide, verdict),
    link: async (decide) => back(await post('link-social', asked), decide),
    logOut: () => post('sign-out', {}),
    accessToken: async (account) => (await post('get-access-token', { accountId: account.id })).accessToken,
    session: async () => (await browser.ask(`${SITE}/api/auth/get-session`)).json(),
  }
}

test('better-auth logs a person in, and its sign-out ends the session of wxauth and comes back', async () => {
  const { user, decide, sites } = await phone()
  const { tables, visitor } = site()
  const { logIn, logOut, session } = visitor()
  assert.equal((await logIn(decide)).href, `${SITE}/`)
  const { email, emailVerified, name } = (await session()).user
  assert.deepEqual({ email, emailVerified, name }, { email: `${user.id}@wx.invalid`, emailVerified: false, name: '微信用户' })
  const [{ providerId, accountId, refreshToken }] = tables.account
  assert.deepEqual([providerId, accountId], ['wxauth', user.id])
  assert.doesNotMatch(refreshToken, /^wxr_/)
  assert.deepEqual(await sites(), ['portal'])

  const { url } = await logOut()
  assert.equal(await session(), null)
  const ended = await fetch(url, { redirect: 'manual' })
  assert.deepEqual([ended.status, ended.headers.get('location')], [303, `${SITE}/`])
  assert.deepEqual(await sites(), [])

  assert.equal((await logIn(decide)).href, `${SITE}/`)
  assert.equal(tables.user.length, 1)
})

test('a refusal on the phone logs nobody in at better-auth', async () => {
  const { decide } = await phone()
  const { logIn, session } = site().visitor()
  assert.equal((await logIn(decide, 'deny')).searchParams.get('error'), 'access_denied')
  assert.equal(await session(), null)
})

test("better-auth refreshes wxauth's access token, again and again", async () => {
  const { user, decide } = await phone()
  const { tables, visitor } = site()
  const { logIn, accessToken } = visitor()
  await logIn(decide)
  const seen = new Set([await accessToken(tables.account[0])])
  for (const times of [2, 3]) {
    tables.account[0].accessTokenExpiresAt = new Date(0)
    const token = await accessToken(tables.account[0])
    assert.equal(seen.add(token).size, times)
    const told = await fetch(`${SERVICE_URL}/v1/userinfo`, { headers: { authorization: `Bearer ${token}` } })
    assert.equal((await told.json()).sub, user.id)
  }
})

test('without an e-mail address better-auth refuses', async () => {
  const { decide } = await phone()
  const [{ options }] = shown.plugins
  const plugins = [genericOAuth({ config: [{ ...options.config[0], scopes: ['openid', 'profile'] }] })]
  const { tables, visitor } = site({ plugins })
  assert.equal((await visitor().logIn(decide)).searchParams.get('error'), 'email_not_found')
  assert.deepEqual(tables.user, [])
})

for (const [where, account] of [['', shown.account], [', where people may add WeChat', LINKING]]) {
  test(`a stranger who has signed up with the made-up address shares no account with the person${where}`, async () => {
    const { user, decide } = await phone()
    const { tables, visitor } = site({ account })
    await visitor().signUp(`${user.id}@wx.invalid`)
    const { logIn, session } = visitor()
    assert.equal((await logIn(decide)).searchParams.get('error'), 'account_not_linked')
    assert.equal(await session(), null)
    assert.deepEqual(tables.account.map(({ providerId }) => providerId), ['credential'])
  })
}

test('a person who is logged in at better-auth adds WeChat, and then logs in by it', async () => {
  const { user, decide } = await phone()
  const { tables, visitor } = site({ account: LINKING })
  const { signUp, link } = visitor()
  await signUp('frank@example.com')
  assert.equal((await link(decide)).href, `${SITE}/`)
  const { logIn, session } = visitor()
  assert.equal((await logIn(decide)).href, `${SITE}/`)
  assert.equal((await session()).user.email, 'frank@example.com')
  assert.deepEqual(tables.account.map(({ accountId }) => accountId).slice(1), [user.id])
})
