import { createRemoteJWKSet, jwtVerify } from 'jose'
import { ended } from '../../ended.js'

const { AUTH_WXAUTH_ISSUER: issuer, AUTH_WXAUTH_ID: audience } = process.env
const EVENT = 'http://schemas.openid.net/event/backchannel-logout'
const A_MONTH = 30 * 24 * 3600 * 1000 // the lifetime of the session cookie of Auth.js
const rules = { issuer, audience, typ: 'logout+jwt', algorithms: ['RS256'], requiredClaims: ['exp', 'sid', 'events'] }
let keys

export async function POST(request) {
  keys ??= createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`))
  const form = await request.formData().catch(() => new FormData())
  let told
  try {
    told = await jwtVerify(String(form.get('logout_token')), keys, rules)
  } catch (error) {
    const isInvalid = /^ERR_(JWT|JWS|JWKS_NO|JOSE_(ALG|NOT))/.test(error.code)
    // If the keys cannot be read, the status is 503, so that wxauth sends the token again.
    return new Response(null, { status: isInvalid ? 400 : 503 })
  }
  if (!told.payload.events[EVENT] || 'nonce' in told.payload) return new Response(null, { status: 400 })
  for (const [sid, until] of ended) if (until < Date.now()) ended.delete(sid)
  ended.set(told.payload.sid, Date.now() + A_MONTH)
  return new Response(null, { status: 204 })
}
