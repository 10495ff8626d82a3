// The login by scan, which uses the code flow with PKCE (OpenID Connect, RFC 7636, RFC 9207) at the service's own
// /v1/authorize.

import { Failure } from './api.js'
import { language, text } from './texts.js'

const ATTEMPT = 'console/login' // in the storage of the tab, so that an attempt begun elsewhere cannot end here
const CLIENT = 'wxauth-admin'
const SCOPE = 'wxauth:admin'
const METADATA = '../.well-known/openid-configuration'

/** Open the page with the QR code. Throws: Failure. */
export async function beginScan() {
  const answer = await fetch(METADATA).catch(() => null)
  if (!answer?.ok) throw new Failure({ status: answer?.status, code: answer ? `http_${answer.status}` : 'offline' })
  const { issuer, authorization_endpoint } = await answer.json()
  const own = `${issuer}/admin/`
  // The browser returns to the issuer's address, where an attempt begun at another address would be unknown.
  if (new URL('.', location.href).href !== own)
    throw new Failure({ code: 'other_address', title: text('scanElsewhere'), detail: own })
  const state = random()
  const verifier = random()
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))
  sessionStorage.setItem(ATTEMPT, JSON.stringify({ state, verifier, issuer, view: location.search + location.hash }))
  const asked = new URLSearchParams({
    client_id: CLIENT,
    redirect_uri: own,
    response_type: 'code',
    scope: SCOPE,
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: 'S256',
    ui_locales: language(),
  })
  location.assign(`${authorization_endpoint}?${asked}`)
}

/**
 * Return the result of a scan when the browser returns. It is `opening`, to open a session with, or `refused`, the
 * reason. It is null if the browser does not return from a scan. The result is removed from the address and the
 * history.
 */
export function comeBack() {
  const told = new URLSearchParams(location.search)
  if (!told.has('code') && !told.has('error')) return null
  const attempt = JSON.parse(sessionStorage.getItem(ATTEMPT))
  sessionStorage.removeItem(ATTEMPT)
  history.replaceState(null, '', location.pathname + (attempt?.view ?? ''))
  // Without this check, an attacker could send a link with the attacker's own code, and the victim would then work in
  // the attacker's name.
  if (!attempt || told.get('state') !== attempt.state || told.get('iss') !== attempt.issuer) return { refused: 'scanNotOurs' }
  if (!told.has('code')) return { refused: told.get('error') === 'access_denied' ? 'scanDenied' : 'scanFailed' }
  return { opening: { code: told.get('code'), code_verifier: attempt.verifier } }
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)))

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
