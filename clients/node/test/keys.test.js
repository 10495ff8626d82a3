// These tests check how a service reads, caches and renews the issuer's keys, and uses them during an outage.
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { beforeEach, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { BearerGuard } from 'wxauth-guard'
import { TestIssuer } from 'wxauth-guard/testing'
import { RemoteKeys } from '../lib/keys.js'

const ISSUER = 'https://auth.test'
const METADATA = `${ISSUER}/.well-known/oauth-authorization-server`
const JWKS = `${ISSUER}/.well-known/jwks.json`
const SECOND = 1000
const DAY = 86400 * SECOND

const freshKey = (kid) => {
  const [key] = new TestIssuer().jwks.keys
  return { ...key, kid: kid ?? key.kid }
}

/** An issuer that publishes metadata and keys. A test can change them, and read the requests for them. */
class FakeIssuer {
  key = freshKey()
  keys = [this.key]
  document = { issuer: ISSUER, jwks_uri: JWKS }
  headers = { 'cache-control': 'public, max-age=300' }
  requests = []
  isDown = false
  gate = null // a promise for which the response with the keys waits

  fetch = async (url, init) => {
    this.requests.push({ url, ...init })
    if (this.isDown) throw new TypeError('fetch failed', { cause: { code: 'ECONNREFUSED' } })
    if (url !== JWKS) return Response.json(this.document)
    await this.gate
    return Response.json({ keys: this.keys }, { headers: this.headers })
  }

  /** The number of requests for the metadata, and for the keys. */
  get fetches() {
    const count = (wanted) => this.requests.filter(({ url }) => url === wanted).length
    return [count(METADATA), count(JWKS)]
  }
}

let issuer, time, keys, warnings

beforeEach(() => {
  issuer = new FakeIssuer()
  time = 0
  warnings = []
  keys = new RemoteKeys(ISSUER, { fetch: issuer.fetch, timer: () => time, warn: (message) => warnings.push(message) })
})

/** Waits until a background fetch has finished. */
async function settled() {
  for (let turns = 0; turns < 20; turns += 1) await nextTurn()
}

const times = (count, action) => Promise.all(Array.from({ length: count }, (_, number) => action(number)))
const unavailable = { code: 'keys_unavailable', status: 503 }

describe('fetching', () => {
  test('a thousand waiting requests cause one fetch', async () => {
    const found = await times(1000, () => keys.find(issuer.key.kid))
    assert.deepEqual(new Set(found.map(({ kid }) => kid)), new Set([issuer.key.kid]))
    assert.deepEqual(issuer.fetches, [1, 1])
  })

  test('keys are read again in the background after their max-age', async () => {
    await keys.find(issuer.key.kid)
    time += 299 * SECOND
    await keys.find(issuer.key.kid)
    await settled()
    assert.deepEqual(issuer.fetches, [1, 1])
    time += SECOND
    let openGate
    issuer.gate = new Promise((resolve) => (openGate = resolve))
    assert.ok((await times(20, () => keys.find(issuer.key.kid))).every(Boolean)) // no call waits
    openGate()
    await settled()
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  for (const [headers, seconds] of [
    [{ 'cache-control': 'max-age=60' }, 60],
    [{ 'cache-control': 's-maxage=5, Max-Age="60"' }, 60],
    [{ 'cache-control': 'max-age=0' }, 1],
    [{ 'cache-control': 'max-age=999999999' }, 86400],
    [{ 'cache-control': 'x-max-age=5' }, 300],
    [{ 'cache-control': 'no-store' }, 300],
    [{}, 300],
    [{ 'cache-control': 'max-age=60', age: '50' }, 10],
    [{ 'cache-control': 'max-age=60', age: '999' }, 1],
    [{ 'cache-control': 'max-age = 60' }, 60],
    [{ 'cache-control': 'max-age=60', age: '50 , 20' }, 10],
    [{ 'cache-control': 'max-age=60', age: 'soon' }, 60],
    [{ 'cache-control': 'max-age=60', age: 'about 50' }, 60],
    [{ 'cache-control': 'max-age=60', age: '50s' }, 60],
  ]) {
    test(`a key set with ${JSON.stringify(headers)} is fresh for ${seconds} s`, async () => {
      issuer.headers = headers
      await keys.find(issuer.key.kid)
      time += seconds * SECOND - 1
      await keys.find(issuer.key.kid)
      await settled()
      assert.deepEqual(issuer.fetches, [1, 1])
      time += 1
      await keys.find(issuer.key.kid)
      await settled()
      assert.deepEqual(issuer.fetches, [2, 2])
    })
  }

  test('no call waits for the keys in the first five minutes after their max-age', async () => {
    await keys.find(issuer.key.kid)
    time += 600 * SECOND - 1
    let openGate
    issuer.gate = new Promise((resolve) => (openGate = resolve))
    assert.ok(await keys.find(issuer.key.kid))
    openGate()
    await settled()
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  test('requests ask for JSON, and do not follow redirects', async () => {
    await keys.find(issuer.key.kid)
    for (const { redirect, headers } of issuer.requests) {
      assert.deepEqual([redirect, headers.Accept], ['manual', 'application/json'])
    }
  })

  for (const [size, isRead] of [
    [256 * 1024, true],
    [256 * 1024 + 1, false],
  ]) {
    test(`a key set of ${size} bytes is ${isRead ? 'read' : 'too large'}`, async () => {
      const padded = async (url) =>
        url === JWKS ? new Response(JSON.stringify({ keys: issuer.keys }).padEnd(size)) : issuer.fetch(url)
      const found = new RemoteKeys(ISSUER, { fetch: padded, warn() {} }).find(issuer.key.kid)
      await (isRead ? found : assert.rejects(found, { message: /: the document is too large$/ }))
    })
  }
})

describe('an outage', () => {
  test('keys are kept for a day, and the pauses between requests to the issuer grow', async () => {
    await keys.find(issuer.key.kid)
    issuer.isDown = true
    time += 300 * SECOND
    const askedAt = []
    for (let second = 0; second < 200; second += 1) {
      const [count] = issuer.fetches
      assert.ok(await keys.find(issuer.key.kid))
      await settled()
      assert.equal(await keys.find('unknown'), null)
      if (issuer.fetches[0] > count) askedAt.push(second)
      time += SECOND
    }
    assert.deepEqual(askedAt, [0, 10, 30, 70, 130, 190])
    time = DAY
    assert.ok(await keys.find(issuer.key.kid))
    time += 1
    await settled()
    await assert.rejects(keys.find(issuer.key.kid), unavailable)
    issuer.isDown = false
    time += 5 * SECOND
    assert.ok(await keys.find(issuer.key.kid))
    assert.match(warnings[0], /could not be read: no connection: Connection refused$/)
  })

  test('after a long pause, only the first call waits', async () => {
    await keys.find(issuer.key.kid)
    issuer.isDown = true
    time += 3600 * SECOND
    assert.ok(await keys.find(issuer.key.kid))
    assert.ok((await times(20, () => keys.find(issuer.key.kid))).every(Boolean))
    await settled()
    assert.equal(issuer.fetches[0], 2)
  })

  test('without keys, the issuer is asked again after a second, and then after growing pauses', async () => {
    issuer.isDown = true
    const askedAt = []
    for (let second = 0; second < 20; second += 1) {
      const [count] = issuer.fetches
      for (let request = 0; request < 50; request += 1) await assert.rejects(keys.find(issuer.key.kid), unavailable)
      if (issuer.fetches[0] > count) askedAt.push(second)
      time += SECOND
    }
    assert.deepEqual(askedAt, [0, 1, 3, 7, 12, 17])
    issuer.isDown = false
    time += 5 * SECOND
    assert.ok(await keys.find(issuer.key.kid))
  })

  test('a slow server, a long document and a wrong document count as an outage', async (t) => {
    const answers = {
      '/slow': () => {},
      '/long': (response) => response.end(' '.repeat(300_000)),
      '/no-json': (response) => response.end('hello'),
      '/a-list': (response) => response.end('[]'),
      '/null': (response) => response.end('null'),
      '/a-number': (response) => response.end('7'),
      '/nothing': (response) => response.writeHead(204).end(),
      '/elsewhere': (response) => response.writeHead(302, { location: '/' }).end(),
      '/broken': (response) => response.writeHead(500).end(),
      '/another': (response) => response.end(JSON.stringify({ issuer: 'https://evil.test' })),
      '/no-keys': (response, url) => response.end(JSON.stringify({ issuer: url })),
    }
    const server = createServer((request, response) => {
      const [path] = request.url.split('/.well-known')
      answers[path](response, `http://127.0.0.1:${server.address().port}${path}`)
    })
    t.after(() => server.close() && server.closeAllConnections())
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    const origin = `http://127.0.0.1:${server.address().port}`
    const reasonAt = async (path) => {
      const keys = new RemoteKeys(origin + path, { timeout: path === '/slow' ? 300 : 10_000, warn() {} })
      const { code, message } = await keys.find('any').catch((error) => error)
      return `${path} ${code} ${message.replace("the issuer's keys cannot be read: ", '')}`
    }
    const reasons = await Promise.all(Object.keys(answers).map(reasonAt))
    const another = `'https://evil.test', in place of '${origin}/another'`
    assert.deepEqual(reasons, [
      '/slow keys_unavailable no answer within 0.3 s (TimeoutError)',
      '/long keys_unavailable the document is too large',
      '/no-json keys_unavailable SyntaxError',
      '/a-list keys_unavailable not a JSON object',
      '/null keys_unavailable not a JSON object',
      '/a-number keys_unavailable not a JSON object',
      '/nothing keys_unavailable status 204',
      '/elsewhere keys_unavailable status 302',
      '/broken keys_unavailable status 500',
      `/another keys_unavailable the metadata names another issuer, ${another}`,
      "/no-keys keys_unavailable the metadata's jwks_uri is missing or not https",
    ])
  })

  test('an issuer on another machine cannot name a jwks_uri on this machine', async () => {
    issuer.document.jwks_uri = 'http://127.0.0.1:9/keys'
    await assert.rejects(keys.find('any'), { message: /jwks_uri is missing or not https/ })
  })
})

for (const jwksUri of [
  'keys',
  '/keys',
  'https:///keys',
  'xhttp://localhost/keys',
  'http://auth.test/keys',
  [JWKS],
  7,
  null,
  undefined,
]) {
  test(`an issuer on this machine cannot name the jwks_uri ${JSON.stringify(jwksUri)}`, async () => {
    const here = 'http://localhost:8000'
    issuer.document = { issuer: here, jwks_uri: jwksUri }
    const found = new RemoteKeys(here, { fetch: issuer.fetch, warn() {} }).find('any')
    await assert.rejects(found, { message: /jwks_uri is missing or not https$/ })
    assert.equal(issuer.requests.length, 1)
  })
}

describe('an internal URL', () => {
  const INTERNAL = 'http://wxauth:8000'

  /** Returns the keys of the issuer, which is at the internal URL only. */
  function keysInside() {
    const fetch = (url, init) => {
      assert.ok(url.startsWith(INTERNAL), url)
      return issuer.fetch(url.replace(INTERNAL, ISSUER), init)
    }
    return new RemoteKeys(ISSUER, { internalUrl: INTERNAL, fetch, warn: (message) => warnings.push(message) })
  }

  test('the keys are fetched from the internal URL, and the issuer stays the public URL', async () => {
    assert.ok(await keysInside().find(issuer.key.kid))
    assert.deepEqual(issuer.fetches, [1, 1])
  })

  test('the metadata must name the public issuer', async () => {
    issuer.document = { issuer: INTERNAL, jwks_uri: `${INTERNAL}/.well-known/jwks.json` }
    const message = `the metadata names another issuer, '${INTERNAL}', in place of '${ISSUER}'`
    await assert.rejects(keysInside().find('any'), { ...unavailable, message: new RegExp(message) })
    assert.ok(warnings[0].startsWith(`The keys of ${ISSUER} could not be read at ${INTERNAL}: ${message}`))
  })

  for (const jwksUri of [
    `${INTERNAL}/.well-known/jwks.json`,
    'https://keys.test/set',
    ISSUER,
    `${ISSUER}/`,
    `${ISSUER}.evil.test/keys`,
    `${ISSUER}@evil.test/keys`,
    `${ISSUER}/../keys`,
    `${ISSUER}/keys/..`,
    `${ISSUER}/a/%2e%2e/keys`,
    `${ISSUER}//evil.test/keys`,
    `${ISSUER}/keys?at=evil.test`,
    `${ISSUER}/keys\n`,
    '',
    null,
    7,
  ]) {
    test(`the jwks_uri ${JSON.stringify(jwksUri)} is refused`, async () => {
      issuer.document.jwks_uri = jwksUri
      await assert.rejects(keysInside().find('any'), { message: /jwks_uri is not below the issuer$/ })
      assert.deepEqual(issuer.fetches, [1, 0])
    })
  }

  test('an internal URL consists of a host and an optional path', () => {
    const isRefused = ({ message }) => message.startsWith('internalUrl must be') && !message.includes('secret')
    for (const internalUrl of [
      'wxauth:8000',
      'ftp://wxauth',
      'http://',
      'http://wxauth/',
      'http://a:secret@wxauth',
      'http://wxauth?a',
      'xhttp://wxauth',
      ['http://wxauth'],
      7,
      '',
    ]) {
      assert.throws(() => new BearerGuard({ issuer: ISSUER, internalUrl }), isRefused, String(internalUrl))
    }
    const keys = { find: async () => null }
    assert.throws(() => new BearerGuard({ issuer: ISSUER, internalUrl: INTERNAL, keys }), TypeError)
  })
})

describe('the reason of a failed fetch', () => {
  const reasonFor = (internalUrl) =>
    new RemoteKeys(ISSUER, { internalUrl, warn() {} }).find('any').catch(({ message }) => message.replace(/^.*?: /, ''))

  test('says that a host has no address', async () => {
    assert.match(await reasonFor('http://wxauth.invalid'), /^the host's name could not be resolved: /)
  })

  test('says that a connection was refused, or that a server has no TLS', async (t) => {
    const server = createServer((request, response) => response.end())
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address()
    t.after(() => server.close())
    assert.match(await reasonFor(`https://127.0.0.1:${port}`), /^TLS failed: /)
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    assert.equal(await reasonFor(`http://127.0.0.1:${port}`), 'no connection: Connection refused')
  })

  test('says that a certificate is not valid', async () => {
    const fetch = async () => {
      throw new TypeError('fetch failed', { cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } })
    }
    const keys = new RemoteKeys(ISSUER, { fetch, warn() {} })
    await assert.rejects(keys.find('any'), { message: /: TLS failed: DEPTH_ZERO_SELF_SIGNED_CERT$/ })
  })

  for (const code of ['EPROTOTYPE', 'NO_CERT_HERE']) {
    test(`contains the code of an unknown failure, such as ${code}`, async () => {
      const fetch = async () => {
        throw new TypeError('fetch failed', { cause: { code } })
      }
      const message = `the issuer's keys cannot be read: ${code}`
      await assert.rejects(new RemoteKeys(ISSUER, { fetch, warn() {} }).find('any'), { message })
    })
  }

  test('goes to the console by default', async (t) => {
    const warn = t.mock.method(console, 'warn', () => {})
    issuer.isDown = true
    await assert.rejects(new RemoteKeys(ISSUER, { fetch: issuer.fetch }).find('any'), unavailable)
    assert.deepEqual(
      warn.mock.calls.map((call) => call.arguments),
      [[`The keys of ${ISSUER} could not be read: no connection: Connection refused`]],
    )
  })

  test('names another issuer without its password', async () => {
    issuer.document.issuer = `https://operator:p@ss?word@auth.example.com/\n${'x'.repeat(10_000)}`
    const { message } = await keys.find('any').catch((error) => error)
    assert.match(message, /'auth\.example\.com\/\?x/)
    assert.doesNotMatch(message, /operator|p@ss|word/)
    assert.ok(message.length < 500)
  })
})

describe('changes of the keys', () => {
  test('an unknown key causes a fetch immediately, and then at most every ten seconds', async () => {
    assert.equal(await keys.find('unknown'), null) // the first fetch, which does not count
    assert.equal(await keys.find('unknown'), null)
    assert.deepEqual(issuer.fetches, [2, 2])
    for (const seconds of [0, 5, 4.9]) {
      time += seconds * SECOND
      await times(50, (number) => keys.find(`unknown-${number}`))
    }
    assert.deepEqual(issuer.fetches, [2, 2])
    time += 0.1 * SECOND
    await keys.find('unknown')
    assert.deepEqual(issuer.fetches, [3, 3])
  })

  test('a thousand tokens with unknown kids at the same time cause one fetch', async () => {
    await keys.find(issuer.key.kid)
    assert.deepEqual(new Set(await times(1000, (number) => keys.find(`unknown-${number}`))), new Set([null]))
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  test('all simultaneous calls find a new key', async () => {
    await keys.find(issuer.key.kid)
    const next = freshKey()
    issuer.keys.push(next)
    assert.ok((await times(200, () => keys.find(next.kid))).every(Boolean))
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  test('calls for a known key do not wait for an unknown key', async () => {
    await keys.find(issuer.key.kid)
    let openGate
    issuer.gate = new Promise((resolve) => (openGate = resolve))
    const unknownKey = keys.find('unknown')
    assert.ok(await keys.find(issuer.key.kid))
    openGate()
    assert.equal(await unknownKey, null)
  })

  test('during an outage, an unknown key does not make the known key stale', async () => {
    await keys.find(issuer.key.kid)
    issuer.isDown = true
    assert.equal(await keys.find('unknown'), null)
    for (let second = 10; second < 300; second += 10) {
      time += 10 * SECOND
      assert.ok(await keys.find(issuer.key.kid))
      await settled()
    }
    assert.equal(issuer.fetches[0], 2)
  })

  test('calls for a known key do not wait for an unknown key, even after a long pause', async () => {
    await keys.find(issuer.key.kid)
    time += 3600 * SECOND
    let openGate
    issuer.gate = new Promise((resolve) => (openGate = resolve))
    const unknownKey = keys.find('unknown')
    assert.ok(await keys.find(issuer.key.kid))
    openGate()
    assert.equal(await unknownKey, null)
  })

  test('a withdrawn key stops working after the next fetch', async () => {
    await keys.find(issuer.key.kid)
    issuer.keys = [freshKey()]
    time += 300 * SECOND
    await keys.find(issuer.key.kid)
    await settled()
    assert.equal(await keys.find(issuer.key.kid), null)
  })

  test('a key that was withdrawn during a pause does not work after the new fetch', async () => {
    await keys.find(issuer.key.kid)
    issuer.keys = [freshKey()]
    time += 600 * SECOND
    assert.equal(await keys.find(issuer.key.kid), null)
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  for (const published of [[], [{ kty: 'RSA', kid: 'other', n: 'AQAB', e: 'AQAB' }], {}, null, undefined]) {
    test(`a set with ${JSON.stringify(published)} counts as an outage, and the known keys stay in use`, async () => {
      await keys.find(issuer.key.kid)
      issuer.keys = published
      const reason = Array.isArray(published) ? 'no usable key' : 'no list of keys'
      for (let hour = 0; hour < 24; hour += 1) {
        time += DAY / 24
        assert.ok(await keys.find(issuer.key.kid))
        await settled()
      }
      assert.deepEqual(new Set(warnings), new Set([`The keys of ${ISSUER} could not be read: the JWK set has ${reason}`]))
      assert.equal(await keys.find('unknown'), null)
      time += SECOND
      await assert.rejects(keys.find(issuer.key.kid), unavailable)
      issuer.keys = [issuer.key]
      time += 60 * SECOND
      assert.ok(await keys.find(issuer.key.kid))
    })
  }

  for (const change of [
    { kty: 'RSA' },
    { crv: 'P-384' },
    { use: 'enc' },
    { use: null },
    { alg: 'ES384' },
    { alg: ['ES256'] },
    { kid: ['a'] },
    { x: 'AA' },
    { x: 'A'.repeat(43) },
    { y: null },
    { y: '+'.repeat(43) },
    { x: '_'.repeat(43), y: '_'.repeat(43) },
  ]) {
    test(`a key with ${JSON.stringify(change)} is ignored`, async () => {
      issuer.keys = [freshKey(), { ...issuer.key, ...change }, null, [], 'key']
      assert.equal(await keys.find(issuer.key.kid), null)
      assert.ok(await keys.find(issuer.keys[0].kid))
    })
  }

  for (const respelled of [(text) => `${text}=`, (text) => `${text}\n`, (text) => ` ${text}`, (text) => `A${text}`]) {
    test(`a key with a coordinate such as ${JSON.stringify(respelled('x'))} is ignored`, async () => {
      const { x, y } = issuer.key
      issuer.keys = [freshKey(), { ...issuer.key, x: respelled(x) }, { ...issuer.key, kid: 'other', y: respelled(y) }]
      assert.equal(await keys.find(issuer.key.kid), null)
      assert.equal(await keys.find('other'), null)
    })
  }

  test('a key on another curve with coordinates of the same length is ignored', async () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
    issuer.keys.push({ ...publicKey.export({ format: 'jwk' }), kid: 'other' })
    assert.equal(await keys.find('other'), null)
  })

  test('the id of a key has 1 to 256 characters', async () => {
    const [longest, longer] = ['k'.repeat(256), 'k'.repeat(257)]
    issuer.keys.push(freshKey(''), freshKey(longest), freshKey(longer))
    assert.ok(await keys.find(longest))
    for (const kid of ['', longer]) assert.equal(await keys.find(kid), null)
  })

  test('a key can omit use and alg', async () => {
    const { use, alg, ...key } = issuer.key
    issuer.keys = [key]
    assert.ok(await keys.find(key.kid))
  })

  test('if two usable keys have the same kid, both are ignored', async () => {
    const other = freshKey()
    issuer.keys.push(other, freshKey(issuer.key.kid))
    assert.equal(await keys.find(issuer.key.kid), null)
    assert.ok(await keys.find(other.kid))
  })
})

describe('a guard', () => {
  test('refuses a malformed issuer or audience', () => {
    for (const wrong of [
      undefined,
      '',
      'auth.test',
      'http://auth.test',
      'https://auth.test/',
      'https://user:password@auth.test',
      'https://auth.test?x',
      'https://auth.test#x',
      'https://auth.test:0',
      'ftp://auth.test',
      'http://notlocalhost',
      'http://localhost.evil.test',
      'http://127.0.0.1.evil.test',
      'xhttp://localhost',
      ['https://auth.test'],
    ]) {
      assert.throws(
        () => new BearerGuard({ issuer: wrong }),
        (error) => error instanceof TypeError && !error.message.includes('password'),
        String(wrong),
      )
    }
    for (const [wrong, described] of [
      ['https://auth.test/', 'https://auth.test has a slash at the end'],
      ['https://auth.test:8443/', 'https://auth.test:8443 has a slash at the end'],
      ['https://auth.test?x', 'https://auth.test has a query or a fragment'],
      ['https://user:password@auth.test', 'this one has a user'],
      ['http://auth.test', 'http://auth.test is plain http to another machine'],
      ['https://auth.test:0', 'https://auth.test:0 is no URL'],
      ['ftp://auth.test', 'this one does not begin with https://'],
      ['see https://auth.test', 'this one does not begin with https://'],
      ['see https://auth.test/', 'this one has a slash at the end'],
    ]) {
      assert.throws(() => new BearerGuard({ issuer: wrong }), ({ message }) => message.endsWith(`: ${described}`), wrong)
    }
    assert.throws(() => new BearerGuard(), TypeError)
    assert.throws(() => new BearerGuard({ issuer: ISSUER, audience: '' }), TypeError)
    assert.throws(() => new BearerGuard({ issuer: ISSUER, audience: ['wxauth'] }), TypeError)
    for (const right of [
      ISSUER,
      `${ISSUER}/wx`,
      'http://localhost:8000',
      'http://127.0.0.1:8000',
      'http://127.100.20.30',
      'http://[::1]:8000',
    ]) {
      assert.ok(new BearerGuard({ issuer: right }))
    }
  })

  test('checks a signature once, and again after the key has changed', async () => {
    const signer = new TestIssuer({ issuer: ISSUER })
    issuer.keys = [...signer.jwks.keys]
    const guard = new BearerGuard({ issuer: ISSUER, fetch: issuer.fetch, timer: () => time, warn() {} })
    const token = signer.token()
    await guard.verify(token)
    await guard.verify(token)
    issuer.keys = [freshKey(signer.jwks.keys[0].kid)]
    time += 300 * SECOND
    await guard.verify(token) // uses the old keys for the last time, while the new keys are fetched
    await settled()
    await assert.rejects(guard.verify(token), { code: 'invalid_token', message: 'the signature does not fit' })
    assert.deepEqual(issuer.fetches, [2, 2])
  })

  test('remembers the claims of the latest 4,096 tokens, but not of long tokens', async () => {
    const signer = new TestIssuer()
    const guard = signer.guard()
    // If the guard remembers a token, it returns the same object. Otherwise, it returns an equal object.
    const isRemembered = async (token, { claims }) => (await guard.verify(token)).claims === claims
    const [first, second] = [signer.token(), signer.token()]
    const [ofFirst, ofSecond] = [await guard.verify(first), await guard.verify(second)]
    const long = signer.token({ claims: { shop: 'x'.repeat(2048) } })
    assert.equal(await isRemembered(long, await guard.verify(long)), false)
    await times(4095, () => guard.verify(signer.token()))
    assert.equal(await isRemembered(second, ofSecond), true)
    assert.equal(await isRemembered(first, ofFirst), false)
  })

  test('refuses a token that is not a string, even a list with a valid token', async () => {
    const signer = new TestIssuer()
    const good = signer.token()
    for (const mistake of [undefined, null, 7, true, {}, [], [good], new String(good), { toString: () => good }]) {
      await assert.rejects(signer.guard().verify(mistake), TypeError, String(mistake?.constructor?.name))
    }
  })
})
