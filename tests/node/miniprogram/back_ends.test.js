// Runs the code of docs/build/other-back-ends.md as a mini-program and as a cloud function. The simulated back ends
// check tokens like the real ones.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { after, before, mock, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as jose from 'jose'
import { ask, loggedIn, passAtService, SERVICE_URL } from './world.js'

const ISSUER = 'https://auth.test'
const keys = jose.createRemoteJWKSet(new URL(`${SERVICE_URL}/.well-known/jwks.json`))
const blocksOf = (page) => {
  const text = readFileSync(fileURLToPath(new URL(`../../../docs/${page}`, import.meta.url)), 'utf8')
  return [...text.matchAll(/^```js\n([^]*?)^```$/gm)].map((block) => block[1])
}

/** A project of Supabase with the rules of its `token?grant_type=id_token` and of its third-party auth. */
const supabase = createServer(async (request, response) => {
  const answer = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  try {
    if (request.headers.apikey === undefined) return answer(401, { msg: 'No API key' })
    if (request.url.startsWith('/rest/v1/')) {
      const token = request.headers.authorization.replace('Bearer ', '')
      const { payload } = await jose.jwtVerify(token, keys, { issuer: ISSUER, requiredClaims: ['role'] })
      return answer(200, [{ owner: payload.sub, role: payload.role }])
    }
    assert.equal(request.url, '/auth/v1/token?grant_type=id_token')
    const { provider, id_token: token, nonce } = JSON.parse((await request.toArray()).join(''))
    assert.equal(provider, 'custom:wxauth')
    const { payload } = await jose.jwtVerify(token, keys, { issuer: ISSUER, audience: 'supabase' })
    assert.equal(payload.at_hash, undefined) // otherwise the access token would be required, too
    assert.equal('nonce' in payload, nonce !== undefined)
    answer(200, { access_token: 'theirs', user: { identity_data: { sub: payload.sub } } })
  } catch (error) {
    answer(400, { msg: error.message })
  }
})

before(async () => {
  mock.timers.enable({ apis: ['Date'], now: (await passAtService(0)) * 1000 })
  await new Promise((listening) => supabase.listen(0, '127.0.0.1', listening))
  const site = { redirect_uris: [], device: false, phone_id_token: true }
  for (const name of ['supabase', 'cloudbase']) await ask('POST', '/controls/sites', { body: { ...site, name } })
})
after(() => supabase.close())

for (const page of ['build/other-back-ends.md', 'zh/build/other-back-ends.md']) {
  const [thirdParty, idToken, cloudFunction] = blocksOf(page)

  /** Return what a block of the page exports in a mini-program. */
  const run = (block, name, { auth, phone }) => {
    const url = `http://127.0.0.1:${supabase.address().port}`
    const source = block.replaceAll('https://PROJECT.supabase.co', url).replace(/^import .*$/m, '').replaceAll('export ', '')
    return new Function('auth', 'wx', `${source}; return ${name}`)(auth, phone.wx)
  }

  test(`${page}: the mini-program logs in to Supabase by an id_token`, async () => {
    const started = await loggedIn()
    const session = await run(idToken, 'logInToSupabase', started)()
    assert.equal(session.user.identity_data.sub, started.auth.user.id)
    await assert.rejects(run(idToken.replace("'supabase'", "'cloudbase'"), 'logInToSupabase', started)(), /aud/)
  })

  test(`${page}: Supabase takes wxauth's own token, with the claim of a role`, async () => {
    const started = await loggedIn({ origins: [`http://127.0.0.1:${supabase.address().port}`] })
    const found = await run(thirdParty, 'orders', started)()
    assert.deepEqual(found, [{ owner: started.auth.user.id, role: 'authenticated' }])
  })

  test(`${page}: the cloud function gives a ticket for a good id_token alone`, async () => {
    const { auth, phone } = await loggedIn()
    const tickets = []
    const modules = {
      '@cloudbase/node-sdk': { init: () => ({ auth: () => ({ createTicket: (id) => (tickets.push(id), 'ticket') }) }) },
      './tcb_custom_login.json': {},
      jose,
    }
    const source = cloudFunction.replace("'https://auth.example.com/", `'${SERVICE_URL}/`).replace('https://auth.example.com', ISSUER)
    const exports = {}
    new Function('require', 'exports', source)((name) => modules[name], exports)
    const token = await auth.idToken('cloudbase')
    const wrong = [await auth.getToken(), await auth.idToken('supabase'), `${token.slice(0, -4)}AAAA`]
    for (const id_token of wrong) await assert.rejects(exports.main({ id_token }))
    assert.deepEqual(await exports.main({ id_token: token }), { ticket: 'ticket' })
    assert.deepEqual(tickets, [auth.user.id.replaceAll('-', '')])
    assert.match(tickets[0], /^[0-9a-f]{32}$/)
  })
}
