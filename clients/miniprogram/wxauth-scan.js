/* eslint-disable */
// @ts-nocheck
// This module logs in to a website whose code this phone has scanned. wxauth-scan.d.ts documents it.
import { AuthError } from './wxauth.js'

// The codes of errors after which a second attempt can succeed, as in a login.
const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/

/** @type {typeof import('./wxauth-scan.js').scanOf} */
export function scanOf(options) {
  const { q, scene, s, cq, scancode_time } = options || /** @type {any} */ ({})
  // If a link in a phone's browser opened the page, the scene is in `s` or, if WeChat copied it from the link, in `cq`.
  for (const [name, value] of [['s', s], ['cq', cq]]) {
    if (isText(value)) return { scene: decoded(value), ...entrySceneOf(name, value) }
  }
  if (isText(q)) {
    const time = Number(scancode_time)
    return { url: decoded(q), ...(time > 0 && { scancode_time: time }), ...entrySceneOf('q', q) }
  }
  return isText(scene) ? { scene: decoded(scene), ...entrySceneOf('scene', scene) } : null
}

/** @type {typeof import('./wxauth-scan.js').scanSeen} */
export function scanSeen(seen) {
  const { result, path } = seen || /** @type {any} */ ({})
  if (!isText(result) && !isText(path)) return null
  return { ...scanIn(path || result), scanned: 'camera' }
}

/** @type {typeof import('./wxauth-scan.js').claim} */
export async function claim(auth, scan) {
  if (Object(scan) !== scan) {
    const detail =
      "scan: write claim(auth, { user_code: 'ABCD-EFGH' }) for a typed code, else scanOf(options) or scanSeen(seen)"
    throw new AuthError('invalid_argument', { detail })
  }
  const send = senderFor(auth, '/v1/me/scans')
  try {
    return await send(scan, 'id')
  } catch (error) {
    if (error.code !== 'login_too_old') throw error
    await auth.login({ force: true }) // invisible to the user, because WeChat confirms whose phone this is
    return send(scan, 'id')
  }
}

/** @type {typeof import('./wxauth-scan.js').approve} */
export async function approve(auth, claimed) {
  const send = senderFor(auth, urlOf(claimed, 'approve'))
  const approveWith = async (code) => numberIn(await send({ login_code: code }))
  // A new wx.login is the proof, because a thief of the access token cannot make one.
  const code = await auth.loginCode()
  // If only the response of a link was lost, only the same code returns the number again.
  const codes = claimed.link ? [code, code] : [code]
  for (const each of codes) {
    try {
      return await approveWith(each)
    } catch (error) {
      if (!ONCE_MORE.test(error.code)) throw error
    }
  }
  return approveWith(await auth.loginCode()) // if only the response was lost, the login is already approved
}

// Returns the number that the user types in the browser; undefined if the login needs none.
function numberIn(body) {
  const { number, expires_in: expiresIn } = Object(body)
  return isText(number) ? { number, expiresIn } : undefined
}

/** @type {typeof import('./wxauth-scan.js').deny} */
export async function deny(auth, claimed) {
  await senderFor(auth, urlOf(claimed, 'deny'))({})
}

function urlOf(claimed, verdict) {
  const id = claimed && claimed.id
  if (!isText(id)) throw new AuthError('invalid_argument', { detail: 'claimed' })
  return `/v1/me/scans/${encodeURIComponent(id)}/${verdict}`
}

// Returns a function that sends requests to this URL, but none after the user has logged out or changed.
function senderFor(auth, url) {
  const userId = Object(auth.user).id
  return (body, requiredMember) => {
    if (userId && userId !== Object(auth.user).id) throw new AuthError('session_revoked')
    return post(auth, url, body, requiredMember)
  }
}

// Returns the body of a 2xx response that contains the required member, or at least is not a text.
async function post(auth, url, body, requiredMember) {
  const { statusCode: status, data, header } = await auth.request({ url, method: 'POST', data: body, timeout: 20000 })
  const isGood = status >= 200 && status < 300
  if (isGood && (requiredMember ? Object(data)[requiredMember] : !isText(data))) return data
  const { code, title, detail, errors, request_id: requestId } = Object(isGood ? null : data)
  const name = Object.keys(header || {}).find((key) => /^retry-after$/i.test(key))
  const retryAfter = name ? Number(header[name]) || null : null
  const more = { title, detail, errors, status, requestId, retryAfter }
  throw new AuthError(isText(code) ? code : 'http_error', more)
}

// Returns WeChat's scene number, which says how the mini-program was opened, as `entry_scene`. Returns an empty object
// if the mini-program was opened with another value of this parameter, so that the number does not apply to the scan.
function entrySceneOf(name, value) {
  // @ts-ignore
  const host = typeof wx === 'undefined' ? uni : wx
  const entry = (host.getEnterOptionsSync && host.getEnterOptionsSync()) || {}
  const isOurs = !entry.query || areEqual(entry.query[name], value)
  return isOurs && entry.scene ? { entry_scene: entry.scene } : {}
}

// Returns the scan in a result of wx.scanCode: the page of a mini-program code, or the text of an ordinary QR code.
function scanIn(text) {
  const match = /[?&]scene=([^&#]*)/.exec(text)
  return match ? { scene: decoded(match[1]) } : { url: text }
}

const isText = (value) => typeof value === 'string' && value !== ''
const areEqual = (one, other) => isText(one) && decoded(one) === decoded(other)

// Decodes a text from a URL. A text that is not encoded correctly is returned unchanged.
function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch (_) {
    return text
  }
}
