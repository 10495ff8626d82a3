// These tests add the guard to existing projects with public pages, another login, CORS and static files.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BearerGuard } from 'wxauth-guard'
import * as express from 'wxauth-guard/express'
import * as fastify from 'wxauth-guard/fastify'
import * as hono from 'wxauth-guard/hono'
import * as koa from 'wxauth-guard/koa'
import { TestIssuer } from 'wxauth-guard/testing'
import { serve } from '@hono/node-server'
import Express from 'express'
import Fastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { blocks, writeCode } from './readme.js'

const issuer = new TestIssuer({ issuer: 'http://127.0.0.1:8000' })
const guard = new BearerGuard({ issuer: 'http://127.0.0.1:8000' })
const STAFF = { cookie: 'staff=1' }
const ALLOWED = { 'access-control-allow-origin': '*', 'access-control-allow-headers': 'authorization' }

const greeting = (user) => (user ? `welcome, ${user.openid ?? user}` : 'welcome')

/**
 * The existing projects. In each of them, CORS and another login run before the guard. Any cookie logs in the user
 * `staff`.
 */
const projects = {
  Express(app = Express()) {
    app.use((request, response, next) => {
      response.set(ALLOWED)
      if (request.headers.cookie) request.user = 'staff'
      if (request.method === 'OPTIONS') return response.sendStatus(204)
      next()
    })
    app.use(express.bearer(guard.optional()))
    app.get('/welcome', ({ user }, response) => response.send(greeting(user)))
    app.get('/orders', express.bearer(guard), ({ user }, response) => response.send(user.openid))
    return app.listen(0, '127.0.0.1')
  },
  Koa(app = new Koa()) {
    app.use(async (context, next) => {
      context.set(ALLOWED)
      if (context.get('cookie')) context.state.user = 'staff'
      if (context.method === 'OPTIONS') context.status = 204
      else await next()
    })
    app.use(koa.bearer(guard.optional()))
    const required = koa.bearer(guard)
    app.use(async (context, next) => {
      if (context.path === '/welcome') context.body = greeting(context.state.user)
      else if (context.path === '/orders') await required(context, () => (context.body = context.state.user.openid))
      else await next()
    })
    return app.listen(0, '127.0.0.1')
  },
  async Fastify(app = Fastify()) {
    app.addHook('onRequest', async (request, reply) => {
      reply.headers(ALLOWED)
      if (request.headers.cookie) request.user = 'staff'
      if (request.method === 'OPTIONS') return reply.code(204).send()
    })
    app.addHook('onRequest', fastify.bearer(guard.optional()))
    app.get('/welcome', async ({ user }) => greeting(user))
    app.get('/orders', { onRequest: fastify.bearer(guard) }, async ({ user }) => user.openid)
    await app.listen({ host: '127.0.0.1', port: 0 })
    return app.server
  },
  Hono(app = new Hono()) {
    app.use(async (context, next) => {
      Object.entries(ALLOWED).forEach(([name, value]) => context.header(name, value))
      if (context.req.header('cookie')) context.set('user', 'staff')
      if (context.req.method === 'OPTIONS') return context.body(null, 204)
      await next()
    })
    app.use(hono.bearer(guard.optional()))
    app.get('/welcome', (context) => context.text(greeting(context.get('user'))))
    app.get('/orders', hono.bearer(guard), (context) => context.text(context.get('user').openid))
    return serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 })
  },
}

/** Requests: a description, the path, the headers, and the expected status with the text or the error code. */
const CASES = [
  ['a guest at an open page', '/welcome', {}, [200, 'welcome']],
  ['a user at an open page', '/welcome', issuer.headers({ openid: 'o1' }), [200, 'welcome, o1']],
  ['the other login at an open page', '/welcome', STAFF, [200, 'welcome, staff']],
  ['another scheme at an open page', '/welcome', { authorization: 'Basic YTpi' }, [200, 'welcome']],
  ['a bad token at an open page', '/welcome', { authorization: 'Bearer no' }, [401, 'invalid_token']],
  ['a guest', '/orders', {}, [401, 'missing_token']],
  ['the other login', '/orders', STAFF, [401, 'missing_token']],
  ['a user', '/orders', issuer.headers({ openid: 'o1' }), [200, 'o1']],
  ['no such page', '/nowhere', {}, [404]],
]

