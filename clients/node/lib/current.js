// Questions to wxauth about a verified token: is its session still valid, and which roles does its user have now?
const { timers } = require('./builtin.js')
const { causeOf, checkUrls } = require('./keys.js')
const { BUSY, Outages, isBusy } = require('./outages.js')
const { AuthError, tokenExpired, verificationUnavailable } = require('./refusals.js')

// Captured, because the tests of a service may replace them.
const { clearTimeout, setImmediate, setTimeout } = timers
const VERIFY_PATH = '/v1/verify'
const KEYS_PATH = '/.well-known/jwks.json'
// A question that waits in this process tells nothing about wxauth. So the wait is limited apart from the question.
const BEGIN_TIMEOUT = 500 // milliseconds, from the call until the question is sent
const ASK_TIMEOUT = 2000 // milliseconds, from then to the last header
const MAX_ASKED = 64
const MAX_WAITING = 256
const MAX_PROBLEM = 16 * 1024 // bytes
const AWAY_STATUSES = [502, 503, 504]
const ENDS = ['ECONNRESET', 'EPIPE']
// All other errors, such as a wrong certificate or too many open files, are no outage of wxauth.
const AWAY_ERRORS = [
  ...ENDS,
  ...['EAI_AGAIN', 'EAI_FAIL', 'ECONNABORTED', 'ECONNREFUSED', 'EHOSTDOWN', 'EHOSTUNREACH'],
  ...['ENETDOWN', 'ENETUNREACH', 'ENOTFOUND', 'ETIMEDOUT', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
]

/** What a guard asks about each token. In tests, `TestIssuer` has another one. */
class RemoteAuthority {
  #base
  #fetch
  #timer
  #asked = 0
  #waiting = new Set() // what gives each waiting question its turn
  #outages // null if an outage admits nobody

  constructor(issuer, options) {
    const { internalUrl = null, orOffline = false } = options
    checkUrls(issuer, internalUrl)
    this.#base = internalUrl ?? issuer
    this.#fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init))
    this.#timer = options.timer ?? (() => performance.now())
    const limits = { timeout: ASK_TIMEOUT, timer: this.#timer }
    this.#outages = orOffline ? new Outages(() => this.#whyNotAway(), limits) : null
  }

  /** Returns the current roles of the token's user. `query` begins with a question mark, or is empty. */
  async ask(token, user, query) {
    if (this.#outages?.isCertain) throw notAsked('it was away a moment ago', true)
    await this.#begin(this.#timer())
    try {
      return await this.#askNow(token, user, query)
    } finally {
      this.#end()
    }
  }

  /** Waits for a free place and for a turn of the event loop. */
  async #begin(calledAt) {
    if (this.#asked < MAX_ASKED) this.#asked += 1
    else if (this.#waiting.size >= MAX_WAITING) throw notAsked('too many requests are waiting')
    else if (!(await this.#hasPlace())) throw notAsked('this process is too busy')
    await new Promise(setImmediate)
    if (this.#timer() - calledAt <= BEGIN_TIMEOUT) return
    this.#end()
    throw notAsked('this process is too busy')
  }

  #hasPlace() {
    return new Promise((resolve) => {
      const give = () => {
        clearTimeout(limit)
        resolve(true)
      }
      const limit = setTimeout(() => {
        this.#waiting.delete(give)
        resolve(false)
      }, BEGIN_TIMEOUT)
      this.#waiting.add(give)
    })
  }

  #end() {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#asked -= 1
    } else {
      this.#waiting.delete(next)
      next()
    }
  }

  async #askNow(token, user, query) {
    const beganAt = this.#timer()
    // The result of `find` is then there soon after the end of a question without a response.
    const finding = this.#outages && setTimeout(() => this.#outages.find(), BEGIN_TIMEOUT)
    let response
    try {
      response = await this.#get(this.#base + VERIFY_PATH + query, { Authorization: `Bearer ${token}` })
    } catch (error) {
      throw await this.#unavailable(error, this.#timer() - beganAt)
    } finally {
      clearTimeout(finding)
    }
    return currentRoles(response, user)
  }

  async #get(url, headers) {
    const init = {
      headers: { ...headers, Accept: 'application/json', 'Accept-Encoding': 'identity' },
      redirect: 'manual',
      cache: 'no-store', // Next.js replaces the global fetch, and its version caches responses
      signal: AbortSignal.timeout(ASK_TIMEOUT),
    }
    try {
      return await this.#fetch(url, init)
    } catch (error) {
      if (!isEnd(error.cause)) throw error
    }
    return this.#fetch(url, init) // wxauth has probably closed the idle connection at that moment
  }

  async #unavailable(error, duration) {
    const reason = causeOf(error, ASK_TIMEOUT)
    if (this.#outages === null || !isAway(error)) return notAsked(reason)
    const whyNot = duration > ASK_TIMEOUT + BUSY ? isBusy : await this.#outages.find()
    return notAsked(whyNot ? `${reason}, but ${whyNot}` : reason, !whyNot)
  }

  /** Asks for the public keys, and returns why wxauth is not away, or '' if it is. */
  async #whyNotAway() {
    try {
      const { status, body } = await this.#get(this.#base + KEYS_PATH)
      body?.cancel?.().catch(() => {})
      return AWAY_STATUSES.includes(status) ? '' : `it responds to a request for its public keys with status ${status}`
    } catch (error) {
      return isAway(error) ? '' : `its public keys can't be read: ${causeOf(error, ASK_TIMEOUT)}`
    }
  }
}

function notAsked(reason, isOutage = false) {
  return verificationUnavailable(`wxauth can't be asked about the session: ${reason}`, isOutage)
}

/** Returns the roles in the response of `/v1/verify`. Nobody gets in by a status that a client can cause. */
async function currentRoles({ status, headers, body }, user) {
  // Without its body, a 401 is the end of the session, because no body may turn a refusal into an outage.
  if (status === 401) {
    if ((await problemCode(body)) === 'token_expired') throw tokenExpired('the token has expired')
    throw new AuthError('session_revoked', 'the session has ended')
  }
  body?.cancel?.().catch(() => {})
  if (status === 403) throw new AuthError('insufficient_scope', "wxauth doesn't accept this token here")
  if (status !== 200) throw notAsked(`status ${status}`, AWAY_STATUSES.includes(status))
  const isTheUsers = headers.get('x-auth-user-id') === user.id
  if (!isTheUsers || (headers.get('x-auth-session-id') ?? user.sessionId) !== user.sessionId) {
    throw verificationUnavailable("wxauth's response is not about this session: is there a proxy in between?", false)
  }
  return (headers.get('x-auth-roles') ?? '').split(',').filter(Boolean)
}

/** Returns the code of a problem document, or undefined if the body is another one, too long, or breaks off. */
async function problemCode(body) {
  const chunks = []
  let length = 0
  try {
    for await (const chunk of body ?? []) {
      chunks.push(chunk)
      length += chunk.length
      if (length > MAX_PROBLEM) return undefined
    }
    return JSON.parse(Buffer.concat(chunks).toString())?.code
  } catch {
    return undefined
  }
}

/** Returns whether a failed fetch means that wxauth is unreachable. */
function isAway(error) {
  if (error.name === 'TimeoutError') return true
  const causes = error.cause?.errors ?? [error.cause] // one for each address of the host
  const isOfWxauth = (cause) => AWAY_ERRORS.includes(cause?.code) || isEnd(cause)
  // Without IPv6, an address has this error. Alone, it means that this machine has no free port.
  return causes.some(isOfWxauth) && causes.every((cause) => isOfWxauth(cause) || cause?.code === 'EADDRNOTAVAIL')
}

/** Returns whether a connection has ended without a response. undici has one code for this and for malformed HTTP. */
function isEnd(cause) {
  return ENDS.includes(cause?.code) || (cause?.code === 'UND_ERR_SOCKET' && cause.message === 'other side closed')
}

module.exports = { MAX_ASKED, MAX_WAITING, RemoteAuthority }
