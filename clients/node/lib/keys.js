// The issuer's public keys. They are read through the issuer's metadata, cached, and renewed in the background. While
// the issuer is unavailable, the cached keys stay in use.
const { createPublicKey } = require('./builtin.js').crypto
const { AuthError } = require('./refusals.js')

const METADATA_PATH = '/.well-known/oauth-authorization-server'
const SECOND = 1000
const UNKNOWN_KEY_PAUSE = 10 * SECOND // between two fetches that unknown key ids cause, and after a failed fetch
const MAX_PAUSE = 60 * SECOND // the upper limit of the pause after failed fetches, which doubles with each failure
const RETRY_PAUSE = SECOND // between two attempts while there is no usable key
const MAX_RETRY_PAUSE = 5 * SECOND // the upper limit of the pause without keys, which doubles with each failure
const STALE_IF_ERROR = 86400 * SECOND // the longest time for which keys are used while the issuer is unavailable
// The time for which a fetch that is due does not delay requests with known keys. If the fetch begins later, the call
// that starts it waits for the new keys.
const STALE_WHILE_REVALIDATE = 300 * SECOND
const FETCH_TIMEOUT = 5 * SECOND
const DEFAULT_MAX_AGE = 300 * SECOND
const MAX_DOCUMENT = 256 * 1024 // bytes
const MAX_KID_LENGTH = 256
const MAX_SHOWN = 200 // characters of another issuer's URL in an error

const COORDINATE = /^[A-Za-z0-9_-]{43}$/ // a coordinate of a point on P-256: 32 bytes in base64url
const MAX_AGE_DIRECTIVE = /(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})/i
const AGE_HEADER = /^(\d{1,9})\s*(?:,|$)/
// Matches a path that cannot lead out of the URL to which it is appended, as a path with `..` could.
const PATH_BELOW = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._~-]+)+$/

const NAME_FAILURES = { ENOTFOUND: 'Name or service not known', EAI_AGAIN: 'Temporary failure in name resolution' }
const CONNECTION_FAILURES = {
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EHOSTUNREACH: 'No route to host',
  ENETUNREACH: 'Network is unreachable',
  ETIMEDOUT: 'Connection timed out',
  UND_ERR_CONNECT_TIMEOUT: 'Connection timed out',
}
const TLS_FAILURE = /^(?:ERR_(?:SSL|TLS)_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|HOSTNAME_MISMATCH|EPROTO$)/

/** The issuer's keys could not be read. Responses may contain the message. */
class Unreadable extends Error {}

/** A source of keys that reads an issuer's metadata and JWK set. The optional arguments are those of `GuardOptions`. */
class RemoteKeys {
  #issuer
  #internalUrl
  #fetch
  #timer
  #timeout
  #warn
  #keySet = null
  #fetching = null
  #nextRefresh = 0 // known keys are used without a fetch until this time
  #nextForUnknown = 0 // an unknown key does not cause a fetch until this time, unless a refresh is due
  #failures = 0 // since the last success
  #failedAt = -Infinity
  #failure = ''

  constructor(
    issuer,
    {
      internalUrl = null,
      fetch = (url, init) => globalThis.fetch(url, init),
      timer = () => performance.now(),
      timeout = FETCH_TIMEOUT,
      warn = (message) => console.warn(message),
    } = {},
  ) {
    checkUrls(issuer, internalUrl)
    this.#issuer = issuer
    this.#internalUrl = internalUrl
    this.#fetch = fetch
    this.#timer = timer
    this.#timeout = timeout
    this.#warn = warn
  }

  /**
   * Returns the issuer's key with this id, or null if the issuer had no such key at the last fetch.
   *
   * If there are no usable keys in memory, or if the id is unknown, the call waits for a fetch that it starts or finds
   * under way. For a known key, only the call that starts a fetch waits, and only if the fetch has been due for at
   * least five minutes. A fetch is due when the keys have reached their max-age or, after a failure, at the end of a
   * pause. Rejects with `keys_unavailable` if there are no keys, or if they are more than a day old.
   */
  async find(kid) {
    const now = this.#timer()
    const keys = this.#usableKeys(now)
    if (keys.size === 0) {
      if (now - this.#failedAt >= this.#pause(RETRY_PAUSE, MAX_RETRY_PAUSE)) await this.#fetchKeys()
    } else if (keys.has(kid)) {
      if (now < this.#nextRefresh || this.#fetching !== null) return keys.get(kid)
      const isOverdue = now >= this.#nextRefresh + STALE_WHILE_REVALIDATE
      const fetching = this.#fetchKeys()
      if (!isOverdue) return keys.get(kid)
      await fetching
    } else {
      if (this.#fetching === null) {
        if (now < Math.min(this.#nextForUnknown, this.#nextRefresh)) return null
        this.#nextForUnknown = now + UNKNOWN_KEY_PAUSE
      }
      await this.#fetchKeys()
    }
    return this.#keysAtHand().get(kid) ?? null
  }

  /** Returns the keys in memory by id, or an empty map if they are more than a day old. */
  #usableKeys(now) {
    const isUsable = this.#keySet !== null && now - this.#keySet.readAt <= STALE_IF_ERROR
    return isUsable ? this.#keySet.keys : new Map()
  }

  /** Returns the usable keys. Throws `keys_unavailable` if there are none. */
  #keysAtHand() {
    const keys = this.#usableKeys(this.#timer())
    if (keys.size === 0) {
      throw new AuthError('keys_unavailable', `the issuer's keys cannot be read: ${this.#failure}`)
    }
    return keys
  }

  /** Returns the pause after the failures so far: `first`, doubled with each failure up to `most`. */
  #pause(first, most) {
    return Math.min(first * 2 ** Math.max(this.#failures - 1, 0), most)
  }

  /** Starts a fetch, or joins the current fetch. Never rejects, because the keys in memory are kept after a failure. */
  #fetchKeys() {
    this.#fetching ??= this.#fetchOnce().finally(() => {
      this.#fetching = null
    })
    return this.#fetching
  }

