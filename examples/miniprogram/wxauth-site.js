/* eslint-disable */
// This module logs in to a website that this mini-program shows in a web-view. wxauth-site.d.ts documents it.
import { AuthError } from './wxauth.js'

const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/ // as in a login

/** @type {typeof import('./wxauth-site.js').authorize} */
export async function authorize(auth, query) {
  const asked = read(query)
  if (!isText(asked.redirect_uri)) throw new AuthError('invalid_argument', { detail: 'query' })
  await auth.getToken() // a guest has none
  const { id } = Object(auth.user)
  const url = await answer(auth, asked, id)
  if (!/[?&]error=login_required(&|$)/.test(url)) return url
  await auth.login({ force: true }) // invisible to the user, because WeChat confirms whose phone this is
  return answer(auth, asked, id)
}

async function answer(auth, asked, id) {
  // A new wx.login is the proof, because a thief of the access token cannot make one. loginCode itself tries twice.
  const ask = async (login_code) => {
    if (id !== Object(auth.user).id) throw new AuthError('session_revoked') // another user has logged in
    return post(auth, { ...asked, login_code })
  }
  const code = await auth.loginCode()
  try {
    return await ask(code)
  } catch (error) {
    if (!ONCE_MORE.test(error.code)) throw error
  }
  return ask(await auth.loginCode()) // if only the response was lost, the code in it stays unused
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
  throw new AuthError(isText(code) ? code : 'http_error', { title, detail, errors, status, requestId, retryAfter: name ? Number(header[name]) || null : null })
}

// Reads the site's sign-in request. Some phones pass its values to `onLoad` as they are in the URL, all of them
// encoded.
function read(query) {
  const { redirect_uri: uri } = Object(query)
  if (!isText(uri) || uri.includes('://')) return { ...query }
  const asked = {}
  for (const name of Object.keys(query)) asked[decoded(name)] = decoded(query[name])
  return asked
}

const isText = (value) => typeof value === 'string' && value !== ''

function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch (_) {
    return text
  }
}
