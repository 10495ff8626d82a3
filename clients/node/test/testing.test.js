// These tests check the test issuer, and the guard without a framework.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, get } from 'node:http'
import { test } from 'node:test'
import { BearerGuard } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'

const SESSION_ID = '0192f0c1-2b3c-7d4e-8f50-cba987654321'

test('a token contains the requested user', async () => {
  const issuer = new TestIssuer()
  const ids = { userId: SESSION_ID.toUpperCase(), appId: 'wxother', openid: 'o-1', sessionId: SESSION_ID }
  const { claims, ...user } = await issuer.guard().verify(issuer.token({ ...ids, roles: ['clerk'] }))
  assert.deepEqual(user, {
    id: SESSION_ID,
    appId: 'wxother',
    openid: 'o-1',
    sessionId: SESSION_ID,
    roles: ['clerk'],
    externalId: null,
    scope: [],
    isCurrent: null,
  })
  assert.deepEqual([claims.iss, claims.aud, claims.client_id], ['https://auth.test', 'wxauth', 'wxother'])
})

test('by default, each token belongs to the same user, who has no roles', async () => {
  const issuer = new TestIssuer()
  const [first, second] = await Promise.all([1, 2].map(() => issuer.guard().verify(issuer.token())))
  assert.equal(first.id, USER_ID)
  assert.deepEqual([first.openid, first.sessionId, first.roles], [second.openid, second.sessionId, []])
  assert.ok(!('roles' in first.claims))
  assert.notEqual(first.claims.jti, second.claims.jti)
})

test('a website’s token contains the mini-program, the client and the granted scopes', async () => {
  const issuer = new TestIssuer()
  const claims = { client_id: 'shop', app_id: 'wxother', scope: 'openid profile', external_id: 'old-7' }
  const user = await issuer.guard({ websites: true }).verify(issuer.token({ claims }))
  assert.deepEqual([user.appId, user.claims.client_id], ['wxother', 'shop'])
  assert.deepEqual([user.scope, user.externalId], [['openid', 'profile'], 'old-7'])
})

test('a website’s token has an openid, and the token of a client with a metadata document has none', async () => {
  const issuer = new TestIssuer()
  const verified = (fields) => issuer.guard({ websites: true }).verify(issuer.token(fields))
  const website = await verified({ scope: ['openid', 'profile'], client_id: 'shop', appId: 'wxother' })
  assert.deepEqual([website.appId, website.claims.client_id, website.scope], ['wxother', 'shop', ['openid', 'profile']])
  assert.ok(website.openid && !('auth_time' in website.claims))
  const agent = await verified({ scope: 'orders:read', client_id: 'https://agent.test/client.json' })
  assert.deepEqual([agent.appId, agent.openid, agent.scope], ['', '', ['orders:read']])
  assert.equal(agent.claims.auth_time, agent.claims.iat)
  assert.ok(!('scope' in (await verified()).claims))
  for (const fields of [{ roles: ['clerk'] }, { appId: 'wxother' }, { openid: 'o-1' }]) {
    assert.throws(() => issuer.token({ client_id: 'https://agent.test/client.json', ...fields }), TypeError)
    assert.ok(await verified({ client_id: 'shop', ...fields }))
  }
})

test('a guard made by requires also needs these scopes, and shares its keys with the first guard', async (t) => {
  const issuer = new TestIssuer({ audience: 'https://mcp.example.com/mcp' })
  const guard = new BearerGuard({ issuer: 'https://auth.example.com', audience: issuer.audience, scopes: ['orders:read'] })
  const writing = guard.requires('orders:write')
  t.after(issuer.trustedBy(writing))
  /** Returns the status and headers of the response to a token with this scope. */
  async function responseTo(scope) {
    const response = {
      writeHead(status, headers) {
        Object.assign(this, { status, headers })
        return this
      },
      end() {},
    }
    await bearer(writing)({ headers: issuer.headers({ scope }) }, response, () => (response.status = 200))
    return response
  }
  assert.equal((await responseTo('orders:read orders:write')).status, 200)
  assert.ok(await guard.verify(issuer.token({ scope: 'orders:read' })))
  for (const scope of ['orders:read', 'orders:write', 'profile']) {
    const { status, headers } = await responseTo(scope)
    assert.equal(status, 403)
    assert.match(headers['WWW-Authenticate'], /^Bearer error="insufficient_scope", scope="orders:read orders:write", res/)
  }
  for (const [asked, scope] of [[writing, 'orders:read orders:write'], [guard, 'orders:read'], [issuer.guard(), '']]) {
    const scopes = scope && `scope="${scope}", `
    for (const [headers, error] of [[{}, ''], [{ authorization: 'Bearer x' }, 'error="invalid_token", ']]) {
      const { status, challenge } = await asked.user({ headers }).catch((refusal) => refusal)
      const metadata = 'https://mcp.example.com/.well-known/oauth-protected-resource/mcp'
      assert.deepEqual([status, challenge], [401, `Bearer ${error}${scopes}resource_metadata="${metadata}"`])
    }
  }
  const user = await guard.verify(issuer.token({ scope: 'orders:read' }))
  guard.checkScopes(user)
  assert.throws(() => guard.checkScopes(user, 'orders:write'), { code: 'insufficient_scope', status: 403 })
  for (const mistake of ['', 'a b', 'a"', '订单', undefined, 7]) {
    assert.throws(() => guard.requires(mistake), TypeError)
    assert.throws(() => guard.checkScopes(user, mistake), TypeError)
    assert.throws(() => issuer.guard({ scopes: [mistake] }), TypeError)
  }
  assert.throws(() => guard.requires(), TypeError)
})