  /** Fetches the keys, and notes the success or the failure. */
  async #fetchOnce() {
    try {
      this.#keySet = await this.#fetchKeySet(AbortSignal.timeout(this.#timeout))
      this.#failures = 0
      this.#nextRefresh = this.#keySet.readAt + this.#keySet.maxAge
    } catch (error) {
      // Responses contain the reason, so it consists only of texts of this module, not of the error's own message.
      this.#noteFailure(error instanceof Unreadable ? error.message : causeOf(error, this.#timeout))
    }
  }

  /** Logs a failure, and postpones the next fetch. */
  #noteFailure(reason) {
    const place = this.#internalUrl === null ? '' : ` at ${this.#internalUrl}`
    this.#warn(`The keys of ${this.#issuer} could not be read${place}: ${reason}`)
    this.#failure = reason
    this.#failedAt = this.#timer()
    this.#failures += 1
    const nextTry = this.#failedAt + this.#pause(UNKNOWN_KEY_PAUSE, MAX_PAUSE)
    // An unknown id can cause a fetch while the keys are fresh. Because of Math.max, they stay fresh after a failure.
    this.#nextRefresh = Math.max(this.#nextRefresh, nextTry)
    this.#nextForUnknown = Math.max(this.#nextForUnknown, nextTry)
  }

  /** Reads the metadata and the JWK set. Rejects with `Unreadable`, or with an error of `fetch` or `JSON.parse`. */
  async #fetchKeySet(signal) {
    const [metadata] = await this.#getJson((this.#internalUrl ?? this.#issuer) + METADATA_PATH, signal)
    if (metadata.issuer !== this.#issuer) {
      throw new Unreadable(`the metadata names another issuer, ${shown(metadata.issuer)}, in place of '${this.#issuer}'`)
    }
    const [jwks, headers] = await this.#getJson(this.#jwksUrl(metadata.jwks_uri), signal)
    if (!Array.isArray(jwks.keys)) throw new Unreadable('the JWK set has no list of keys')
    const keys = verificationKeys(jwks.keys)
    // For example, a gateway returns such a set during maintenance. The keys in memory stay in use.
    if (keys.size === 0) throw new Unreadable('the JWK set has no usable key')
    return { keys, readAt: this.#timer(), maxAge: maxAge(headers) }
  }

  /**
   * Returns the URL of the JWK set: `jwksUri`, or its counterpart below the internal URL. Throws `Unreadable` if, with
   * an internal URL, `jwksUri` is not below the issuer's URL or, without one, it is neither https nor, like the issuer,
   * on loopback.
   */
  #jwksUrl(jwksUri) {
    if (this.#internalUrl !== null) {
      const isBelow = typeof jwksUri === 'string' && jwksUri.startsWith(this.#issuer)
      const path = isBelow ? jwksUri.slice(this.#issuer.length) : ''
      if (!PATH_BELOW.test(path)) throw new Unreadable("the metadata's jwks_uri is not below the issuer")
      return this.#internalUrl + path
    }
    // The metadata of another machine must not direct the guard to plain http on this machine.
    if (!isSecure(jwksUri) || (!isOnLoopback(this.#issuer) && !isHttps(jwksUri))) {
      throw new Unreadable("the metadata's jwks_uri is missing or not https")
    }
    return jwksUri
  }

  /** Returns the JSON object at a URL, and the headers of the response. */
  async #getJson(url, signal) {
    const response = await this.#fetch(url, { headers: { Accept: 'application/json' }, redirect: 'manual', signal })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Unreadable(`status ${response.status}`)
    }
    const chunks = []
    let length = 0
    for await (const chunk of response.body ?? []) {
      chunks.push(chunk)
      length += chunk.length
      if (length > MAX_DOCUMENT) throw new Unreadable('the document is too large')
    }
    const document = JSON.parse(Buffer.concat(chunks).toString())
    if (typeof document !== 'object' || document === null || Array.isArray(document)) {
      throw new Unreadable('not a JSON object')
    }
    return [document, response.headers]
  }
}

