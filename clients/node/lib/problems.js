// The HTTP responses to refused requests, in application/problem+json (RFC 9457) like the responses of wxauth.
const { randomUUID } = require('./builtin.js').crypto

const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/
// Matches the comma between two headers that a server or a proxy has joined (RFC 9110, section 5.3).
const ANOTHER_HEADER = /,[ \t]*(?=[A-Za-z][A-Za-z0-9-]* )/
const LANGUAGE_RANGE = /^\s*([A-Za-z]{1,8}|\*)(?:[-_][A-Za-z0-9_-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?$/

/** Returns the status, headers and body of the response to a refused request, in the sender's language. */
function problem(refusal, request) {
  const language = languageOf(request)
  const requestId = acceptedRequestId(headerOf(request, 'x-request-id'))
  const { code, status, message: detail, challenge, retryAfter } = refusal
  const document = {
    type: `urn:wxauth:problem:${code}`,
    title: refusal.title[language],
    status,
    detail,
    code,
    request_id: requestId,
    ...(code === 'invalid_request' ? { errors: [] } : {}),
  }
  const headers = {
    'Content-Type': 'application/problem+json',
    'Cache-Control': 'no-store',
    'Content-Language': language === 'zh' ? 'zh-CN' : 'en',
    'X-Request-ID': requestId,
    ...(challenge ? { 'WWW-Authenticate': challenge } : {}),
    ...(retryAfter ? { 'Retry-After': String(retryAfter) } : {}),
  }
  return { status, headers, body: JSON.stringify(document) }
}

/** Returns the values of all `Authorization` headers of a Node or Fetch request. Two joined headers count as two. */
function authorizations(request) {
  const { headers, rawHeaders = [] } = request
  const isFetch = typeof headers.get === 'function'
  // Node's `headers` contains only the first of several `Authorization` headers, and `rawHeaders` contains all of them,
  // as a list of names and values in turn. Serverless adapters make requests without raw headers.
  const rawValues = rawHeaders.filter((_, index) => index % 2 === 1 && /^authorization$/i.test(rawHeaders[index - 1]))
  const parsedValue = isFetch ? headers.get('authorization') : headers.authorization
  const values = rawValues.length > 0 ? rawValues : [parsedValue ?? []].flat()
  return values.flatMap((value) => value.split(ANOTHER_HEADER))
}

/** Returns the first value of a header of a Node or Fetch request, or an empty text. The name is in lower case. */
function headerOf({ headers }, name) {
  const value = typeof headers.get === 'function' ? headers.get(name) : headers[name]
  return [value].flat()[0] ?? ''
}

/** Returns the caller's `X-Request-ID` if its form is valid, otherwise a new id. */
function acceptedRequestId(value) {
  return REQUEST_ID.test(value) ? value : randomUUID().replaceAll('-', '')
}

/**
 * Returns the language of a response, `zh` or `en`, which `Accept-Language` selects. `wx.request` sends no such header,
 * and Node's `fetch` sends `*`. In these cases, the user agent decides. The language is Chinese if the user agent is
 * WeChat's, unless it names another language, and otherwise English.
 */
function languageOf(request) {
  const parts = headerOf(request, 'accept-language').slice(0, 1024).split(',')
  const accepted = parts.filter((part) => !['', '*'].includes(part.split(';')[0].trim()))
  if (accepted.length > 0) return preferredLanguage(accepted)
  const userAgent = headerOf(request, 'user-agent')
  return userAgent.includes('MicroMessenger') && !/\bLanguage\/(?!zh)/.test(userAgent) ? 'zh' : 'en'
}

/** Returns Chinese if the ranges prefer it to English, otherwise English. `zh_CN` counts as `zh-CN`. */
function preferredLanguage(accepted) {
  const best = { zh: 0, en: 0 }
  for (const [position, part] of accepted.entries()) {
    const [, language, quality = '1'] = LANGUAGE_RANGE.exec(part) ?? []
    const name = language?.toLowerCase()
    // If two ranges have the same quality, the first range counts, because the position lowers the quality slightly. A
    // header of this length contains far fewer than a million ranges.
    if (Object.hasOwn(best, name) && Number(quality) > 0) {
      best[name] = Math.max(best[name], Number(quality) - position / 1e6)
    }
  }
  return best.zh > best.en ? 'zh' : 'en'
}

module.exports = { problem, authorizations }
