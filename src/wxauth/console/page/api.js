// The session, and the requests to /v1/admin. Only this module's memory contains the access token.

const SESSION = 'session'
const RENEWED_BEFORE_END_MS = 30_000 // a token is renewed this long before it expires
const RENEWED_AFTER_MS = 300_000 // an older token is renewed when the user is active, so that the session does not end
const MAX_IDLE_MS = 3_600_000 // the session ends if the user has not been active for this long

let token = null
let user = null
let role = null
let endsAt = 0 // these times are in ms since the epoch
let renewedAt = 0
let usedAt = Date.now()
let renewal = null // the promise of the renewal that is under way
let onEnd = () => {} // called with the reason when the session ends by itself

/**
 * A failed request, with the fields of the service's problem response. Without a response, the code is `offline` and
 * the status is 0.
 */
export class Failure extends Error {
  constructor({ status = 0, code = 'offline', title = '', detail = '', errors = [], wechat_errcode = null } = {}) {
    super(title || code)
    Object.assign(this, { status, code, title, detail, errors, wechatErrcode: wechat_errcode })
  }
}

/** Return the user who is signed in, with `id`, `nickname` and `avatar_url`; null without a session. */
export const currentUser = () => user

/** Return the claims of the access token, such as `iss` and `aud` of this deployment. */
export const claims = () => JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')))

/** Return whether the user has the role `admin`. The role `support` may only read, ban users and end sessions. */
export const mayAdminister = () => role === 'admin'

/**
 * Call the listener with the reason when the session ends by itself, because it has expired (`over`), or because the
 * user has lost the role (`role`).
 */
export const whenSessionEnds = (listener) => (onEnd = listener)

/** Record that the user is active, so that the session continues. */
export const noteUse = () => (usedAt = Date.now())

/** Open a session with the `secret` of a link, or with the `code` and `code_verifier` of a scan. Throws: Failure. */
export const openSession = async (opening) => keep(await ask('POST', SESSION, { body: opening }))

/** Continue the session in the cookie. Return whether there is one. Throws: Failure, if the service is unavailable. */
export async function resume() {
  try {
    const session = await ask('PUT', SESSION)
    if (session) keep(session)
    return Boolean(session)
  } catch (failure) {
    if (failure.status >= 500 || !failure.status) throw failure
    return false
  }
}

/** End the session, here and in the service. Throws: Failure, if the service does not end it. */
export async function signOut() {
  forget()
  await ask('DELETE', SESSION)
}

export const get = (path, query) => request('GET', path, { query })
export const post = (path, body) => request('POST', path, { body })
export const patch = (path, body) => request('PATCH', path, { body })
export const remove = (path) => request('DELETE', path)

/**
 * Send a request to /v1/admin. Return the response's JSON, or null for a 204. If the service refuses the token, renew
 * it and try once more. Throws: Failure.
 */
export async function request(method, path, { query, body } = {}) {
  const url = `../v1/admin${path}${queryOf(query)}`
  try {
    return await ask(method, url, { body, bearer: await validToken() })
  } catch (failure) {
    if (failure.status !== 401 && failure.code !== 'insufficient_role') throw failure
    if (token === null) throw failure // the session ended during the request
    await renew() // ends the session if it has expired, or the role was removed
    return ask(method, url, { body, bearer: token })
  }
}

/**
 * Return the items of all pages of a list, but not more than `maxItems`. `onPage` is called after each page, with all
 * items so far.
 */
export async function all(path, query, maxItems, onPage = () => {}) {
  const items = []
  let cursor = null
  do {
    const page = await get(path, { ...query, limit: 200, cursor })
    items.push(...page.items)
    onPage(items)
    cursor = page.next_cursor
  } while (cursor && items.length < maxItems)
  return items.slice(0, maxItems)
}

/**
 * Return an object as a query, such as `?type=a&type=b` for `{ type: ['a', 'b'], actor: null }`. Values that are null,
 * undefined or empty are left out, and without any other value, the query is empty.
 */
export function queryOf(values = {}) {
  const parameters = new URLSearchParams()
  for (const [name, valueOrList] of Object.entries(values))
    for (const value of [valueOrList].flat())
      if (value !== null && value !== undefined && value !== '') parameters.append(name, value)
  return parameters.size ? `?${parameters}` : ''
}

/** Return the access token, renewed if that is due. Throws: Failure, if the session has ended, or the renewal fails. */
async function validToken() {
  const now = Date.now()
  if (now - usedAt > MAX_IDLE_MS) await end('over')
  const isOldAndUsed = now - renewedAt > RENEWED_AFTER_MS && usedAt > renewedAt
  if (now > endsAt - RENEWED_BEFORE_END_MS || isOldAndUsed) await renew()
  return token
}

/** Renew the token. Simultaneous callers share one renewal. Throws: Failure, also if the session has ended. */
function renew() {
  renewal ??= ask('PUT', SESSION)
    .then((session) => (session ? keep(session) : end('over')))
    .catch((failure) => {
      if (failure.status === 400) return end('over')
      if (failure.status === 403) return end('role')
      throw failure
    })
    .finally(() => (renewal = null))
  return renewal
}

/** End a session that cannot go on, and tell the listener why. Always throws: Failure. */
async function end(reason) {
  const wasOpen = token !== null
  forget()
  if (wasOpen) {
    await ask('DELETE', SESSION).catch(() => {})
    onEnd(reason)
  }
  throw new Failure({ status: 401, code: 'session_over' })
}

function keep(session) {
  token = session.access_token
  user = session.user
  role = session.role
  renewedAt = Date.now()
  endsAt = renewedAt + session.expires_in * 1000
}

function forget() {
  token = user = role = null
  endsAt = 0
}

/** JSON that the user has typed. It is sent as typed, because JavaScript would round some of its numbers. */
export class TypedJson {
  constructor(text) {
    this.text = text
  }
}

function jsonOf(value) {
  if (value instanceof TypedJson) return value.text
  if (value?.constructor !== Object) return JSON.stringify(value)
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${jsonOf(member)}`)}}`
}

/** Send a request. Return the response's JSON, or null for a 204. Throws: Failure. */
async function ask(method, url, { body, bearer } = {}) {
  const headers = { 'X-Wxauth-Console': '1', 'Accept-Language': document.documentElement.lang }
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (bearer) headers.Authorization = `Bearer ${bearer}`
  let response
  try {
    response = await fetch(url, { method, headers, body: body === undefined ? undefined : jsonOf(body) })
  } catch {
    throw new Failure()
  }
  if (response.status === 204) return null
  const content = await response.json().catch(() => ({}))
  if (!response.ok) throw new Failure({ code: `http_${response.status}`, ...content, status: response.status })
  return content
}