/** Returns the usable keys of a JWK set, by kid. If two usable keys have the same kid, both are ignored. */
function verificationKeys(jwks) {
  const byKid = new Map()
  const ambiguous = new Set()
  for (const jwk of jwks) {
    const key = verificationKey(jwk ?? {})
    if (key === null) continue
    if (byKid.has(key.kid)) ambiguous.add(key.kid)
    byKid.set(key.kid, key)
  }
  for (const kid of ambiguous) byKid.delete(kid)
  return byKid
}

/** Returns the key in a JWK with its kid, or null if ES256 cannot use it. */
function verificationKey({ kid, kty, crv, x, y, use = 'sig', alg = 'ES256' }) {
  const isNamed = typeof kid === 'string' && kid.length > 0 && kid.length <= MAX_KID_LENGTH
  const isForES256 = kty === 'EC' && crv === 'P-256' && use === 'sig' && alg === 'ES256'
  const hasCoordinates = [x, y].every((value) => typeof value === 'string' && COORDINATE.test(value))
  if (!isNamed || !isForES256 || !hasCoordinates) return null
  try {
    return { kid, key: createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' }) }
  } catch {
    return null // the point is not on the curve
  }
}

/** Returns the time for which a response is still fresh (RFC 9111, section 4.2): at least a second, at most a day. */
function maxAge(headers) {
  const match = MAX_AGE_DIRECTIVE.exec(headers.get('cache-control') ?? '')
  if (match === null) return DEFAULT_MAX_AGE
  const age = AGE_HEADER.exec(headers.get('age') ?? '')
  const remaining = (Number(match[1]) - Number(age?.[1] ?? 0)) * SECOND
  return Math.min(Math.max(remaining, SECOND), STALE_IF_ERROR)
}

/**
 * Returns why a fetch has failed (name, connection, TLS or timeout). The text names no host, because responses
 * contain the text.
 */
function causeOf(error, timeout) {
  // If the host has several addresses, there is one error for each of them. Only the first of these errors is used.
  const cause = error.cause?.errors?.[0] ?? error.cause
  const code = cause?.code
  if (typeof code === 'string') {
    if (code in NAME_FAILURES) return `the host's name could not be resolved: ${NAME_FAILURES[code]}`
    if (code in CONNECTION_FAILURES) return `no connection: ${CONNECTION_FAILURES[code]}`
    if (TLS_FAILURE.test(code)) return `TLS failed: ${code}`
    return code
  }
  return error.name === 'TimeoutError' ? `no answer within ${timeout / SECOND} s (TimeoutError)` : error.name
}

/** Returns another issuer's URL without the parts that might be secret: before an @, and from a ? or # on. */
function shown(issuer) {
  const [plain] = String(issuer).split('@').at(-1).split(/[?#]/)
  return `'${plain.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_SHOWN)}'`
}

/** Throws a TypeError if one of the URLs cannot be used. */
function checkUrls(issuer, internalUrl) {
  // The messages contain only the scheme and the host, because other parts of the URL might contain a password.
  if (!isPlain(issuer) || !isSecure(issuer)) {
    throw new TypeError(
      'issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end' +
        `: ${hostOf(issuer)} ${faultOf(String(issuer))}`,
    )
  }
  if (internalUrl !== null && !isPlain(internalUrl)) {
    throw new TypeError('internalUrl must be an http or https URL without user, query, fragment or a slash at the end')
  }
}

/**
 * Returns only the scheme, host and port of a wrong URL, because the other parts might contain a secret. If the URL has
 * no valid scheme and host, returns 'this one', which completes the sentence of the error.
 */
const hostOf = (url) => /^https?:\/\/[\w.-]+(:\d+)?(?=[/?#]|$)/.exec(url)?.[0] ?? 'this one'

/** Returns the first fault of an issuer's URL, as the predicate of a sentence, for example 'has a user'. */
function faultOf(url) {
  if (/[?#]/.test(url)) return 'has a query or a fragment'
  if (/@/.test(url)) return 'has a user'
  if (/\/$/.test(url)) return 'has a slash at the end'
  if (!/^https?:\/\//.test(url)) return 'does not begin with https://'
  return url.startsWith('http:') ? 'is plain http to another machine' : 'is no URL'
}

const isHttp = (url) => typeof url === 'string' && URL.canParse(url) && /^https?:\/\/[^/]/i.test(url)

/** Returns whether a URL is http or https, and contains only host, port and path, without a slash at the end. */
function isPlain(url) {
  if (!isHttp(url)) return false
  return !/[\s?#@\\]|\/$/.test(url) && new URL(url).port !== '0'
}

const isHttps = (url) => new URL(url).protocol === 'https:'
const isOnLoopback = (url) => /^(localhost|\[::1\]|127(\.\d{1,3}){3})$/.test(new URL(url).hostname)

/**
 * Returns whether this URL is https, or http on loopback. Nobody on the network can alter the responses of such a URL.
 */
function isSecure(url) {
  return isHttp(url) && (isHttps(url) || isOnLoopback(url))
}

module.exports = { RemoteKeys, verificationKeys, causeOf, checkUrls, isHttp, isPlain, isSecure }
