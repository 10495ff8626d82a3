// Access tokens for the tests of a service with a guard. Tests need no running wxauth, no network and no waiting.
const { createHash, createPrivateKey, generateKeyPairSync, randomUUID, sign } = require('./builtin.js').crypto
const { authority, BearerGuard, trust } = require('./guard.js')
const { verificationKeys } = require('./keys.js')
const { AuthError, verificationUnavailable } = require('./refusals.js')

const USER_ID = '01900000-0000-7000-8000-000000000001'

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** What `guard.current` asks in tests. */
class TestAuthority {
  banned = new Set()
  ended = new Set()
  roles = new Map()
  outages = new Set()

  async ask(_token, user) {
    if (this.outages.size > 0) throw verificationUnavailable('wxauth is unreachable in this test', true)
    if (this.banned.has(user.id) || this.ended.has(user.sessionId)) {
      throw new AuthError('session_revoked', 'the session has ended')
    }
    return [...(this.roles.get(user.id) ?? user.roles)]
  }
}

class TestIssuer {
  #authority = new TestAuthority()
  #privateKey
  #publicJwk
  #now

  constructor({ issuer = 'https://auth.test', audience = 'wxauth', appId = 'wxtest', now = () => Date.now() } = {}) {
    this.issuer = issuer
    this.audience = audience
    this.appId = appId
    this.#now = now
    // The keys are exported as JWKs immediately, because some versions of Node deadlock if garbage is collected while a
    // key object that was just generated is exported as a JWK.
    const encoding = { format: 'jwk' }
    const options = { namedCurve: 'P-256', publicKeyEncoding: encoding, privateKeyEncoding: encoding }
    const { privateKey, publicKey } = generateKeyPairSync('ec', options)
    const { crv, kty, x, y } = publicKey
    // The kid is the JWK's own thumbprint (RFC 7638).
    const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url')
    this.#privateKey = createPrivateKey({ key: privateKey, format: 'jwk' })
    this.#publicJwk = { crv, kty, x, y, alg: 'ES256', use: 'sig', kid }
  }

  token({
    userId = USER_ID,
    roles = [],
    appId,
    openid,
    sessionId,
    expiresIn = 900,
    scope,
    client_id,
    claims = {},
  } = {}) {
    const now = Math.floor(this.#now() / 1000)
    const app = appId ?? this.appId
    const derivedId = uuid5(userId, app)
    const scopeClaim = [scope ?? []].flat().join(' ')
    const userClaims = {
      openid: openid ?? `openid-${derivedId.replaceAll('-', '').slice(0, 21)}`, // 28 characters, like WeChat's openids
      ...(roles.length > 0 ? { roles } : {}),
    }
    let clientClaims = userClaims // of a login in the mini-program
    if (client_id?.startsWith('https://')) {
      if (roles.length > 0 || appId || openid) {
        throw new TypeError('the token of a client with a metadata document has no roles, appId or openid')
      }
      clientClaims = { scope: scopeClaim, auth_time: now }
    } else if (scope !== undefined || client_id !== undefined) {
      clientClaims = { ...userClaims, scope: scopeClaim, app_id: app } // a website's token also names the openid's app
    }
    const payload = {
      iss: this.issuer,
      sub: asUuid(userId),
      aud: this.audience,
      exp: now + expiresIn,
      iat: now,
      jti: randomUUID().replaceAll('-', ''),
      client_id: client_id ?? app,
      sid: asUuid(sessionId ?? derivedId),
      ...clientClaims,
      ...claims,
    }
    const header = { alg: 'ES256', kid: this.#publicJwk.kid, typ: 'at+jwt' }
    const withoutNulls = Object.fromEntries(Object.entries(payload).filter(([, value]) => value !== null))
    const signedPart = `${base64url(header)}.${base64url(withoutNulls)}`
    const signature = sign('sha256', Buffer.from(signedPart), { key: this.#privateKey, dsaEncoding: 'ieee-p1363' })
    return `${signedPart}.${signature.toString('base64url')}`
  }

  headers(fields) {
    return { authorization: `Bearer ${this.token(fields)}` }
  }

  ban(userId) {
    this.#authority.banned.add(asUuid(userId))
  }

  endSession(sessionId) {
    this.#authority.ended.add(asUuid(sessionId))
  }

  setRoles(userId, roles) {
    this.#authority.roles.set(asUuid(userId), [roles].flat())
  }

  unreachable() {
    const outage = Symbol('outage')
    this.#authority.outages.add(outage)
    return () => void this.#authority.outages.delete(outage)
  }

  forget() {
    for (const facts of [this.#authority.banned, this.#authority.ended, this.#authority.roles]) facts.clear()
  }

  guard({ scopes, websites, orOffline } = {}) {
    const keys = verificationKeys([this.#publicJwk])
    const find = async (kid) => keys.get(kid) ?? null
    const { issuer, audience } = this
    const options = { scopes, websites, orOffline, keys: { find }, now: this.#now, [authority]: this.#authority }
    return new BearerGuard({ issuer, audience, ...options })
  }

  trustedBy(guard) {
    const end = guard[trust](this.guard())
    return () => {
      end()
      this.forget()
    }
  }

  get jwks() {
    return { keys: [this.#publicJwk] }
  }

  get metadata() {
    return { issuer: this.issuer, jwks_uri: `${this.issuer}/.well-known/jwks.json` }
  }
}

/** Returns a UUID in lower case. Throws a TypeError for any other value. */
function asUuid(value) {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)) throw new TypeError(`not a UUID: ${value}`)
  return value.toLowerCase()
}

/** Returns the UUID of a name within another UUID (RFC 9562, section 5.5), as in wxauth_guard.testing. */
function uuid5(namespace, name) {
  const namespaceBytes = Buffer.from(asUuid(namespace).replaceAll('-', ''), 'hex')
  const bytes = createHash('sha1').update(namespaceBytes).update(name).digest()
  bytes[6] = (bytes[6] & 0x0f) | 0x50
  bytes[8] = (bytes[8] & 0x3f) | 0x80
  return bytes.toString('hex', 0, 16).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

module.exports = { USER_ID, TestIssuer }
