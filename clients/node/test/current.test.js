// `guard.current` asks wxauth about each token, and refuses or falls back exactly as its response says.
import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { BearerGuard, problem } from 'wxauth-guard'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'
import { verificationKeys } from '../lib/keys.js'
import { hang, identify, impatient, patient, raw, refuse, reset, respond, Wxauth } from './wxauth.js'

const OTHER_ID = '0192f0c1-2b3c-7d4e-8f50-123456789abc'
const RESOURCE = 'https://mcp.example.com/mcp'
const UNAVAILABLE = 'verification_unavailable'

let wxauth, warnings
before(async () => {
  wxauth = await new Wxauth().listen()
})
after(() => wxauth.close())
beforeEach(() => {
  warnings = []
  wxauth.requests = []
  wxauth.behaviour = identify()
  wxauth.keys = respond(503)
})

/** Returns a guard that knows the issuer's key, and asks the wxauth of these tests. */
function guardOf(issuer = wxauth.issuer, options = {}) {
  const keys = verificationKeys(issuer.jwks.keys)
  const find = async (kid) => keys.get(kid) ?? null
  const { audience } = issuer
  const warn = (message) => warnings.push(message)
  const timer = () => 0 // so that no machine is too busy
  return new BearerGuard({ issuer: issuer.issuer, audience, keys: { find }, warn, fetch: patient, timer, ...options })
}

/** Returns the code of the refusal, or whether the user is current. */
const outcome = (guard, token) => guard.verify(token).then(({ isCurrent }) => isCurrent, ({ code }) => code)

async function outcomes(behaviour, options = {}) {
  wxauth.behaviour = behaviour
  const token = wxauth.issuer.token({ roles: ['boss'] })
  const guards = [guardOf(wxauth.issuer, options), guardOf(wxauth.issuer, { ...options, orOffline: true })]
  return [await outcome(guards[0].current, token), await outcome(guards[1].current, token)]
}

describe('the question', () => {
  for (const [audience, options, query] of [
    ['wxauth', {}, ''],
    ['wxauth', { websites: true }, '?websites=true'],
    ['wxauth', { scopes: ['openid'] }, '?websites=true'],
    [RESOURCE, {}, '?resource=https%3A%2F%2Fmcp.example.com%2Fmcp'],
    [RESOURCE, { websites: true }, '?resource=https%3A%2F%2Fmcp.example.com%2Fmcp'],
  ]) {
    test(`about a token for ${audience} with ${JSON.stringify(options)} has the query '${query}'`, async () => {
      wxauth.behaviour = identify('clerk,cook')
      const issuer = new TestIssuer({ issuer: wxauth.url, audience })
      const token = issuer.token({ roles: ['boss'], scope: query ? 'openid' : undefined })
      const user = await guardOf(issuer, options).current.verify(token)
      assert.deepEqual([user.roles, user.isCurrent, user.claims.roles], [['clerk', 'cook'], true, ['boss']])
      assert.throws(() => user.roles.push('boss'), TypeError)
      assert.throws(() => (user.isCurrent = null), TypeError)
      const [{ method, url, headers }] = wxauth.requests
      assert.deepEqual([method, url, headers.authorization], ['GET', `/v1/verify${query}`, `Bearer ${token}`])
    })
  }

  test('a guard that does not ask says so, and no refused token is sent', async () => {
    const guard = guardOf()
    assert.equal(guard.current, guard.current)
    assert.equal(guard.current.current, guard.current)
    assert.equal(await outcome(guard, wxauth.issuer.token()), null)
    const { issuer } = wxauth
    const tokens = ['nonsense', issuer.token({ expiresIn: -60 }), issuer.token({ scope: 'openid' }), new TestIssuer().token()]
    for (const token of tokens) assert.equal(typeof (await outcome(guard.current, token)), 'string')
    assert.equal(wxauth.requests.length, 0)
  })

  test('goes to the internal URL, below its path', async () => {
    const issuer = new TestIssuer({ issuer: 'https://auth.example.com/auth' })
    const urls = []
    const fetch = async (url, init) => {
      urls.push([url, init.redirect, init.cache])
      const documents = [issuer.metadata, issuer.jwks]
      if (url.includes('/v1/')) return new Response('', { headers: { 'X-Auth-User-Id': USER_ID } })
      return Response.json(documents[urls.length - 1])
    }
    const guard = new BearerGuard({ issuer: issuer.issuer, internalUrl: 'http://wxauth:8000/a', fetch })
    assert.equal(await outcome(guard.current, issuer.token()), true)
    assert.deepEqual(urls.at(-1), ['http://wxauth:8000/a/v1/verify', 'manual', 'no-store'])
  })

  test('an issuer that cannot be asked safely is a mistake at once', () => {
    const guard = new BearerGuard({ issuer: 'http://auth.example.com', keys: { find() {} } })
    assert.throws(() => guard.current, /plain http to another machine/)
  })

  test('the answers come over one connection', async () => {
    const guard = guardOf().current
    await guard.verify(wxauth.issuer.token())
    const { connections } = wxauth
    for (let times = 0; times < 4; times += 1) await guard.verify(wxauth.issuer.token())
    assert.equal(wxauth.connections, connections)
  })

  test('is repeated once if wxauth has closed the idle connection', async () => {
    const guard = guardOf().current
    for (const ending of [raw(''), reset]) {
      wxauth.behaviour = (request, response) => {
        wxauth.behaviour = identify()
        ending(request, response)
      }
      assert.equal(await outcome(guard, wxauth.issuer.token()), true)
    }
    wxauth.requests = []
    wxauth.behaviour = raw('')
    assert.equal(await outcome(guard, wxauth.issuer.token()), UNAVAILABLE)
    assert.equal(wxauth.requests.length, 2)
  })

  test('takes two seconds at most, with its repetition', async (t) => {
    const limits = []
    const original = AbortSignal.timeout
    t.mock.method(AbortSignal, 'timeout', (milliseconds) => {
      limits.push(milliseconds)
      return original.call(AbortSignal, 50)
    })
    assert.deepEqual(await outcomes(hang, { fetch }), [UNAVAILABLE, false])
    wxauth.behaviour = raw('')
    await outcome(guardOf(wxauth.issuer, { fetch }).current, wxauth.issuer.token())
    assert.deepEqual(limits, [2000, 2000, 2000, 2000]) // one of them for the public keys
  })
})

