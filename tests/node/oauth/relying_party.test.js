// openid-client as a site, with a running `wxauth-desk dev`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as client from 'openid-client'
import { browse, json, phone } from './person.js'

const { SERVICE_URL, SHOP_SECRET } = process.env
const CALLBACK = 'http://127.0.0.1/callback'
const insecure = { execute: [client.allowInsecureRequests] }

const KINDS = {
  'a confidential site': () => client.discovery(new URL(SERVICE_URL), 'shop', SHOP_SECRET, undefined, insecure),
  'a confidential site, by Basic': () =>
    client.discovery(new URL(SERVICE_URL), 'shop', undefined, client.ClientSecretBasic(SHOP_SECRET), insecure),
  'a public page': () => client.discovery(new URL(SERVICE_URL), 'page', undefined, client.None(), insecure),
}

async function asked(config, more = {}) {
  const verifier = client.randomPKCECodeVerifier()
  const state = client.randomState()
  const nonce = client.randomNonce()
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: CALLBACK,
    scope: 'openid profile',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    ...more,
  })
  const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true }
  return { url, checks }
}

for (const [kind, discover] of Object.entries(KINDS)) {
  test(`${kind} completes the code flow`, async () => {
    const config = await discover()
    const { user, decide } = await phone('alice')
    const { url, checks } = await asked(config)
    const tokens = await client.authorizationCodeGrant(config, await browse(url, decide), checks)
    const claims = tokens.claims()
    assert.equal(claims.sub, user.id)
    assert.deepEqual(claims.amr, ['wechat_scan'])
    const info = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
    assert.equal(info.sub, user.id)

    const again = await client.refreshTokenGrant(config, tokens.refresh_token)
    assert.equal(again.claims().sid, claims.sid)
    const end = client.buildEndSessionUrl(config, {
      id_token_hint: again.id_token,
      post_logout_redirect_uri: 'http://127.0.0.1/bye',
    })
    const out = await fetch(end, { redirect: 'manual' })
    assert.deepEqual([out.status, out.headers.get('location')], [303, 'http://127.0.0.1/bye'])
    await assert.rejects(client.refreshTokenGrant(config, again.refresh_token), { error: 'invalid_grant' })
    await client.tokenRevocation(config, again.refresh_token)
  })
}

/** Open the page in a web-view, let the mini-program around it answer, and return the URL of the response. */
async function browseInWebView(url, person) {
  const headers = { 'user-agent': 'Mozilla/5.0 (iPhone) MicroMessenger/8.0.60 Language/zh_CN miniProgram/wx0' }
  const html = await (await fetch(url, { headers })).text()
  const asked = JSON.parse(/data-page="([^"]+)"/.exec(html)[1].replaceAll('&#34;', '"').replaceAll('&amp;', '&')).url
  const { access_token } = await json('/v1/login', { code: person })
  const body = { ...Object.fromEntries(new URLSearchParams(asked.split('?')[1])), login_code: person }
  const { redirect_to } = await json('/v1/me/authorizations', body, { authorization: `Bearer ${access_token}` })
  return new URL(redirect_to)
}

for (const [kind, discover] of Object.entries(KINDS)) {
  test(`${kind} completes the code flow in a web-view, also for a new login`, async () => {
    const config = await discover()
    for (const more of [{}, { prompt: 'login' }, { max_age: '0' }]) {
      const { url, checks } = await asked(config, more)
      const back = await browseInWebView(url, 'dora')
      const tokens = await client.authorizationCodeGrant(config, back, { ...checks, maxAge: more.max_age && 0 })
      assert.deepEqual(tokens.claims().amr, ['wechat_mini_program'])
    }
  })
}

const BROWSERS = {
  wechat_account: 'Mozilla/5.0 (iPhone) MicroMessenger/8.0.60 Language/zh_CN',
  wechat_website: 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/141.0.0.0',
}

/**
 * Open WeChat's page with the button on wxauth's page, let the user agree there, and return the URL of the response.
 */
async function browseByWeChat(url, userAgent, person) {
  const headers = { 'user-agent': userAgent, 'x-desk-person': person }
  const page = await fetch(url, { headers })
  headers.cookie = page.headers.get('set-cookie').split(';')[0]
  const follow = async (to) => (await fetch(to, { headers, redirect: 'manual' })).headers.get('location')
  const wechat = await follow(new URL(/href="(\/v1\/authorize\/[\w-]{22}\/wechat)"/.exec(await page.text())[1], url))
  const question = await (await fetch(wechat, { headers })).text()
  const answer = /<a href="([^"]+answer=allow)"/.exec(question)[1].replaceAll('&amp;', '&')
  return new URL(await follow(await follow(new URL(answer, wechat))))
}

for (const [kind, discover] of Object.entries(KINDS)) {
  for (const [amr, userAgent] of Object.entries(BROWSERS)) {
    test(`${kind} completes the code flow by WeChat's page: ${amr}`, async () => {
      const config = await discover()
      const { user } = await phone('erin')
      for (const more of [{}, { prompt: 'login' }, { max_age: '0' }]) {
        const { url, checks } = await asked(config, more)
        const back = await browseByWeChat(url, userAgent, 'erin')
        const tokens = await client.authorizationCodeGrant(config, back, { ...checks, maxAge: more.max_age && 0 })
        const claims = tokens.claims()
        assert.deepEqual([claims.sub, claims.amr], [user.id, [amr]])
        const again = await client.refreshTokenGrant(config, tokens.refresh_token)
        assert.equal(again.claims().sid, claims.sid)
      }
    })
  }
}

test('a refusal arrives as access_denied, from the right issuer', async () => {
  const config = await KINDS['a public page']()
  const { decide } = await phone('bob')
  const { url, checks } = await asked(config)
  const back = await browse(url, decide, 'deny')
  await assert.rejects(client.authorizationCodeGrant(config, back, checks), { error: 'access_denied' })
})

test('a device polls until the person has said yes', async () => {
  const config = await KINDS['a confidential site']()
  const { user, decide } = await phone('carol')
  const started = await client.initiateDeviceAuthorization(config, { scope: 'openid' })
  const polling = client.pollDeviceAuthorizationGrant(config, started)
  await decide(started.verification_uri_complete.split('/').pop())
  assert.equal((await polling).claims().sub, user.id)
})