for (const claims of [
  { app_id: 7 },
  { scope: ['openid'] },
  { external_id: 7 },
  { roles: 'clerk' },
  { openid: null },
  { sub: 'alice' },
  { aud: 'other' },
  { exp: null },
]) {
  test(`a token with ${JSON.stringify(claims)} is refused`, async () => {
    const issuer = new TestIssuer()
    const guard = issuer.guard({ websites: true })
    await assert.rejects(guard.verify(issuer.token({ claims })), { code: 'invalid_token' })
  })
}

const AGENT = 'https://agent.test/client.json'
const SCOPED = [
  { scope: 'openid profile', client_id: 'shop' },
  { scope: 'orders:read' },
  { scope: '' },
  { scope: ' ' },
  { scope: 'roles', roles: ['clerk'] },
  { scope: 'orders:read', client_id: AGENT },
]
const UNREADABLE = [['orders:read'], [], 0, false, {}].map((scope) => ({ claims: { scope } }))

for (const audience of ['wxauth', 'orders', 'urn:orders', 'mcp.example.com']) {
  test(`a guard for ${audience} accepts only tokens without a scope`, async () => {
    const issuer = new TestIssuer({ audience })
    const guard = issuer.guard()
    for (const fields of [...SCOPED, ...UNREADABLE]) {
      await assert.rejects(guard.verify(issuer.token(fields)), {
        code: 'insufficient_scope',
        status: 403,
        challenge: 'Bearer error="insufficient_scope"',
        message: "this service doesn't accept the tokens of websites and agents",
      })
      await assert.rejects(guard.optional().user({ headers: issuer.headers(fields) }), { status: 403 })
    }
    assert.ok(await guard.verify(issuer.token()))
    const expired = issuer.token({ scope: 'openid', expiresIn: -31 })
    await assert.rejects(guard.verify(expired), { code: 'token_expired' })
  })
}

test('a guard for websites accepts both, and its scopes bind only tokens that have one', async () => {
  const issuer = new TestIssuer()
  const guard = issuer.guard({ websites: true })
  for (const fields of SCOPED) assert.ok(await guard.verify(issuer.token(fields)))
  for (const fields of UNREADABLE) await assert.rejects(guard.verify(issuer.token(fields)), { code: 'invalid_token' })
  const [own, website] = await Promise.all([{}, { scope: 'openid' }].map((fields) => guard.verify(issuer.token(fields))))
  for (const scoped of [issuer.guard({ websites: true, scopes: ['orders:read'] }), guard.requires('orders:read')]) {
    assert.ok(await scoped.verify(issuer.token()))
    assert.ok(await scoped.verify(issuer.token({ scope: 'orders:read' })))
    await assert.rejects(scoped.verify(issuer.token({ scope: 'openid' })), { code: 'insufficient_scope' })
    scoped.checkScopes(own, 'orders:write')
    assert.throws(() => scoped.checkScopes(own, 'a b'), TypeError)
    assert.throws(() => scoped.checkScopes(website), { code: 'insufficient_scope' })
  }
  guard.checkScopes(website)
  assert.throws(() => issuer.guard().checkScopes(own, 'orders:write'), { code: 'insufficient_scope' })
})

test('a guard with scopes accepts no token without them', async () => {
  const issuer = new TestIssuer()
  for (const guard of [issuer.guard({ scopes: ['orders:read'] }), issuer.guard().requires('orders:read')]) {
    assert.ok(await guard.verify(issuer.token({ scope: 'orders:read' })))
    for (const scope of [undefined, '', 'orders:write']) {
      await assert.rejects(guard.verify(issuer.token({ scope })), {
        code: 'insufficient_scope',
        message: 'this request requires the scope orders:read',
      })
    }
  }
})