const NAMED = { 'X-Auth-User-Id': USER_ID }
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index)
const redirect = (status) => respond(status, { ...NAMED, Location: '/v1/verify?again' })

for (const [name, behaviour, [strict, offline], options] of [
  ['the user', identify(), [true, true]],
  ['more than is needed', respond(200, NAMED, 'x'.repeat(100_000)), [true, true]],
  ['the user and an endless body', (_, response) => response.writeHead(200, NAMED).write('x'), [true, true]],
  ['an ended session', refuse(401, 'invalid_token'), ['session_revoked', 'session_revoked']],
  ['a 401 without a body', respond(401), ['session_revoked', 'session_revoked']],
  ['a 401 that is a page', respond(401, {}, '<html>'), ['session_revoked', 'session_revoked']],
  ['a 401 of null', respond(401, {}, 'null'), ['session_revoked', 'session_revoked']],
  ['a 401 of much JSON', respond(401, {}, '['.repeat(100_000)), ['session_revoked', 'session_revoked']],
  ['a 401 that breaks off', raw('HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n{'), ['session_revoked', 'session_revoked']],
  [
    ...['a 401 whose body never comes', (_, response) => response.writeHead(401).flushHeaders()],
    ...[['session_revoked', 'session_revoked'], { fetch: impatient }],
  ],
  ['a 401 with a challenge', respond(401, { 'WWW-Authenticate': 'Basic' }), ['session_revoked', 'session_revoked']],
  ['an expired token', refuse(401, 'token_expired'), ['token_expired', 'token_expired']],
  ['a scope', refuse(403, 'insufficient_scope'), ['insufficient_scope', 'insufficient_scope']],
  ['a firewall', respond(403, {}, '<html>'), ['insufficient_scope', 'insufficient_scope']],
  ['an end', raw(''), [UNAVAILABLE, false]],
  ['a reset', reset, [UNAVAILABLE, false]],
  ['a head that breaks off', raw('HTTP/1.1 200 OK\r\nX-Auth-User'), [UNAVAILABLE, false]],
  ['nothing in time', hang, [UNAVAILABLE, false], { fetch: impatient }],
  [
    ...['half a head in time', (request) => request.socket.write('HTTP/1.1 200 OK\r\n')],
    ...[[UNAVAILABLE, false], { fetch: impatient }],
  ],
  ...[502, 503, 504].map((status) => [status, refuse(status, 'storage_unavailable'), [UNAVAILABLE, false]]),
  ...[...range(201, 208), 226, 300, 304, 305, 306, 400, 402, ...range(404, 431), 451, 500, 501, ...range(505, 511), 599].map(
    (status) => [status, respond(status, NAMED), [UNAVAILABLE, UNAVAILABLE]],
  ),
  ...[300, 301, 302, 303, 307, 308].map((status) => [`a redirect ${status}`, redirect(status), [UNAVAILABLE, UNAVAILABLE]]),
  ['nobody', respond(200), [UNAVAILABLE, UNAVAILABLE]],
  ['a page', respond(200, {}, '<html>'), [UNAVAILABLE, UNAVAILABLE]],
  ['another user', identify('', { 'X-Auth-User-Id': OTHER_ID }), [UNAVAILABLE, UNAVAILABLE]],
  ['two users', identify('', { 'X-Auth-User-Id': [USER_ID, OTHER_ID] }), [UNAVAILABLE, UNAVAILABLE]],
  ['another session', identify('', { 'X-Auth-Session-Id': OTHER_ID }), [UNAVAILABLE, UNAVAILABLE]],
  ['no HTTP', raw('SSH-2.0-OpenSSH_9.2\r\n\r\n'), [UNAVAILABLE, UNAVAILABLE]],
  ['an upgrade', raw('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'), [UNAVAILABLE, UNAVAILABLE]],
  ['a huge head', raw(`HTTP/1.1 200 OK\r\nX-A: ${'a'.repeat(100_000)}\r\n\r\n`), [UNAVAILABLE, UNAVAILABLE]],
]) {
  test(`wxauth's response '${name}' means ${strict}, or offline ${offline}`, async () => {
    assert.deepEqual(await outcomes(behaviour, options), [strict, offline])
    assert.ok(wxauth.requests.every(({ url }) => url === '/v1/verify'))
    if (strict === UNAVAILABLE) assert.equal(warnings.length, 2)
    for (const line of warnings) {
      assert.match(line, /^A token could not be verified at once: wxauth/)
      assert.doesNotMatch(line, /eyJ/)
    }
  })
}

