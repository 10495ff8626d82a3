// An agent that calls one tool for a user. The user approves this on their phone.
// CLIENT_ID=… CLIENT_SECRET=… node client.js place_order '{"item": "oolong tea"}'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { randomUUID } from 'node:crypto'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const { RESOURCE = 'http://127.0.0.1:8005/mcp', CLIENT_ID, CLIENT_SECRET, CALLBACK_PORT = '8012' } = process.env
const [, , tool, args = '{}'] = process.argv
const isByDocument = CLIENT_ID.startsWith('https://')
const registered = { client_id: CLIENT_ID, ...(CLIENT_SECRET ? { client_secret: CLIENT_SECRET } : {}) }
// In production, store this data as securely as passwords.
const kept = { client: isByDocument ? undefined : registered, state: randomUUID() }

const agent = {
  redirectUrl: `http://127.0.0.1:${CALLBACK_PORT}/callback`,
  ...(isByDocument ? { clientMetadataUrl: CLIENT_ID } : {}),
  clientMetadata: { client_name: 'An agent', redirect_uris: [`http://127.0.0.1:${CALLBACK_PORT}/callback`] },
  state: () => kept.state,
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  redirectToAuthorization: (url) => console.error(`Approve it on your phone: ${url}`),
}

/**
 * Returns a connected client. If the user must approve first, the function waits until the browser returns, and then
 * connects again.
 */
async function connected() {
  const callback = createServer().listen(Number(CALLBACK_PORT), '127.0.0.1')
  const connecting = async () => {
    const client = new Client({ name: 'agent', version: '1.0.0' })
    const transport = new StreamableHTTPClientTransport(new URL(RESOURCE), { authProvider: agent })
    return { client, transport, failure: await client.connect(transport).catch((error) => error) }
  }
  let { client, transport, failure } = await connecting()
  if (failure instanceof UnauthorizedError) {
    const [request, response] = await once(callback, 'request')
    response.end('You can close this page.\n')
    const query = new URL(request.url, agent.redirectUrl).searchParams
    if (query.get('state') !== kept.state) throw new Error('this response belongs to another request')
    if (!query.has('code')) throw new Error(`not approved: ${query.get('error')} ${query.get('error_description') ?? ''}`)
    await transport.finishAuth(query.get('code'))
    ;({ client, failure } = await connecting())
  }
  callback.close()
  callback.closeAllConnections()
  if (failure) throw failure
  return client
}

const client = await connected()
const { content } = await client.callTool({ name: tool, arguments: JSON.parse(args) })
console.log(content.map(({ text }) => text).join(' '))
await client.close()
