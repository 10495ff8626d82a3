// Questions to wxauth about a verified token: is its session still valid, and which roles does its user have now?
const { causeOf, checkUrls } = require('./keys.js')
const { AuthError, tokenExpired, verificationUnavailable } = require('./refusals.js')

const VERIFY_PATH = '/v1/verify'
const ASK_TIMEOUT = 2000 // milliseconds, until the last header
const MAX_PROBLEM = 16 * 1024 // bytes
const AWAY_STATUSES = [502, 503, 504]
const ENDS = ['ECONNRESET', 'EPIPE']
// All other errors, such as a wrong certificate or too many open files, are no outage of wxauth.
const AWAY_ERRORS = [
  ...ENDS,
  ...['EADDRNOTAVAIL', 'EAI_AGAIN', 'EAI_FAIL', 'ECONNABORTED', 'ECONNREFUSED', 'EHOSTDOWN', 'EHOSTUNREACH'],
  ...['ENETDOWN', 'ENETUNREACH', 'ENOTFOUND', 'ETIMEDOUT', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'],
]

/** What a guard asks about each token. In tests, `TestIssuer` has another one. */
class RemoteAuthority {
  #url
  #fetch

  constructor(issuer, { internalUrl = null, fetch = (url, init) => globalThis.fetch(url, init) }) {
    checkUrls(issuer, internalUrl)
    this.#url = (internalUrl ?? issuer) + VERIFY_PATH
    this.#fetch = fetch
  }

  /** Returns the current roles of the token's user. `query` begins with a question mark, or is empty. */
  async ask(token, user, query) {
    const init = {
      headers: { Authorization: `Bearer ${token}`, Accept: 'application/json', 'Accept-Encoding': 'identity' },
      redirect: 'manual',
      cache: 'no-store', // Next.js replaces the global fetch, and its version caches responses
      signal: AbortSignal.timeout(ASK_TIMEOUT),
    }
    let response
    try {
      response = await this.#fetchAgain(this.#url + query, init)
    } catch (error) {
      const reason = causeOf(error, ASK_TIMEOUT)
      throw verificationUnavailable(`wxauth can't be asked about the session: ${reason}`, isAway(error))
    }
    return currentRoles(response, user)
  }

  async #fetchAgain(url, init) {
    try {
      return await this.#fetch(url, init)
    } catch (error) {
      if (!isEnd(error.cause)) throw error
    }
    return this.#fetch(url, init) // wxauth has probably closed the idle connection at that moment
  }
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
  if (status !== 200) {
    const isOutage = AWAY_STATUSES.includes(status)
    throw verificationUnavailable(`wxauth can't be asked about the session: status ${status}`, isOutage)
  }
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
  return causes.every((cause) => AWAY_ERRORS.includes(cause?.code) || isEnd(cause))
}

/** Returns whether a connection has ended without a response. undici has one code for this and for malformed HTTP. */
function isEnd(cause) {
  return ENDS.includes(cause?.code) || (cause?.code === 'UND_ERR_SOCKET' && cause.message === 'other side closed')
}

module.exports = { RemoteAuthority }