for (const [name, start] of Object.entries(projects)) {
  test(`${name}: the guard leaves requests without a token to the project`, async (t) => {
    t.after(issuer.trustedBy(guard))
    const server = await start()
    t.after(() => server.close())
    if (!server.address()) await new Promise((done) => server.once('listening', done))
    const url = `http://127.0.0.1:${server.address().port}`
    for (const [situation, path, headers, [status, expected]] of CASES) {
      const answer = await fetch(url + path, { headers })
      const body = await answer.text()
      assert.equal(answer.status, status, situation)
      if (expected) assert.equal(status === 401 ? JSON.parse(body).code : body, expected, situation)
    }
    const headers = { origin: 'https://shop.test', 'access-control-request-method': 'GET' }
    const answer = await fetch(`${url}/orders`, { method: 'OPTIONS', headers })
    assert.deepEqual([answer.status, answer.headers.get('access-control-allow-origin')], [204, '*'])
  })
}

test('an optional guard requires roles like any other guard, and keeps its scopes', async () => {
  const optional = issuer.guard({ scopes: ['orders:read'] }).optional()
  assert.equal(await optional.user({ headers: {} }), null)
  assert.equal(await optional.requires('orders:write').user({ headers: {} }), null)
  await assert.rejects(optional.user({ headers: {} }, 'clerk'), { code: 'missing_token' })
  await assert.rejects(optional.user({ headers: issuer.headers() }), { code: 'insufficient_scope' })
  await assert.rejects(optional.user({ headers: { authorization: 'Bearer a, Bearer b' } }), { code: 'invalid_request' })
})

/** Imports the README's block of code that contains these words, after `change` has changed the code. */
function importBlock(words, change = (code) => code) {
  const { code } = blocks.find((block) => block.code.includes(words))
  return import(writeCode(change(code), `${words.length}.js`))
}

test("in the README's app, the public page greets users, and only users can see orders", async (t) => {
  const { app, guard } = await importBlock('guard.optional()')
  t.after(issuer.trustedBy(guard))
  const server = app.listen(0, '127.0.0.1')
  t.after(() => server.close())
  await new Promise((done) => server.once('listening', done))
  const get = (path, headers = {}) => fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers })
  assert.equal(await (await get('/welcome')).text(), 'welcome')
  assert.equal(await (await get('/welcome', issuer.headers({ openid: 'o1' }))).text(), 'welcome, o1')
  assert.deepEqual([(await get('/orders')).status, (await get('/orders', issuer.headers())).status], [401, 200])
})

test('the route handler for Next.js in the README accepts Fetch requests', async (t) => {
  const exportGuard = (code) => code.replace('const guard', 'export const guard')
  const { GET, guard } = await importBlock('export async function GET', exportGuard)
  t.after(issuer.trustedBy(guard))
  const ask = (headers) => GET(new Request('https://shop.test/api/orders', { headers }))
  assert.equal((await (await ask(issuer.headers({ openid: 'o1' }))).json()).openid, 'o1')
  const refused = await ask({})
  assert.deepEqual([refused.status, (await refused.json()).code], [401, 'missing_token'])
})

test("Hono's own middleware refuses the tokens, as the guide says, and the guard's accepts them", async () => {
  const { jwk } = await import('hono/jwk')
  const app = new Hono()
  app.get('/theirs', jwk({ keys: issuer.jwks.keys, alg: ['ES256'] }), (context) => context.text('in'))
  app.get('/ours', hono.bearer(issuer.guard()), (context) => context.text('in'))
  const status = async (path) => (await app.request(path, { headers: issuer.headers() })).status
  assert.deepEqual([await status('/theirs'), await status('/ours')], [401, 200])
})
