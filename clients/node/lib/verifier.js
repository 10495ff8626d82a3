// Verification of access tokens as RFC 8725 and RFC 9068 require. The guards of wxauth refuse repeated names, large
// tokens and claims of wrong types, which libraries for tokens accept. The module is CommonJS, because Jest loads
// CommonJS by default.
const { crypto, util } = require('./builtin.js')
const { AuthError, invalidToken, tokenExpired } = require('./refusals.js')
const { jsonObject } = require('./json.js')

const verifyInThread = util.promisify(crypto.verify)
const MAX_TOKEN_LENGTH = 8192
const CLOCK_SKEW = 30 // seconds, for exp, iat and nbf
const MAX_SHOWN = 200 // characters of a value in the log
const NOT_TEXT = 'app_id, external_id or scope is missing or not a string'
const BY_OUR_CLOCK = "by this machine's clock"
const REMEMBERED_TOKENS = 4096 // the maximum number of tokens that are remembered
const MAX_REMEMBERED_LENGTH = 2048 // the maximum number of characters of a remembered token

const COMPACT_FORM = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})$/
// The characters that a part may end with, by its length modulo four. The unused bits of the last character must be
// zero (RFC 4648, section 3.5), so that no second spelling decodes to the same bytes.
const LAST_CHARACTERS = [/[A-Za-z0-9_-]$/, /$^/, /[AQgw]$/, /[AEIMQUYcgkosw048]$/]
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
// The texts that programs write for a missing value, or for a value that is not a string.
const NO_TOKEN = /^(?:undefined|null|None|nil|NaN|true|false|\[object [A-Za-z]{1,32}\])$/
const TOKEN_TYPES = ['at+jwt', 'application/at+jwt']

/**
 * A verifier of access tokens.
 *
 * It remembers tokens with a valid signature, because checking the signature takes most of the time, and a user sends
 * the same token with each call. It checks the claims each time, and whether the issuer still publishes the key.
 */
class Verifier {
  #issuer
  #audience
  #keys
  #remembered = new Map() // {key, claims} by token, in the order in which the signatures were last checked

  constructor({ issuer, audience, keys }) {
    for (const name of [issuer, audience]) {
      if (typeof name === 'string' && name) continue
      throw new TypeError('issuer and audience must be one string each, and not empty')
    }
    this.#issuer = issuer
    this.#audience = audience
    this.#keys = keys
  }

  /** Returns the user behind a token. `now` is in seconds since 1970. */
  async verify(token, now, allowsScope) {
    const remembered = this.#remembered.get(token)
    // Another key object means that the keys have been read again. It might be another key with the same id.
    const isSigned = remembered !== undefined && (await this.#keys.find(remembered.key.kid)) === remembered.key
    const claims = isSigned ? remembered.claims : await this.#signedClaims(token)
    return this.#principal(claims, now, allowsScope)
  }

  /**
   * Checks the form and the signature of a token, remembers the token if it is not too long, and returns its claims.
   */
  async #signedClaims(token) {
    if (typeof token !== 'string') throw new TypeError('a token is a string')
    if (token.length > MAX_TOKEN_LENGTH) throw invalidToken('the token is too long')
    const [, header, payload, signature] = COMPACT_FORM.exec(token) ?? []
    if (!signature) throw invalidToken(faultOf(token))
    const kid = keyId(jsonObject(bytesOf(header)))
    const key = await this.#keys.find(kid)
    if (key === null) {
      throw invalidToken(
        'the token names a key that is not known',
        `its kid is ${shown(kid)}, which is no key of ${shown(this.#issuer)}`,
      )
    }
    const claimsBytes = bytesOf(payload)
    const signedPart = Buffer.from(`${header}.${payload}`)
    const publicKey = { key: key.key, dsaEncoding: 'ieee-p1363' }
    if (!(await verifyInThread('sha256', signedPart, publicKey, bytesOf(signature)))) {
      throw invalidToken(
        'the signature does not fit',
        `its signature does not fit the key ${shown(kid)} of ${shown(this.#issuer)}`,
      )
    }
    const claims = frozen(jsonObject(claimsBytes))
    if (token.length <= MAX_REMEMBERED_LENGTH) this.#remember(token, { key, claims })
    return claims
  }

