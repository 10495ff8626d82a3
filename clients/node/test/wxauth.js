// A wxauth on loopback that publishes a key, and responds at `/v1/verify` as a test decides.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'

const KEYS = '/.well-known/jwks.json'

/** Returns what sends this response. */
export const respond = (status, headers = {}, body = '') => (_request, response) => {
  response.writeHead(status, headers).end(body)
}
export const refuse = (status, code) => respond(status, {}, JSON.stringify({ code, title: 'x', status }))
export const identify = (roles = '', headers = {}) =>
  respond(200, { 'X-Auth-User-Id': USER_ID, 'X-Auth-Roles': roles, ...headers })
/** Returns what sends these bytes in place of a response, and then ends the connection. */
export const raw = (bytes) => (request) => request.socket.end(bytes)
export const reset = (request) => request.socket.resetAndDestroy()
export const hang = () => {}

export class Wxauth {
  requests = []
  connections = 0
  behaviour = identify()
  readings = [] // the requests for the public keys
  keys = null // what answers these requests instead of the keys
  #server = createServer((request, response) => this.#answer(request, response))

  async listen() {
    this.#server.on('connection', () => (this.connections += 1))
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    this.url = `http://127.0.0.1:${this.#server.address().port}`
    this.issuer = new TestIssuer({ issuer: this.url })
    return this
  }

  #answer(request, response) {
    const documents = {
      '/.well-known/oauth-authorization-server': this.issuer.metadata,
      [KEYS]: this.issuer.jwks,
    }
    if (request.url === KEYS) this.readings.push(request)
    if (request.url === KEYS && this.keys) return this.keys(request, response)
    const document = documents[request.url]
    if (document) return response.end(JSON.stringify(document))
    this.requests.push(request)
    this.behaviour(request, response)
  }

  close() {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

/** A fetch that waits for two minutes, as a busy machine may need. */
export const patient = (url, init) => fetch(url, { ...init, signal: AbortSignal.timeout(120_000) })
/** A fetch that waits for a tenth of a second only. */
export const impatient = (url, init) =>
  fetch(url, { ...init, signal: AbortSignal.any([init.signal, AbortSignal.timeout(100)]) })
