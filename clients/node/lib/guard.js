// The guard, which finds the user behind a bearer token (RFC 6750).
const { RemoteKeys, isPlain, isSecure } = require('./keys.js')
const { AuthError, challengeWith, forLog } = require('./refusals.js')
const { authorizations } = require('./problems.js')
const { Verifier } = require('./verifier.js')

/**
 * The name of a method that only `TestIssuer` calls. `guard[trust](other)` makes the guard use the verifier and the
 * clock of `other`, and returns a function that undoes this.
 */
const trust = Symbol('trust')

const PAUSE = 60 // seconds between two log lines about the same cause
const METADATA_PATH = '/.well-known/oauth-protected-resource' // goes between host and path (RFC 9728, section 3.1)
const SCOPE = /^[!#-[\]-~]+$/ // a scope by RFC 6749, section 3.3, which cannot end a header's quotes

class BearerGuard {
  #options
  #scopes
  #isOptional = false
  #metadata // the URL of the resource's metadata, or null
  #trusted // verifier and clock, shared with the guards that `requires` makes
  #warn
  #toldAt = new Map() // the time of the last log line about each cause; the causes are the verifier's fixed messages

  constructor(options = {}) {
    const { issuer, audience = 'wxauth', scopes = [], keys, now = () => Date.now(), ...remote } = options
    if (keys && remote.internalUrl) throw new TypeError('internalUrl is where keys are read: with keys it must be left out')
    const verifier = new Verifier({ issuer, audience, keys: keys ?? new RemoteKeys(issuer, remote) })
    this.#options = { ...options, audience }
    this.#scopes = checkedScopes(scopes)
    this.#metadata = metadataOf(audience)
    this.#trusted = { verifier, now }
    this.#warn = remote.warn ?? ((message) => console.warn(message))
  }

  async verify(token) {
    const { verifier, now } = this.#trusted
    const seconds = now() / 1000
    let user
    try {
      user = await verifier.verify(token, seconds)
    } catch (refusal) {
      this.#tell(refusal, seconds)
      throw this.#challenging(refusal)
    }
    if (this.#scopes.length > 0) this.checkScopes(user)
    return user
  }

  /**
   * Logs the value in the token and the expected value, because the response omits both. Writes at most one line a
   * minute for each cause, and none for a malformed token.
   */
  #tell(refusal, now) {
    const toldAt = this.#toldAt.get(refusal.message) ?? -Infinity
    // After the clock has been set back, `toldAt` is in the future. With the absolute value, the log soon continues.
    if (!refusal[forLog] || Math.abs(now - toldAt) < PAUSE) return
    this.#toldAt.set(refusal.message, now)
    this.#warn(`A token was refused: ${refusal[forLog]}`)
  }

  async user(request, ...roles) {
    const demanded = rolesOf(roles)
    let token
    try {
      token = this.#tokenOf(request)
    } catch (refusal) {
      if (this.#isOptional && demanded.length === 0 && refusal.code === 'missing_token') return null
      throw refusal
    }
    const user = await this.verify(token)
    if (!demanded.every((role) => user.roles.includes(role))) {
      throw new AuthError('insufficient_role', `this request requires the role ${demanded.sort().join(', ')}`)
    }
    return user
  }

  requires(...scopes) {
    if (scopes.length === 0) throw new TypeError('requires needs a scope')
    return this.#with(checkedScopes(scopes))
  }

  optional() {
    const guard = this.#with([])
    guard.#isOptional = true
    return guard
  }

  /** Returns a guard that also requires these scopes, and shares everything else with this guard. */
  #with(scopes) {
    const guard = new BearerGuard({ ...this.#options, scopes: [...this.#scopes, ...scopes] })
    guard.#trusted = this.#trusted
    guard.#toldAt = this.#toldAt
    guard.#isOptional = this.#isOptional
    return guard
  }

  checkScopes(user, ...scopes) {
    const needed = [...new Set([...this.#scopes, ...checkedScopes(scopes)])].sort()
    if (needed.every((scope) => user.scope.includes(scope))) return
    const scope = needed.join(' ')
    const refusal = new AuthError('insufficient_scope', `this request requires the scope ${scope}`)
    throw this.#challenging(challengeWith(refusal, { scope }))
  }

  resourceMetadata({ scopesSupported, resourceName } = {}) {
    if (this.#metadata === null) throw new TypeError(NO_RESOURCE)
    return {
      resource: this.#options.audience,
      authorization_servers: [this.#options.issuer],
      ...(scopesSupported ? { scopes_supported: checkedScopes(scopesSupported) } : {}),
      bearer_methods_supported: ['header'],
      ...(resourceName ? { resource_name: resourceName } : {}),
    }
  }

  get resourceMetadataPath() {
    if (this.#metadata === null) throw new TypeError(NO_RESOURCE)
    return this.#metadata.path
  }

  /** Returns the token in a request's header. A refusal names the URL of the resource's metadata. */
  #tokenOf(request) {
    try {
      return bearerToken(request)
    } catch (refusal) {
      throw this.#challenging(refusal)
    }
  }

  /** Adds the URL of the resource's metadata to a 401, and to the refusal for a missing scope. */
  #challenging(refusal) {
    return challengeWith(refusal, { resource_metadata: this.#metadata?.url })
  }

  [trust](other) {
    const own = { ...this.#trusted }
    Object.assign(this.#trusted, other.#trusted)
    return () => Object.assign(this.#trusted, own)
  }
}

const NO_RESOURCE = "a resource's metadata needs an audience that is an https URL, or http on loopback"

/** Returns the URL of the metadata of this audience, or null if it is not the URL of a resource. */
function metadataOf(audience) {
  if (!isPlain(audience.replace(/\/$/, '')) || !isSecure(audience) || /"|[^!-~]/.test(audience)) return null
  const [, host, below] = /^(https?:\/\/[^/]+)(.*)$/i.exec(audience)
  const path = METADATA_PATH + (below === '/' ? '' : below)
  return { url: host + path, path }
}

/** Returns the scopes as a list. Throws for any other value, because such a mistake must not admit every user. */
function checkedScopes(scopes) {
  const names = [scopes].flat()
  if (names.every((scope) => typeof scope === 'string' && SCOPE.test(scope))) return names
  throw new TypeError('a scope must be printable ASCII, without space, quote and backslash, and not empty')
}

/**
 * Returns the roles that the caller of middleware requires. Throws for any value but names, because such a mistake must
 * not admit every user.
 */
function rolesOf(roles) {
  const names = [...new Set(roles.flat())]
  if (!names.every((name) => typeof name === 'string' && name)) throw new TypeError('a role is a string, and not empty')
  if (roles.some((given) => given.length === 0)) throw new TypeError('a list of roles is not empty')
  return names
}

/** Returns the token in the only `Authorization` header of a request. Throws `AuthError` if there is none. */
function bearerToken(request) {
  const values = authorizations(request)
  if (values.length > 1) throw new AuthError('invalid_request', 'there are two Authorization headers', { status: 400 })
  const [scheme, ...rest] = (values[0] ?? '').split(' ')
  const token = withoutSpaces(rest.join(' '))
  if (scheme.toLowerCase() !== 'bearer' || !token) {
    throw new AuthError('missing_token', "send the access token as 'Authorization: Bearer ...'")
  }
  return token
}

/** Returns a text without spaces at its ends. `trim` would also remove other characters, which a token cannot have. */
function withoutSpaces(text) {
  let [start, end] = [0, text.length]
  while (text[start] === ' ') start += 1
  while (end > start && text[end - 1] === ' ') end -= 1
  return text.slice(start, end)
}

module.exports = { trust, BearerGuard, rolesOf }
