// The phone's part of a login to a site in a web-view, with the real service.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, test } from 'node:test'
import { parse } from 'acorn'
import { authorize } from '../../../clients/miniprogram/wxauth-site.js'
import { ask, pass, rejection, start } from './world.js'

const SOURCE = readFileSync(new URL('../../../clients/miniprogram/wxauth-site.js', import.meta.url), 'utf8')
const URL_OF_IT = 'POST /v1/me/authorizations'
const CALLBACK = 'https://shop.example.com/callback'
const ASKED = {
  client_id: 'web-view',
  redirect_uri: `${CALLBACK}?a=%20`,
  response_type: 'code',
  scope: 'openid profile',
  state: '50% & "more"',
  code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
  code_challenge_method: 'S256',
}
const encoded = (asked) =>
  Object.fromEntries(Object.entries(asked).map((pair) => pair.map((text) => encodeURIComponent(text))))

before(async () => {
  const body = { name: 'web-view', redirect_uris: [`${CALLBACK}?a=%20`] }
  assert.equal((await ask('POST', '/controls/sites', { body })).status, 200)
})

const told = (url) => Object.fromEntries(new URL(url).searchParams)

test('it is one module beside the client, for old phones too', () => {
  const { body } = parse(SOURCE, { ecmaVersion: 2018, sourceType: 'module' })
  const imports = body.filter((node) => node.type === 'ImportDeclaration').map((node) => node.source.value)
  assert.deepEqual(imports, ['./wxauth.js'])
})

test("the site's request is answered by a URL, however the phone gives its values", async () => {
  const { auth, phone } = start()
  for (const query of [ASKED, encoded(ASKED)]) {
    const url = await authorize(auth, query)
    assert.ok(url.startsWith(`${CALLBACK}?a=%20&`), url)
    assert.equal(told(url).state, ASKED.state)
    assert.ok(told(url).code)
  }
  assert.equal(phone.count(URL_OF_IT), 2)
  assert.equal(phone.count('login'), 3) // one for the login, and one proof for each site
})

test('a site that wants a new login gets one, and a wrong request is told to the site', async () => {
  const { auth, phone } = start()
  await auth.login()
  await pass(phone, 60)
  const url = await authorize(auth, { ...ASKED, prompt: 'login' })
  assert.ok(told(url).code)
  assert.equal(phone.count('POST /v1/login'), 2)
  assert.equal(told(await authorize(auth, { ...ASKED, scope: 'nonsense' })).error, 'invalid_scope')
  assert.equal(phone.count('POST /v1/login'), 2)
})

test('a guest is asked to log in before any call', async () => {
  const { auth, phone } = start({ silent: false })
  await rejection(authorize(auth, ASKED), 'login_required')
  assert.equal(phone.count('login') + phone.count(URL_OF_IT), 0)
  await auth.login()
  assert.ok(told(await authorize(auth, ASKED)).code)
})

test('a code that WeChat refuses is followed by another one', async () => {
  const { auth, phone } = start()
  await auth.login()
  phone.next('login', async (send) => {
    const { code } = await send()
    assert.equal((await ask('POST', '/v1/login', { body: { code } })).status, 200) // another request uses up the code
    return { code }
  })
  assert.ok(told(await authorize(auth, ASKED)).code)
  assert.equal(phone.count(URL_OF_IT), 2)
})

test('what no site may be told of is rejected', async () => {
  const { auth, phone } = start()
  await auth.login()
  for (const query of [undefined, null, {}, { q: 'x' }]) {
    await rejection(authorize(auth, query), 'invalid_argument')
  }
  assert.equal(phone.count(URL_OF_IT), 0)
  await rejection(authorize(auth, { ...ASKED, redirect_uri: 'https://evil.example/' }), 'invalid_request')
})
