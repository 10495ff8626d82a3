// A service in Node whose refunds need `guard.current` with `orOffline`. It takes the issuer, the URL where the guard
// reaches the issuer, or '', and a port.
import { createServer } from 'node:http'
import { BearerGuard, problem } from 'wxauth-guard'

const [issuer, internalUrl, port] = process.argv.slice(2)
const guard = new BearerGuard({ issuer, internalUrl: internalUrl || null, orOffline: true })
const server = createServer(async (request, response) => {
  try {
    const { isCurrent } = await guard.current.user(request, 'clerk')
    const body = JSON.stringify({ current: isCurrent })
    response.writeHead(200, { 'Content-Length': body.length }).end(body)
  } catch (refusal) {
    const { status, headers, body } = problem(refusal, request)
    response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) }).end(body)
  }
})
server.listen({ port, host: '127.0.0.1', backlog: 4096 }, () => console.log('running'))
