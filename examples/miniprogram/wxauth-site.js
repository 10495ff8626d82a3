/* eslint-disable */
// @ts-nocheck
// This module logs in to a website that this mini-program shows in a web-view. wxauth-site.d.ts documents it.
import { AuthError } from './wxauth.js'

// The codes of errors after which a second attempt can succeed, as in a login.
const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/

/** @type {typeof import('./wxauth-site.js').authorize} */
export async function authorize(auth, query) {
  const signInRequest = decodedRequest(query)
  if (!isText(signInRequest.redirect_uri)) throw new AuthError('invalid_argument', { detail: 'query' })
  await auth.getToken() // rejects for a guest
  const userId = Object(auth.user).id
  const url = await urlForSite(auth, signInRequest, userId)
  if (!/[?&]error=login_required(&|$)/.test(url)) return url
  await auth.login({ force: true }) // invisible to the user, because WeChat confirms whose phone this is
  return urlForSite(auth, signInRequest, userId)
}

// Sends the sign-in request of this user, and returns the URL to open. After some errors, it tries once more.
async function urlForSite(auth, signInRequest, userId) {
  const send = async (login_code) => {
    if (userId !== Object(auth.user).id) throw new AuthError('session_revoked') // another user has logged in
    return post(auth, { ...signInRequest, login_code })
  }
  // A new wx.login is the proof, because a thief of the access token cannot make one. loginCode itself tries twice.
  const code = await auth.loginCode()
  try {
    return await send(code)
  } catch (error) {
    if (!ONCE_MORE.test(error.code)) throw error
  }
  return send(await auth.loginCode()) // if only the response was lost, the authorization code in it stays unused
}

async function post(auth, body) {
  const { statusCode: status, data, header } = await auth.request({
    url: '/v1/me/authorizations',
    method: 'POST',
    data: body,
    timeout: 20000,
  })
  const isGood = status >= 200 && status < 300
  if (isGood && isText(Object(data).redirect_to)) return data.redirect_to
  const { code, title, detail, errors, request_id: requestId } = Object(isGood ? null : data)
  const name = Object.keys(header || {}).find((key) => /^retry-after$/i.test(key))
  const retryAfter = name ? Number(header[name]) || null : null
  const more = { title, detail, errors, status, requestId, retryAfter }
  throw new AuthError(isText(code) ? code : 'http_error', more)
}

// Returns the site's sign-in request. Some phones pass all of its values to `onLoad` as they are in the URL, which
// means encoded.
function decodedRequest(query) {
  const { redirect_uri: uri } = Object(query)
  if (!isText(uri) || uri.includes('://')) return { ...query }
  const request = {}
  for (const name of Object.keys(query)) request[decoded(name)] = decoded(query[name])
  return request
}

const isText = (value) => typeof value === 'string' && value !== ''

// Decodes a text from a URL. A text that is not encoded correctly is returned unchanged.
function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch (_) {
    return text
  }
}
