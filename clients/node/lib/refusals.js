// The reasons for which the guard refuses a request, with their titles.

const REFUSALS = {
  invalid_request: { status: 422, en: "The request isn't valid.", zh: '请求无效。' },
  missing_token: { status: 401, en: 'Please log in.', zh: '请先登录。', challenge: 'Bearer' },
  invalid_token: {
    status: 401,
    en: 'Your login is no longer valid. Please log in again.',
    zh: '登录已失效，请重新登录。',
    challenge: 'Bearer error="invalid_token"',
  },
  token_expired: {
    status: 401,
    en: 'Your login has expired. Please log in again.',
    zh: '登录已过期，请重新登录。',
    challenge: 'Bearer error="invalid_token"',
  },
  session_revoked: {
    status: 401,
    en: 'You have been logged out. Please log in again.',
    zh: '你已退出登录，请重新登录。',
    challenge: 'Bearer error="invalid_token"',
  },
  insufficient_role: {
    status: 403,
    en: "You don't have permission to do this.",
    zh: '你没有权限进行此操作。',
    // Without a challenge, because at `insufficient_scope` an agent asks its user for another approval.
  },
  insufficient_scope: {
    status: 403,
    en: "Your credentials don't have permission to do this.",
    zh: '当前凭据无权进行此操作。',
    challenge: 'Bearer error="insufficient_scope"',
  },
  keys_unavailable: {
    status: 503,
    en: "The login service can't be reached. Please try again.",
    zh: '暂时无法验证登录，请稍后再试。',
    retryAfter: 5,
  },
  verification_unavailable: {
    status: 503,
    en: "The login service can't be reached. Please try again.",
    zh: '暂时无法验证登录，请稍后再试。',
    retryAfter: 5,
  },
}

// The names of these properties are symbols, so that no framework sends the properties.
const forLog = Symbol('forLog') // a line for the guard's log, with the value in the token and the expected value
const isOutage = Symbol('isOutage') // whether wxauth is unreachable, so that a guard with `orOffline` accepts the token

/** A refusal. `message` is for the developer, and `title` for the user, in English (`en`) and Chinese (`zh`). */
class AuthError extends Error {
  constructor(code, message, { status = REFUSALS[code].status } = {}) {
    super(message)
    const { en, zh, challenge, retryAfter = null } = REFUSALS[code]
    this.name = 'AuthError'
    this.code = code
    this.status = status
    this.title = { en, zh }
    this.challenge = challenge ?? null
    this.retryAfter = retryAfter
  }
}

/** Appends the parameters that have a value to the challenge of a refusal, if it has one. Returns the same refusal. */
function challengeWith(refusal, parameters) {
  for (const [name, value] of Object.entries(parameters)) {
    if (!value || !refusal.challenge) continue
    refusal.challenge += `${refusal.challenge.includes(' ') ? ',' : ''} ${name}="${value}"`
  }
  return refusal
}

const invalidToken = (message, logText) => tokenRefusal('invalid_token', message, logText)
const tokenExpired = (message, logText) => tokenRefusal('token_expired', message, logText)

/** Returns a refusal of a token. Without `logText`, the guard logs nothing about the refusal. */
function tokenRefusal(code, message, logText = null) {
  return Object.assign(new AuthError(code, message), { [forLog]: logText && `A token was refused: ${logText}` })
}

function verificationUnavailable(message, isAway) {
  const line = `A token could not be verified at once: ${message}`
  return Object.assign(new AuthError('verification_unavailable', message), { [forLog]: line, [isOutage]: isAway })
}

module.exports = { forLog, isOutage, AuthError, challengeWith, invalidToken, tokenExpired, verificationUnavailable }
