// Signing in with a QR code. The console uses the service's own /v1/authorize with the code flow and PKCE (OpenID
// Connect, RFC 7636, RFC 9207).

import { Failure } from './api.js'
import { language, text } from './texts.js'

const ATTEMPT = 'console/login' // an item of the tab's storage, so that an attempt begun elsewhere cannot end here
const CLIENT = 'wxauth-admin'
const SCOPE = 'wxauth:admin'
const METADATA = '../.well-known/openid-configuration'

/**
 * Go to the page with the QR code. Throws: Failure, also if the console was opened at another address than the
 * issuer's.
 */
export async function beginScan() {
  const response = await fetch(METADATA).catch(() => null)
  if (!response) throw new Failure({ code: 'offline' })
  if (!response.ok) throw new Failure({ status: response.status, code: `http_${response.status}` })
  const { issuer, authorization_endpoint } = await response.json()
  const consoleUrl = `${issuer}/admin/`
  // The browser returns to the issuer's address, where an attempt begun at another address would be unknown.
  if (new URL('.', location.href).href !== consoleUrl)
    throw new Failure({ code: 'other_address', title: text('scanElsewhere'), detail: consoleUrl })
  const state = random()
  const verifier = random()
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))
  sessionStorage.setItem(ATTEMPT, JSON.stringify({ state, verifier, issuer, view: location.search + location.hash }))
  const query = new URLSearchParams({
    client_id: CLIENT,
    redirect_uri: consoleUrl,
    response_type: 'code',
    scope: SCOPE,
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: 'S256',
    ui_locales: language(),
  })
  location.assign(`${authorization_endpoint}?${query}`)
}

/**
 * Return the result of a scan from which the browser has returned; null if the browser has not returned from a scan.
 * The result has either `opening`, which opens a session, or `refused`, the name of the text with the reason. The
 * result is removed from the address bar and the history.
 */
export function takeScanResult() {
  const result = new URLSearchParams(location.search)
  if (!result.has('code') && !result.has('error')) return null
  const attempt = JSON.parse(sessionStorage.getItem(ATTEMPT))
  sessionStorage.removeItem(ATTEMPT)
  history.replaceState(null, '', location.pathname + (attempt?.view ?? ''))
  // Without this check, an attacker could send a link with the attacker's own code, and the victim would then work in
  // the attacker's name.
  const isOurs = attempt && result.get('state') === attempt.state && result.get('iss') === attempt.issuer
  if (!isOurs) return { refused: 'scanNotOurs' }
  if (!result.has('code')) return { refused: result.get('error') === 'access_denied' ? 'scanDenied' : 'scanFailed' }
  return { opening: { code: result.get('code'), code_verifier: attempt.verifier } }
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)))

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
