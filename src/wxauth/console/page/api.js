// The session, and the requests to /v1/admin. Only this module's memory contains the access token.

const SESSION = 'session'
const SPARE_MS = 30_000 // a token is renewed this long before it expires
const RENEWED_AFTER_MS = 300_000 // an older token is renewed when the user is active, so that the session does not end
const UNUSED_MS = 3_600_000 // the session ends if the user has not been active for this long

let token = null
let user = null
let role = null
let endsAt = 0
let renewedAt = 0
let usedAt = Date.now()
let renewing = null
let onEnd = () => {} // called with the reason when the session ends by itself

/** A failed request, in the words of the service's response. Without a response, its code is `offline`. */
export class Failure extends Error {
  constructor({ status = 0, code = 'offline', title = '', detail = '', errors = [], wechat_errcode = null } = {}) {
    super(title || code)
    Object.assign(this, { status, code, title, detail, errors, wechatErrcode: wechat_errcode })
  }
}

/** Return the administrator or support user, or null. */
export const administrator = () => user

/** Return the claims of the access token, such as `iss` and `aud` of this deployment. */
export const claims = () => JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')))

/** Return whether the user has the role `admin`, not only `support`, which can read, ban and sign out. */
export const mayAdminister = () => role === 'admin'

/** Call the listener with the reason (`over`, `role`) when the session ends by itself. */
export const whenItEnds = (listener) => (onEnd = listener)

/** Record that the user is active, so that the session continues. */
export const noteUse = () => (usedAt = Date.now())

/** Open a session with the `secret` of a link, or the `code` of a scan and its `code_verifier`. */
export const openBy = async (opening) => keep(await ask('POST', SESSION, { body: opening }))

/** Continue the session in the cookie. Return whether there is one. */
export async function resume() {
  try {
    const answer = await ask('PUT', SESSION)
    if (answer) keep(answer)
    return Boolean(answer)
  } catch (failure) {
    if (failure.status >= 500 || !failure.status) throw failure
    return false
  }
}

/** End the session, here and in the service. */
export async function signOut() {
  forget()
  await ask('DELETE', SESSION)
}

export const get = (path, query) => request('GET', path, { query })
export const post = (path, body) => request('POST', path, { body })
export const patch = (path, body) => request('PATCH', path, { body })
export const remove = (path) => request('DELETE', path)

/** Send a request to /v1/admin. Return its response as JSON, or null. Throws: Failure. */
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

/** Return the items of all pages of a list, at most `atMost`. */
export async function all(path, query, atMost) {
  const items = []
  let cursor = null
  do {
    const page = await get(path, { ...query, limit: 200, cursor })
    items.push(...page.items)
    cursor = page.next_cursor
  } while (cursor && items.length < atMost)
  return items.slice(0, atMost)
}

/** Return an object as a query, without empty values. A list becomes a parameter for each of its values. */
export function queryOf(query = {}) {
  const given = Object.entries(query).flatMap(([name, value]) => [value].flat().map((each) => [name, each]))
  const text = new URLSearchParams(given.filter(([, value]) => value !== null && value !== undefined && value !== ''))
  return text.size ? `?${text}` : ''
}

/** Return the access token, renewed if that is due. Throws: Failure, if the session has ended. */
async function validToken() {
  const now = Date.now()
  if (now - usedAt > UNUSED_MS) await end('over')
  const isOldAndUsed = now - renewedAt > RENEWED_AFTER_MS && usedAt > renewedAt
  if (now > endsAt - SPARE_MS || isOldAndUsed) await renew()
  return token
}

/** Renew the token. Simultaneous callers share one renewal. */
function renew() {
  renewing ??= ask('PUT', SESSION)
    .then((answer) => (answer ? keep(answer) : end('over')))
    .catch((failure) => {
      if (failure.status === 400 || failure.status === 403) return end(failure.status === 403 ? 'role' : 'over')
      throw failure
    })
    .finally(() => (renewing = null))
  return renewing
}

/** End the session, and tell the listener why. Always throws: Failure. */
async function end(why) {
  const wasOpen = token !== null
  forget()
  if (wasOpen) {
    await ask('DELETE', SESSION).catch(() => {})
    onEnd(why)
  }
  throw new Failure({ status: 401, code: 'session_over' })
}

function keep(answer) {
  token = answer.access_token
  user = answer.user
  role = answer.role
  renewedAt = Date.now()
  endsAt = renewedAt + answer.expires_in * 1000
}

function forget() {
  token = user = role = null
  endsAt = 0
}

/** Send a request. Return its response as JSON, or null for a 204. Throws: Failure. */
async function ask(method, url, { body, bearer } = {}) {
  const headers = { 'X-Wxauth-Console': '1', 'Accept-Language': document.documentElement.lang }
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (bearer) headers.Authorization = `Bearer ${bearer}`
  let answer
  try {
    answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
  } catch {
    throw new Failure()
  }
  if (answer.status === 204) return null
  const content = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Failure({ code: `http_${answer.status}`, ...content, status: answer.status })
  return content
}
