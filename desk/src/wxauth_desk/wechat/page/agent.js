// The agent on the desk, a simulated program that calls tools of the MCP server for users who approve that.

import { h } from './elements.js'
import { language, text } from './texts.js'

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)))

/**
 * @param {object} options
 * @param {(options: object) => Promise<{ statusCode: number, data: any, header: object }>} options.request
 * @param {string} options.server The URL of the MCP server.
 * @param {string} options.client_id
 * @param {HTMLElement} options.place Shows what the agent may do.
 */
export function createAgent({ request, server, client_id, place }) {
  const redirect_uri = new URL('agent.html', location.href).href
  let endpoints // the endpoints of the authorization server
  let asked // the values to remember while the user decides
  let tokens = null
  let scope = ''
  let isOld = false // whether the access token has expired, as far as the agent knows

  const show = (...content) => place.replaceChildren(...content)

  function keep(answer) {
    tokens = answer.statusCode === 200 ? answer.data : null
    scope = tokens?.scope ?? scope
    isOld = false
    showAll()
    if (!tokens) throw Object.assign(new Error(text('agentRefused')), { code: answer.data.error })
  }

  const redeem = (grant) => {
    const header = { 'content-type': 'application/x-www-form-urlencoded' }
    const data = { client_id, resource: server, ...grant }
    return request({ url: endpoints.token_endpoint, method: 'POST', header, data }).then(keep)
  }

  const post = (name, given) => {
    const header = { accept: 'application/json, text/event-stream' }
    if (tokens) header.authorization = `Bearer ${tokens.access_token}`
    const data = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: given } }
    return request({ url: server, method: 'POST', header, data })
  }

  /**
   * Follow the refusal to the page that asks the user. The response names the metadata, and these the authorization
   * server.
   */
  async function connect() {
    tokens = null
    showAll()
    const refused = await post('list_orders', {})
    const [, metadata] = /resource_metadata="([^"]*)"/.exec(refused.header['www-authenticate'])
    const { data: resource } = await request({ url: metadata })
    const [issuer] = resource.authorization_servers
    endpoints = (await request({ url: `${issuer}/.well-known/oauth-authorization-server` })).data
    asked = { state: random(), verifier: random(), issuer }
    const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(asked.verifier))
    const query = new URLSearchParams({
      ...{ response_type: 'code', client_id, redirect_uri, resource: resource.resource, state: asked.state },
      scope: resource.scopes_supported.join(' '),
      ...{ code_challenge: base64url(new Uint8Array(hash)), code_challenge_method: 'S256', ui_locales: language() },
    })
    const href = `${endpoints.authorization_endpoint}?${query}`
    show(h('a', { href, target: '_blank' }, text('agentPage'))) // a browser might have blocked the window
    window.open(href)
  }

  /** Continue after the user's decision. `query` is the query of the redirect. */
  async function finish(query) {
    const { code, state, iss, error } = Object.fromEntries(new URLSearchParams(query))
    if (!asked || state !== asked.state || iss !== asked.issuer) return
    const code_verifier = asked.verifier
    asked = null
    if (error) return keep({ data: { error } })
    await redeem({ grant_type: 'authorization_code', code, redirect_uri, code_verifier })
  }

  /** Return the result of a tool, or the reason why there is none. */
  async function call(name, given = {}) {
    if (isOld) await redeem({ grant_type: 'refresh_token', refresh_token: tokens.refresh_token })
    const { statusCode, data } = await post(name, given)
    if (statusCode !== 200) throw Object.assign(new Error(text('agentRefused')), { code: `${statusCode}` })
    const [, message] = /^data: (.*)$/m.exec(data)
    const { content } = JSON.parse(message).result
    return content.map((each) => each.text).join(', ') || text('noOrders')
  }

  function expire() {
    isOld = tokens !== null
  }

  const showAll = () => show(tokens ? `${text('agentMay')} ${scope}` : text('agentMayNothing'))

  return { connect, finish, call, expire, showAll }
}
