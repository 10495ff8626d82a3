// The agent on the desk: a simulated program that calls the tools of an MCP server for users who have allowed that.

import { h } from './elements.js'
import { language, text } from './texts.js'

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)))

/**
 * Return an agent: the functions that connect it, call its tools, and show what it may do.
 *
 * @param {object} options
 * @param {(options: object) => Promise<{ statusCode: number, data: any, header: object }>} options.request
 * @param {string} options.server The URL of the MCP server.
 * @param {string} options.client_id
 * @param {HTMLElement} options.place The element that shows what the agent may do.
 */
export function createAgent({ request, server, client_id, place }) {
  const redirect_uri = new URL('agent.html', location.href).href
  let endpoints // the authorization server's metadata, which contains the URLs of its endpoints
  let attempt = null // the state, the code verifier and the issuer to remember while the user decides
  let tokens = null
  let scope = '' // the newest one that a response named
  let isExpired = false // whether the access token counts as expired, so that the next call refreshes it

  const show = (...content) => place.replaceChildren(...content)
  const showAll = () => show(tokens ? `${text('agentMay')} ${scope}` : text('agentMayNothing'))
  const refusal = (code) => Object.assign(new Error(text('agentRefused')), { code })

  function keep(newTokens) {
    tokens = newTokens
    scope = tokens?.scope ?? scope
    isExpired = false
    showAll()
  }

  /** Exchange an authorization code or a refresh token for tokens. Throws: Error, if the response has no tokens. */
  async function redeem(grant) {
    const header = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = { client_id, resource: server, ...grant }
    const response = await request({ url: endpoints.token_endpoint, method: 'POST', header, data: body })
    keep(response.statusCode === 200 ? response.data : null)
    if (!tokens) throw refusal(response.data.error)
  }

  function callTool(name, toolArguments) {
    const header = { accept: 'application/json, text/event-stream' }
    if (tokens) header.authorization = `Bearer ${tokens.access_token}`
    const message = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: toolArguments } }
    return request({ url: server, method: 'POST', header, data: message })
  }

  /**
   * Forget the tokens, and open the page that asks the user. A call without a token is refused. The refusal names the
   * resource's metadata, and this metadata names the authorization server.
   */
  async function connect() {
    keep(null)
    const refused = await callTool('list_orders', {})
    const [, metadataURL] = /resource_metadata="([^"]*)"/.exec(refused.header['www-authenticate'])
    const { data: resource } = await request({ url: metadataURL })
    const [issuer] = resource.authorization_servers
    endpoints = (await request({ url: `${issuer}/.well-known/oauth-authorization-server` })).data
    attempt = { state: random(), verifier: random(), issuer }
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(attempt.verifier))
    const query = new URLSearchParams({
      response_type: 'code',
      client_id,
      redirect_uri,
      resource: resource.resource,
      state: attempt.state,
      scope: resource.scopes_supported.join(' '),
      code_challenge: base64url(new Uint8Array(digest)),
      code_challenge_method: 'S256',
      ui_locales: language(),
    })
    const href = `${endpoints.authorization_endpoint}?${query}`
    show(h('a', { href, target: '_blank' }, text('agentPage'))) // the browser might block the window below
    window.open(href)
  }

  /** Continue after the user's decision. `query` is the query of the redirect. Another attempt's query is ignored. */
  async function finish(query) {
    const { code, state, iss, error } = Object.fromEntries(new URLSearchParams(query))
    if (!attempt || state !== attempt.state || iss !== attempt.issuer) return
    const { verifier } = attempt
    attempt = null
    if (error) {
      keep(null) // also removes the link to the page
      throw refusal(error)
    }
    await redeem({ grant_type: 'authorization_code', code, redirect_uri, code_verifier: verifier })
  }

  /** Return the texts in a tool's result. Throws: Error, whose `code` is the HTTP status or the OAuth error. */
  async function call(name, toolArguments = {}) {
    if (isExpired) await redeem({ grant_type: 'refresh_token', refresh_token: tokens.refresh_token })
    const { statusCode, data } = await callTool(name, toolArguments)
    if (statusCode !== 200) throw refusal(`${statusCode}`)
    const [, message] = /^data: (.*)$/m.exec(data)
    const { content } = JSON.parse(message).result
    return content.map((part) => part.text).join(', ') || text('noOrders')
  }

  /** Treat the access token as expired. */
  function expire() {
    isExpired = tokens !== null
  }

  return { connect, finish, call, expire, showAll }
}
