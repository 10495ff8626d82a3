// The guard, which finds the user behind a bearer token (RFC 6750).
const { RemoteAuthority } = require('./current.js')
const { RemoteKeys, isHttp, isPlain, isSecure } = require('./keys.js')
const { AuthError, challengeWith, forLog, isOutage } = require('./refusals.js')
const { authorizations } = require('./problems.js')
const { Verifier } = require('./verifier.js')

/**
 * The name of a method that only `TestIssuer` calls. `guard[trust](other)` makes the guard use the verifier, the
 * clock and the authority of `other`, and returns a function that undoes this.
 */
const trust = Symbol('trust')
/** The name of a property that says whether a guard admits requests without a token. Only Nest's guard reads it. */
const isOptional = Symbol('isOptional')
/** The name of an option that only `TestIssuer` sets: what `current` asks in place of wxauth. */
const authority = Symbol('authority')

const LOG_PAUSE_SECONDS = 60 // between two log lines about the same cause
// The beginning of the path of a resource's metadata. The resource's own path follows (RFC 9728, section 3.1).
const METADATA_PATH = '/.well-known/oauth-protected-resource'
// Matches a scope (RFC 6749, section 3.3). A scope cannot contain the quote that ends it in `WWW-Authenticate`.
const SCOPE = /^[!#-[\]-~]+$/
const NO_RESOURCE = "a resource's metadata needs an audience that is an https URL, or http on loopback"

class BearerGuard {
  #options
  #scopes
  #isOptional = false
  #asks = false
  #current = null
  #isOfResource
  #metadata // the URL and the path of the resource's metadata, or null
  #trusted // the verifier, the clock and what `current` asks, shared with the guards that this guard makes
  #warn
  #loggedAt = new Map() // the time of the last log line about each cause; the causes are fixed messages

  constructor(options = {}) {
    const { issuer, audience = 'wxauth', scopes = [], keys, now = () => Date.now(), ...remote } = options
    if (keys && remote.internalUrl) {
      throw new TypeError('internalUrl is where keys are read: with keys it must be left out')
    }
    const verifier = new Verifier({ issuer, audience, keys: keys ?? new RemoteKeys(issuer, remote) })
    for (const name of ['websites', 'orOffline']) {
      // A setting's text 'false' would be true.
      if (typeof (options[name] ?? false) !== 'boolean') throw new TypeError(`${name} is true or false`)
    }
    this.#options = { ...options, audience }
    this.#scopes = checkedScopes(scopes)
    this.#isOfResource = isHttp(audience)
    this.#metadata = metadataOf(audience)
    this.#trusted = { verifier, now, authority: options[authority] ?? null }
    this.#warn = remote.warn ?? ((message) => console.warn(message))
  }

  async verify(token) {
    const { verifier, now } = this.#trusted
    const seconds = now() / 1000
    const user = await this.#explaining(verifier.verify(token, seconds, this.#allowsScope), seconds)
    if (this.#scopes.length > 0) this.checkScopes(user)
    if (!this.#asks) return user
    try {
      const roles = await this.#explaining(this.#authority.ask(token, user, this.#query), seconds)
      return Object.freeze({ ...user, roles: Object.freeze(roles), isCurrent: true })
    } catch (failure) {
      if (!this.#options.orOffline || !failure[isOutage]) throw failure
      return Object.freeze({ ...user, isCurrent: false })
    }
  }

  get current() {
    if (this.#asks) return this
    if (this.#current === null) {
      void this.#authority // so that an issuer that cannot be asked is a mistake at once
      this.#current = this.#copyWith([])
      this.#current.#asks = true
    }
    return this.#current
  }

  get #allowsScope() {
    return this.#scopes.length > 0 || this.#options.websites === true || this.#isOfResource
  }

  get #authority() {
    this.#trusted.authority ??= new RemoteAuthority(this.#options.issuer, this.#options)
    return this.#trusted.authority
  }

  /** Returns the query of `/v1/verify` with which wxauth accepts the tokens that this guard accepts. */
  get #query() {
    if (this.#isOfResource) return `?${new URLSearchParams({ resource: this.#options.audience })}`
    return this.#allowsScope ? '?websites=true' : ''
  }

  /** Logs why a check refuses a token, and completes the refusal. */
  async #explaining(check, seconds) {
    try {
      return await check
    } catch (refusal) {
      this.#logCause(refusal, seconds)
      throw this.#completed(refusal)
    }
  }

  /** Logs at most one line a minute for each cause, and none about a malformed token. */
  #logCause(refusal, now) {
    const loggedAt = this.#loggedAt.get(refusal.message) ?? -Infinity
    // If the clock is set back, `loggedAt` is in the future. Because of Math.abs, logging resumes soon anyway.
    if (!refusal[forLog] || Math.abs(now - loggedAt) < LOG_PAUSE_SECONDS) return
    this.#loggedAt.set(refusal.message, now)
    this.#warn(refusal[forLog])
  }

  async user(request, ...roles) {
    const requiredRoles = rolesOf(roles)
    let token
    try {
      token = this.#tokenOf(request)
    } catch (refusal) {
      if (this.#isOptional && requiredRoles.length === 0 && refusal.code === 'missing_token') return null
      throw refusal
    }
    const user = await this.verify(token)
    if (!requiredRoles.every((role) => user.roles.includes(role))) {
      throw new AuthError('insufficient_role', `this request requires the role ${requiredRoles.sort().join(', ')}`)
    }
    return user
  }

  requires(...scopes) {
    if (scopes.length === 0) throw new TypeError('requires needs a scope')
    return this.#copyWith(checkedScopes(scopes))
  }

  optional() {
    const guard = this.#copyWith([])
    guard.#isOptional = true
    return guard
  }

  /** Returns a guard that also requires these scopes, and shares everything else with this guard. */
  #copyWith(scopes) {
    const guard = new BearerGuard({ ...this.#options, scopes: [...this.#scopes, ...scopes] })
    guard.#trusted = this.#trusted
    guard.#loggedAt = this.#loggedAt
    guard.#isOptional = this.#isOptional
    guard.#asks = this.#asks
    return guard
  }

  checkScopes(user, ...scopes) {
    const needed = [...new Set([...this.#scopes, ...checkedScopes(scopes)])].sort()
    if (this.#options.websites && !Object.hasOwn(user.claims, 'scope')) return
    if (needed.every((scope) => user.scope.includes(scope))) return
    const refusal = new AuthError('insufficient_scope', `this request requires the scope ${needed.join(' ')}`)
    throw this.#completed(refusal, needed)
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

  /** Returns the token in a request's header. */
  #tokenOf(request) {
    try {
      return bearerToken(request)
    } catch (refusal) {
      throw this.#completed(refusal)
    }
  }

  /**
   * Adds the scopes that a new token needs, and the URL of the resource's metadata, to a refusal with a challenge.
   * Returns the refusal.
   */
  #completed(refusal, scopes = refusal.status === 401 ? this.#scopes : []) {
    const scope = [...new Set(scopes)].sort().join(' ')
    return challengeWith(refusal, { scope, resource_metadata: this.#metadata?.url })
  }

  get [isOptional]() {
    return this.#isOptional
  }

  [trust](other) {
    const own = { ...this.#trusted }
    Object.assign(this.#trusted, other.#trusted)
    return () => Object.assign(this.#trusted, own)
  }
}

/** Returns the URL and the path of this audience's metadata, or null if the audience is not the URL of a resource. */
function metadataOf(audience) {
  const isSecureUrl = isPlain(audience.replace(/\/$/, '')) && isSecure(audience)
  if (!isSecureUrl || /"|[^!-~]/.test(audience)) return null
  const [, origin, audiencePath] = /^(https?:\/\/[^/]+)(.*)$/i.exec(audience)
  const path = METADATA_PATH + (audiencePath === '/' ? '' : audiencePath)
  return { url: origin + path, path }
}

/**
 * Returns the scopes as a list. Throws a TypeError for any value but scopes, because such a mistake must not admit
 * every user.
 */
function checkedScopes(scopes) {
  const names = [scopes].flat()
  if (names.every((scope) => typeof scope === 'string' && SCOPE.test(scope))) return names
  throw new TypeError('a scope must be printable ASCII, without space, quote and backslash, and not empty')
}

/**
 * Returns the required roles, each of them once. Throws a TypeError for any value but names, because such a mistake
 * must not admit every user.
 */
function rolesOf(roles) {
  const names = [...new Set(roles.flat())]
  if (!names.every((name) => typeof name === 'string' && name)) throw new TypeError('a role is a string, and not empty')
  if (roles.some((role) => role.length === 0)) throw new TypeError('a list of roles is not empty')
  return names
}

/**
 * Returns the token in the only `Authorization` header of a request. Throws an `AuthError` if there is no Bearer token,
 * or if there are two headers.
 */
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

module.exports = { authority, BearerGuard, isOptional, rolesOf, trust }
