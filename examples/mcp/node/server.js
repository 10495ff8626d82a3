// An MCP server whose tools act for the user who approved the agent on their phone.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import express from 'express'
import { BearerGuard } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'
import { z } from 'zod'

const { RESOURCE = 'http://127.0.0.1:8005/mcp', WXAUTH_ISSUER = 'http://127.0.0.1:8000', PORT = '8005' } = process.env
const guard = new BearerGuard({ issuer: WXAUTH_ISSUER, audience: RESOURCE })
const { host, origin, pathname } = new URL(RESOURCE)
const orders = new Map() // by user id; in production, use a database

/**
 * Returns the server for one request of this user. If the agent lacks a scope, the tool returns an error that the agent
 * can read.
 */
function serverFor(user) {
  const server = new McpServer({ name: 'orders', version: '1.0.0' })
  const own = orders.get(user.id) ?? []

  server.registerTool('list_orders', { description: "The user's orders." }, () => {
    guard.checkScopes(user, 'orders:read')
    return { content: own.map((text) => ({ type: 'text', text })) }
  })

  const inputSchema = { item: z.string() }
  server.registerTool('place_order', { description: 'Order something for the user.', inputSchema }, ({ item }) => {
    guard.checkScopes(user, 'orders:write')
    orders.set(user.id, [...own, item])
    return { content: [{ type: 'text', text: `ordered: ${item}` }] }
  })
  return server
}

/** Refuses requests from pages of other sites, and requests to other host names, because of DNS rebinding. */
function onlyHere({ headers }, response, next) {
  if (headers.host === host && (headers.origin ?? origin) === origin) return next()
  response.status(403).json({ jsonrpc: '2.0', id: null, error: { code: -32000, message: 'another Host or Origin' } })
}

const app = express()

app.all(guard.resourceMetadataPath, (request, response) => {
  const scopesSupported = ['orders:read', 'orders:write']
  response.set({ 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': '*' })
  response.json(guard.resourceMetadata({ scopesSupported, resourceName: '小店助手' }))
})

app.post(pathname, onlyHere, bearer(guard), express.json(), async (request, response) => {
  // The server has no MCP sessions, because anyone who knows a session's id could use the session.
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true })
  response.on('close', () => transport.close())
  await serverFor(request.user).connect(transport)
  await transport.handleRequest(request, response, request.body)
})

app.listen(Number(PORT), '127.0.0.1', () => console.log(`MCP: ${RESOURCE}`))