for (const [causes, offline] of [
  [[{ code: 'ECONNREFUSED' }], false],
  [[{ code: 'ENOTFOUND' }], false],
  [[{ code: 'UND_ERR_CONNECT_TIMEOUT' }], false],
  [[{ code: 'EADDRNOTAVAIL' }, { code: 'ECONNREFUSED' }], false],
  [[{ code: 'EADDRNOTAVAIL' }], UNAVAILABLE],
  [[{ code: 'EADDRNOTAVAIL' }, { code: 'EADDRNOTAVAIL' }], UNAVAILABLE],
  [[{ code: 'EPERM' }], UNAVAILABLE],
  [[{ code: 'ECONNREFUSED' }, { code: 'EMFILE' }], UNAVAILABLE],
  [[{ code: 'EMFILE' }], UNAVAILABLE],
  [[{ code: 'CERT_HAS_EXPIRED' }], UNAVAILABLE],
  [[{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }], UNAVAILABLE],
  [[{ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }], UNAVAILABLE],
  [[{ code: 'EPROTO' }], UNAVAILABLE],
  [[new Error('proxy authentication required')], UNAVAILABLE],
  [[undefined], UNAVAILABLE],
]) {
  test(`a fetch that fails with ${causes.map((cause) => cause?.code ?? cause)} means offline ${offline}`, async () => {
    const cause = causes.length > 1 ? new AggregateError(causes) : causes[0]
    const fetch = () => Promise.reject(new TypeError('fetch failed', { cause }))
    assert.deepEqual(await outcomes(hang, { fetch }), [UNAVAILABLE, offline])
    assert.equal(warnings.length, 2)
  })
}

test('no connection is an outage', async () => {
  const closed = await new Wxauth().listen()
  closed.close()
  const guard = guardOf(closed.issuer, { orOffline: true })
  const user = await guard.current.verify(closed.issuer.token({ roles: ['boss'] }))
  assert.deepEqual([user.isCurrent, user.roles], [false, ['boss']])
  const strict = guardOf(closed.issuer).current
  await assert.rejects(strict.verify(closed.issuer.token()), {
    code: UNAVAILABLE,
    status: 503,
    retryAfter: 5,
    message: "wxauth can't be asked about the session: no connection: Connection refused",
  })
})

test('one line a minute says why', async () => {
  wxauth.behaviour = refuse(429, 'rate_limited')
  const guard = guardOf(wxauth.issuer, { orOffline: true }).current
  for (let times = 0; times < 3; times += 1) await assert.rejects(guard.verify(wxauth.issuer.token()), { status: 503 })
  assert.deepEqual(warnings, ["A token could not be verified at once: wxauth can't be asked about the session: status 429"])
})