  #remember(token, keyAndClaims) {
    this.#remembered.delete(token) // so that the token becomes the newest one
    this.#remembered.set(token, keyAndClaims)
    if (this.#remembered.size > REMEMBERED_TOKENS) {
      this.#remembered.delete(this.#remembered.keys().next().value) // the oldest token usually expires first
    }
  }

  /** Checks that the token is from this issuer, and for this audience. */
  #checkIssuerAndAudience(claims) {
    const { iss, aud } = claims
    if (iss !== this.#issuer) throw invalidToken('iss is another issuer', differing('iss', claims, this.#issuer))
    if (aud !== this.#audience && !(isTextList(aud) && aud.includes(this.#audience))) {
      throw invalidToken('aud does not name this audience', differing('aud', claims, this.#audience))
    }
  }

  /** Checks the claims, and returns the user. `now` is in seconds since 1970. */
  #principal(claims, now, allowsScope) {
    this.#checkIssuerAndAudience(claims)
    const { client_id: clientId, jti, roles = [], external_id: externalId = '' } = claims
    const hasAppId = Object.hasOwn(claims, 'app_id')
    let { openid } = claims
    // The token of a login in a mini-program or mobile app has no claim app_id, because its client_id names this app.
    let appId = hasAppId ? claims.app_id : clientId
    if (isOfUnregisteredClient(claims)) openid = appId = ''
    if (![clientId, openid, jti].every(isText)) {
      throw invalidToken('client_id, openid or jti is missing or not a string')
    }
    if (![appId, externalId].every(isText)) throw invalidToken(NOT_TEXT)
    if (!isTextList(roles)) throw invalidToken('roles is not a list of strings')
    const [id, sessionId] = [uuid(claims, 'sub'), uuid(claims, 'sid')]
    checkTimes(claims, now)
    const hasScope = Object.hasOwn(claims, 'scope') // whatever its value is
    if (hasScope && !allowsScope) {
      throw new AuthError('insufficient_scope', "this service doesn't accept the tokens of websites and agents")
    }
    // A website's token, which has an app_id, must also have a scope.
    const scope = hasAppId || hasScope ? claims.scope : ''
    if (!isText(scope)) throw invalidToken(NOT_TEXT)
    return frozen({
      id,
      appId,
      openid,
      sessionId,
      roles: [...roles],
      externalId: claims.external_id ?? null,
      scope: scope.split(' ').filter(Boolean),
      claims,
      isCurrent: null,
    })
  }
}

/** Checks that the token is already valid, and has not expired. `now` is in seconds since 1970. */
function checkTimes(claims, now) {
  const beginnings = Object.hasOwn(claims, 'nbf') ? ['iat', 'nbf'] : ['iat'] // only `iat` is required
  for (const name of beginnings) {
    const ahead = time(claims, name) - now
    if (ahead <= CLOCK_SKEW) continue // false if the clock returns no number, so that every token is then refused
    throw invalidToken(`${name} is in the future`, `${name} is ${seconds(ahead)} in the future ${BY_OUR_CLOCK}`)
  }
  const expiredFor = now - time(claims, 'exp')
  if (expiredFor >= CLOCK_SKEW) {
    throw tokenExpired('the token has expired', `expired ${seconds(expiredFor)} ago ${BY_OUR_CLOCK}`)
  }
}

/** Returns why a text does not have the form of a token. The reason contains no part of the text except known words. */
function faultOf(token) {
  const quoted = /^["'`]|["'`]$/.test(token)
  const bare = quoted ? token.replace(/^["'`]+/, '').replace(/(?<!["'`])["'`]+$/, '') : token
  if (!bare || NO_TOKEN.test(bare)) return `the client sent ${bare || 'empty quotation marks'} in place of a token`
  if (quoted) return 'the client sent the token in quotation marks'
  return 'the token is not a JWS in compact form with an ES256 signature'
}

/**
 * Returns whether this is the token of a client that a metadata document describes. Such a token contains a scope, but
 * neither an openid nor an app_id.
 */
function isOfUnregisteredClient(claims) {
  const hasDocument = isText(claims.client_id) && claims.client_id.startsWith('https://')
  const has = (name) => Object.hasOwn(claims, name)
  return hasDocument && has('scope') && !has('openid') && !has('app_id')
}

/** Checks a token's header, and returns the id of the key that it names. */
function keyId(header) {
  const { alg, typ, kid } = header
  if (alg !== 'ES256') throw invalidToken('alg is not ES256')
  if (!isText(typ) || !TOKEN_TYPES.includes(typ.toLowerCase())) throw invalidToken('typ is not at+jwt')
  if (Object.hasOwn(header, 'crit')) throw invalidToken('crit names an extension that is not understood')
  if (!isText(kid) || !kid) throw invalidToken('kid is missing')
  return kid
}

/** Decodes base64url. Throws `invalid_token` for malformed text, including text that no encoder produces. */
function bytesOf(part) {
  if (!LAST_CHARACTERS[part.length % 4].test(part)) throw invalidToken('a part of the token is not base64url')
  return Buffer.from(part, 'base64url')
}

/** Returns the UUID in a claim, in lower case. */
function uuid(claims, name) {
  const value = claims[name]
  if (!isText(value) || !UUID.test(value)) throw invalidToken(`${name} is missing or not a UUID`)
  return value.toLowerCase()
}

/** Returns the time in a claim, in seconds since 1970. */
function time(claims, name) {
  const value = claims[name]
  if (!Number.isFinite(value)) throw invalidToken(`${name} is missing or not a finite number`)
  return value
}

/** Returns a line for the log that compares a claim with its expected value. */
function differing(name, claims, expected) {
  const actual = Object.hasOwn(claims, name) ? shown(claims[name]) : 'missing'
  return `${name} is ${actual}, this guard expects ${shown(expected)}`
}

/** Returns a value for the log, shortened, and escaped because a kid is read before the signature is checked. */
function shown(value) {
  let text = JSON.stringify(value)
  if (isText(value)) text = `'${value}'`
  else if (Array.isArray(value)) text = `[${value.map(shown).join(', ')}]`
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_SHOWN)
}

const seconds = (duration) => `${Math.round(duration).toLocaleString('en-US')} s`

const isText = (value) => typeof value === 'string'
const isTextList = (value) => Array.isArray(value) && value.every(isText)

/** Freezes a value and everything in it, because remembered claims are shared between calls. */
function frozen(value) {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.values(value).forEach(frozen)
  return Object.freeze(value)
}

module.exports = { Verifier }
