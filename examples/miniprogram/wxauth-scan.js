/* eslint-disable */
// This module logs in to a website whose code this phone has scanned. wxauth-scan.d.ts documents it.
import { AuthError } from './wxauth.js'

const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/

/** @type {typeof import('./wxauth-scan.js').scanOf} */
export function scanOf(options) {
  const { q, scene, s, cq, scancode_time } = options || /** @type {any} */ ({})
  for (const [name, value] of [['s', s], ['cq', cq]]) {
    // A link in a phone's browser opened the page.
    if (isText(value)) return { scene: decoded(value), ...entryOf(name, value) }
  }
  if (!isText(q) && !isText(scene)) return null
  const entry = isText(q) ? entryOf('q', q) : entryOf('scene', scene)
  if (!isText(q)) return { scene: decoded(scene), ...entry }
  const time = Number(scancode_time)
  return { url: decoded(q), ...(time > 0 && { scancode_time: time }), ...entry }
}

/** @type {typeof import('./wxauth-scan.js').scanSeen} */
export function scanSeen(seen) {
  const { result, path } = seen || /** @type {any} */ ({})
  return isText(result) || isText(path) ? { ...read(path || result), scanned: 'camera' } : null
}

/** @type {typeof import('./wxauth-scan.js').claim} */
export async function claim(auth, scan) {
  if (Object(scan) !== scan) {
    const detail = "scan: write claim(auth, { user_code: 'ABCD-EFGH' }) for a typed code, else scanOf(options) or scanSeen(seen)"
    throw new AuthError('invalid_argument', { detail })
  }
  const say = sayer(auth, '/v1/me/scans')
  try {
    return await say(scan, 'id')
  } catch (error) {
    if (error.code !== 'login_too_old') throw error
    await auth.login({ force: true }) // invisible to the user, because WeChat confirms whose phone this is
    return say(scan, 'id')
  }
}

/** @type {typeof import('./wxauth-scan.js').approve} */
export async function approve(auth, claimed) {
  const send = sayer(auth, urlOf(claimed, 'approve'))
  // A new wx.login is the proof, because a thief of the access token cannot make one.
  let code = await auth.loginCode()
  const say = async () => shown(await send({ login_code: code }))
  try {
    return await say()
  } catch (error) {
    if (!ONCE_MORE.test(error.code)) throw error
    if (claimed.link) {
      try {
        return await say() // if only the response was lost, only the same code returns the number again
      } catch (again) {
        if (!ONCE_MORE.test(again.code)) throw again
      }
    }
    code = await auth.loginCode()
    return say() // if only the response was lost, the login is already approved
  }
}

function shown(answer) {
  const { number, expires_in: expiresIn } = Object(answer)
  return isText(number) ? { number, expiresIn } : undefined
}

/** @type {typeof import('./wxauth-scan.js').deny} */
export async function deny(auth, claimed) {
  await sayer(auth, urlOf(claimed, 'deny'))({})
}

function urlOf(claimed, verdict) {
  const id = claimed && claimed.id
  if (!isText(id)) throw new AuthError('invalid_argument', { detail: 'claimed' })
  return `/v1/me/scans/${encodeURIComponent(id)}/${verdict}`
}

// Returns a function that sends requests only while the current user is logged in.
function sayer(auth, url) {
  const id = Object(auth.user).id
  return (body, wanted) => {
    if (id && id !== Object(auth.user).id) throw new AuthError('session_revoked')
    return post(auth, url, body, wanted)
  }
}

async function post(auth, url, body, wanted) {
  const { statusCode: status, data, header } = await auth.request({ url, method: 'POST', data: body, timeout: 20000 })
  const isGood = status >= 200 && status < 300
  if (isGood && (wanted ? Object(data)[wanted] : !isText(data))) return data
  const { code, title, detail, errors, request_id: requestId } = Object(isGood ? null : data)
  const name = Object.keys(header || {}).find((key) => /^retry-after$/i.test(key))
  throw new AuthError(isText(code) ? code : 'http_error', { title, detail, errors, status, requestId, retryAfter: name ? Number(header[name]) || null : null })
}

// Returns WeChat's scene number, which says how the page was opened. If another page of the mini-program opened this
// page, the number does not apply.
function entryOf(name, value) {
  // @ts-ignore
  const host = typeof wx === 'undefined' ? uni : wx
  const entry = (host.getEnterOptionsSync && host.getEnterOptionsSync()) || {}
  const { query } = entry
  const isOurs = !query || same(query[name], value)
  return isOurs && entry.scene ? { entry_scene: entry.scene } : {}
}

// Reads a result of wx.scanCode, which is the page of a mini-program code, or the text of an ordinary QR code.
function read(text) {
  const found = /[?&]scene=([^&#]*)/.exec(text)
  return found ? { scene: decoded(found[1]) } : { url: text }
}

const isText = (value) => typeof value === 'string' && value !== ''
const same = (one, other) => isText(one) && decoded(one) === decoded(other)

function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch (_) {
    return text
  }
}