test('requires, optional and roles ask, too, with the scopes of the guard', async () => {
  const issuer = new TestIssuer({ issuer: wxauth.url })
  const guard = guardOf(issuer, { websites: true })
  const request = (fields) => ({ headers: issuer.headers(fields) })
  for (const asking of [guard.current.requires('a'), guard.requires('a').current]) {
    assert.equal((await asking.user(request({ scope: 'a' }))).isCurrent, true)
    await assert.rejects(asking.user(request({ scope: 'b' })), { code: 'insufficient_scope' })
  }
  wxauth.behaviour = identify('clerk')
  assert.ok(await guard.current.user(request(), 'clerk'))
  await assert.rejects(guard.current.user(request({ roles: ['boss'] }), 'boss'), { code: 'insufficient_role' })
  for (const asking of [guard.current.optional(), guard.optional().current]) {
    assert.equal(await asking.user({ headers: {} }), null)
    assert.equal((await asking.user(request())).isCurrent, true)
    wxauth.behaviour = refuse(401, 'invalid_token')
    await assert.rejects(asking.user(request()), { code: 'session_revoked' })
    wxauth.behaviour = identify('clerk')
  }
})

test("the refusal of an ended session names the resource's metadata", async () => {
  wxauth.behaviour = refuse(401, 'invalid_token')
  const issuer = new TestIssuer({ issuer: wxauth.url, audience: RESOURCE })
  const request = { headers: { ...issuer.headers({ scope: 'a' }), 'accept-language': 'zh-CN' } }
  const refusal = await guardOf(issuer).current.user(request).catch((error) => error)
  const { status, headers, body } = problem(refusal, request)
  assert.deepEqual([status, JSON.parse(body).title], [401, '你已退出登录，请重新登录。'])
  const metadata = 'https://mcp.example.com/.well-known/oauth-protected-resource/mcp'
  assert.equal(headers['WWW-Authenticate'], `Bearer error="invalid_token", resource_metadata="${metadata}"`)
})

describe('in tests', () => {
  const issuer = new TestIssuer()
  const guard = new BearerGuard({ issuer: 'https://auth.example.com', warn() {}, orOffline: true })
  let end
  beforeEach(() => (end = issuer.trustedBy(guard)))
  afterEach(() => end())
  const ask = (fields) => outcome(guard.current, issuer.token(fields))

  test('a ban refuses all tokens of the user, until the test has ended', async () => {
    issuer.ban(USER_ID.toUpperCase())
    assert.equal(await ask(), 'session_revoked')
    assert.equal(await outcome(guard, issuer.token()), null)
    assert.equal(await ask({ userId: OTHER_ID }), true)
    end()
    end = issuer.trustedBy(guard)
    assert.equal(await ask(), true)
  })

  test('an ended session refuses its own tokens', async () => {
    issuer.endSession(OTHER_ID)
    assert.equal(await ask({ sessionId: OTHER_ID }), 'session_revoked')
    assert.equal(await ask(), true)
    issuer.forget()
    assert.equal(await ask({ sessionId: OTHER_ID }), true)
  })

  test('roles are those of the token until they are set', async () => {
    const rolesOf = async () => (await guard.current.verify(issuer.token({ roles: ['boss'] }))).roles
    assert.deepEqual(await rolesOf(), ['boss'])
    for (const [roles, expected] of [[['clerk', 'cook'], ['clerk', 'cook']], ['clerk', ['clerk']], [[], []]]) {
      issuer.setRoles(USER_ID, roles)
      assert.deepEqual(await rolesOf(), expected)
    }
  })

  test('wxauth is unreachable until the last outage ends', async () => {
    const outages = [issuer.unreachable(), issuer.unreachable()]
    issuer.ban(USER_ID)
    assert.equal(await ask(), false)
    outages[0]()
    outages[0]()
    assert.equal(await ask(), false)
    assert.equal(await outcome(issuer.guard().current, issuer.token()), UNAVAILABLE)
    outages[1]()
    assert.equal(await ask(), 'session_revoked')
  })

  test('an id that is no UUID is a mistake', () => {
    assert.throws(() => issuer.ban('alice'), TypeError)
    assert.throws(() => issuer.endSession(undefined), TypeError)
    assert.throws(() => issuer.setRoles('7', []), TypeError)
  })
})