for (const audience of ['https://mcp.example.com/mcp', 'http://mcp.example.com', 'HTTPS://MCP.example.com/mcp?a=b']) {
  test(`a guard for ${audience} accepts agents`, async () => {
    const issuer = new TestIssuer({ audience })
    const token = issuer.token({ scope: 'orders:read', client_id: AGENT })
    assert.ok(await issuer.guard().verify(token))
    await assert.rejects(issuer.guard().requires('orders:write').verify(token), { code: 'insufficient_scope' })
  })
}

test('websites and orOffline are true or false', () => {
  for (const mistake of ['false', 'true', 0, 1, []]) {
    for (const name of ['websites', 'orOffline']) {
      assert.throws(() => new BearerGuard({ issuer: 'https://auth.test', [name]: mistake }), TypeError)
    }
  }
})

test('a token expires when the clock advances', async () => {
  let time = 1_795_161_600_000
  const issuer = new TestIssuer({ now: () => time })
  const guard = issuer.guard()
  const token = issuer.token()
  time += 929_999
  assert.ok(await guard.verify(token))
  time += 1
  await assert.rejects(guard.verify(token), { code: 'token_expired', status: 401 })
})

test('a principal and its contents cannot be changed', async () => {
  const issuer = new TestIssuer()
  const user = await issuer.guard().verify(issuer.token({ roles: ['clerk'], claims: { shop: { n: 7 } } }))
  assert.throws(() => (user.id = 'x'), TypeError)
  assert.throws(() => user.roles.push('admin'), TypeError)
  assert.throws(() => (user.claims.shop.n = 8), TypeError)
})

test('a guard trusts the issuer until the test has ended', async () => {
  const issuer = new TestIssuer()
  const guard = new BearerGuard({ issuer: 'https://auth.example.com', fetch: () => Promise.reject(new Error()), warn() {} })
  const end = issuer.trustedBy(guard)
  assert.ok(await guard.verify(issuer.token()))
  end()
  await assert.rejects(guard.verify(issuer.token()), { code: 'keys_unavailable', retryAfter: 5 })
})

test('a Fetch request can contain one token, but not two', async () => {
  const issuer = new TestIssuer()
  const request = new Request('https://orders.test', { headers: issuer.headers() })
  assert.equal((await issuer.guard().user(request)).id, USER_ID)
  request.headers.append('authorization', issuer.headers().authorization)
  await assert.rejects(issuer.guard().user(request), { code: 'invalid_request', status: 400 })
})

test('a WebSocket must send its token before it is accepted', async (t) => {
  const issuer = new TestIssuer()
  const guard = issuer.guard()
  const server = createServer().on('upgrade', async (request, socket) => {
    const outcome = await guard.user(request).catch((refusal) => refusal)
    socket.end(`HTTP/1.1 ${outcome.status ?? 418} ${outcome.code ?? outcome.openid}\r\n\r\n`)
  })
  t.after(() => server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const outcomes = [issuer.headers({ openid: 'o-1' }), {}].map(async (headers) => {
    const upgrade = { connection: 'upgrade', upgrade: 'websocket', ...headers }
    const [answer] = await once(get({ port: server.address().port, host: '127.0.0.1', headers: upgrade }), 'response')
    answer.resume()
    return `${answer.statusCode} ${answer.statusMessage}`
  })
  assert.deepEqual(await Promise.all(outcomes), ['418 o-1', '401 missing_token'])
})

test('all roles are required, and a malformed role throws immediately', async () => {
  const issuer = new TestIssuer()
  const request = { headers: issuer.headers({ roles: ['clerk'] }) }
  assert.ok(await issuer.guard().user(request, 'clerk'))
  await assert.rejects(issuer.guard().user(request, 'clerk', 'auditor'), {
    code: 'insufficient_role',
    message: 'this request requires the role auditor, clerk',
  })
  for (const mistake of [{ roles: ['clerk'] }, '', undefined, 7, []]) {
    assert.throws(() => bearer(issuer.guard(), mistake), TypeError)
    await assert.rejects(issuer.guard().user(request, mistake), TypeError)
  }
  assert.throws(() => issuer.token({ userId: 'alice' }), TypeError)
})

test('an audience with characters outside ASCII has no metadata, because a header could not contain its URL', () => {
  const resource = new BearerGuard({ issuer: 'https://auth.example.com', audience: 'https://mcp.example.com/店' })
  assert.throws(() => resource.resourceMetadataPath, TypeError)
})

test('the published keys verify the tokens', async () => {
  const issuer = new TestIssuer()
  const documents = { [issuer.metadata.jwks_uri]: issuer.jwks }
  const fetch = async (url) => Response.json(documents[url] ?? issuer.metadata)
  assert.ok(await new BearerGuard({ issuer: issuer.issuer, fetch }).verify(issuer.token()))
})
