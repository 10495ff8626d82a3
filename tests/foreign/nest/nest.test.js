// Nest's guard protects routes, resolvers, gateways and micro-services, and a global one for guests leaves them alone.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ClientProxyFactory, Transport } from '@nestjs/microservices'
import { firstValueFrom, timeout } from 'rxjs'
import { io } from 'socket.io-client'
import { TestIssuer } from 'wxauth-guard/testing'
import WebSocket from 'ws'
import { contexts, guard, start } from './built/app.js'

let now = 1_700_000_000_000
const issuer = new TestIssuer({ issuer: 'http://127.0.0.1:8000', now: () => now })
let restore
before(() => (restore = issuer.trustedBy(guard)))
after(() => restore())

const token = (options) => issuer.token({ openid: 'o1', ...options })
const header = (options) => ({ authorization: `Bearer ${token(options)}` })

describe('routes', () => {
  let app, url
  before(async () => {
    ;({ app } = await start())
    url = await app.getUrl()
  })
  after(() => app.close())

  test('a global guard for guests and a guard of a route decide', async () => {
    for (const [path, headers, status, text] of [
      ['/open', {}, 200, 'nobody'],
      ['/open', header(), 200, 'o1'],
      ['/open', { authorization: 'Bearer not.a.token' }, 401],
      ['/orders', {}, 401],
      ['/orders', header(), 200, 'o1'],
    ]) {
      const answer = await fetch(url + path, { headers })
      assert.equal(answer.status, status, path)
      if (text) assert.equal(await answer.text(), text)
    }
  })
})

for (const context of Object.keys(contexts)) {
  describe(`resolvers with ${context} in their context`, () => {
    let app, url
    const ask = async (query, headers = {}) => {
      const body = JSON.stringify({ query })
      const options = { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body }
      const { data, errors } = await (await fetch(`${url}/graphql`, options)).json()
      return errors ? (errors[0].extensions.originalError?.code ?? errors[0].message) : Object.values(data)[0]
    }
    before(async () => {
      ;({ app } = await start({ context }))
      url = await app.getUrl()
    })
    after(() => app.close())

    test('a guest reaches only what no guard of its own protects', async () => {
      assert.equal(await ask('{open}'), 'nobody')
      assert.equal(await ask('{mine}'), 'missing_token')
      assert.equal(await ask('{mine}', { authorization: 'Bearer not.a.token' }), context === 'none' ? 'missing_token' : 'invalid_token')
    })
    test('a user is found where the context has the request', async () => {
      assert.equal(await ask('{mine(note:"!")}', header()), context === 'none' ? 'missing_token' : 'o1!')
      assert.equal(await ask('{clerks}', header({ roles: ['clerk'] })), context === 'none' ? 'missing_token' : 'clerk')
      if (context !== 'none') assert.equal(await ask('{clerks}', header()), 'insufficient_role')
    })
  })
}

const said = (socket, event) =>
  new Promise((resolve) => {
    const hear = (name, pick) => socket.once(name, (data) => { socket.off('answer'); socket.off('exception'); resolve(pick(data)) })
    hear('answer', (data) => data)
    hear('exception', (data) => data.code)
    socket.emit(event, {})
  })

describe('a gateway of socket.io', () => {
  let app, url
  const connect = (options) =>
    new Promise((resolve, reject) => {
      const socket = io(url, { transports: ['websocket'], forceNew: true, reconnection: false, ...options })
      socket.once('connect', () => resolve(socket)).once('connect_error', reject)
    })
  before(async () => {
    ;({ app } = await start())
    url = await app.getUrl()
  })
  after(() => app.close())

  test('a guest hears why a message is refused', async () => {
    const socket = await connect({})
    assert.equal(await said(socket, 'open'), 'nobody')
    assert.equal(await said(socket, 'orders'), 'missing_token')
    socket.close()
  })
  for (const [where, options] of [
    ['auth', () => ({ auth: { token: token() } })],
    ['the header', () => ({ extraHeaders: header() })],
    ['auth before the header', () => ({ auth: { token: token() }, extraHeaders: { authorization: 'Bearer x.y.z' } })],
  ]) {
    test(`the token in ${where} is checked for each message`, async () => {
      const socket = await connect(options())
      assert.equal(await said(socket, 'orders'), 'o1')
      assert.equal(await said(socket, 'open'), 'nobody')
      assert.equal(await said(socket, 'clerks'), 'insufficient_role')
      now += 3_600_000
      assert.equal(await said(socket, 'orders'), 'token_expired')
      assert.equal(await said(socket, 'open'), 'nobody')
      socket.close()
    })
  }
  test('a token that is no text is none', async () => {
    const socket = await connect({ auth: { token: { toString: 'x' } } })
    assert.equal(await said(socket, 'orders'), 'missing_token')
    socket.close()
  })
})

describe('a gateway of ws', () => {
  let app, url
  before(async () => {
    ;({ app } = await start({ sockets: 'ws' }))
    url = (await app.getUrl()).replace('http', 'ws')
  })
  after(() => app.close())

  const ask = async (path, headers, ...events) => {
    const socket = new WebSocket(url + path, { headers })
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    const heard = []
    for (const event of events) {
      const answer = new Promise((resolve) => socket.once('message', (data) => resolve(JSON.parse(data))))
      if (typeof event === 'function') event()
      else {
        socket.send(JSON.stringify({ event, data: {} }))
        const { event: kind, data } = await answer
        heard.push(kind === 'exception' ? data.code : data)
      }
    }
    socket.close()
    return heard
  }

  test('the header of the attached request decides for each message', async () => {
    const expire = () => (now += 3_600_000)
    assert.deepEqual(await ask('/ws', header(), 'orders', 'open', expire, 'orders'), ['o1', 'nobody', 'token_expired'])
    assert.deepEqual(await ask('/ws', {}, 'open', 'orders'), ['nobody', 'missing_token'])
  })
  test('without the request, nobody has a token', async () => {
    assert.deepEqual(await ask('/forgetful', header(), 'open', 'orders'), ['nobody', 'missing_token'])
  })
})

describe('a micro-service', () => {
  test('its guarded messages are refused with a code', async () => {
    const { app, microservice } = await start()
    await microservice.listen()
    const { port } = microservice.unwrap().address()
    const client = ClientProxyFactory.create({ transport: Transport.TCP, options: { host: '127.0.0.1', port } })
    const ask = (pattern) => firstValueFrom(client.send(pattern, {}).pipe(timeout(10_000)))
    assert.equal(await ask('open'), 'nobody')
    await assert.rejects(ask('orders'), { code: 'missing_token' })
    client.close()
    await app.close()
  })
})
