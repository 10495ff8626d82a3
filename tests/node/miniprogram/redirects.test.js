// Services must not redirect: phones with a base library before 3.2.2 follow, the others return the redirect.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listen, loggedIn, rejection, start } from './world.js'

function warningsOf(t) {
  const warnings = []
  t.mock.method(console, 'warn', (text) => warnings.push(text))
  return warnings
}

const VERSIONS = { '3.2.1': false, '2.32.3': false, '3.2': false, '3.2.2': true, '3.10.0': true, '4.0.0': true }

for (const status of [301, 302, 303, 307, 308])
  for (const [version, isNew] of Object.entries(VERSIONS))
    test(`a ${status} on base library ${version} is ${isNew ? 'returned with a warning' : 'followed'}`, async (t) => {
      const target = await listen(t, () => [200, {}, '"here"'])
      const server = await listen(t, () => [status, { Location: `${target.url}/orders/?key=secret` }, ''])
      const { auth, phone } = await loggedIn({ origins: [server.url] })
      phone.SDKVersion = version
      const warnings = warningsOf(t)
      const ask = () => auth.request({ url: `${server.url}/orders?key=secret`, method: 'POST', data: {} })
      const { statusCode, data } = await ask()
      await ask()
      assert.deepEqual([statusCode, data, target.requests.length], isNew ? [status, '', 0] : [200, 'here', 2])
      const [text, ...more] = warnings
      assert.deepEqual([more, Boolean(text)], [[], isNew])
      if (!isNew) assert.equal(target.requests[0].method, status > 303 ? 'POST' : 'GET')
      else assert.ok(text.startsWith(`wxauth: POST ${server.url}/orders redirects to ${target.url}/orders/. Call the target`), text)
      assert.doesNotMatch(`${text}`, /secret/)
    })

test('each method and each path warns once, whatever the query', async (t) => {
  const server = await listen(t, ({ url }) => [308, { LOCATION: `${url}/` }, ''])
  const { auth, phone } = await loggedIn({ origins: [server.url] })
  phone.headerName = (name) => name.toUpperCase()
  const warnings = warningsOf(t)
  for (const method of ['GET', undefined, 'PUT'])
    for (const path of ['/a', '/a?b=1', '/b']) await auth.request({ url: server.url + path, method })
  assert.deepEqual(warnings.map((text) => /wxauth: (\w+) http:\/\/[\w.:]+(\S+) redirects to (\S+)\. /.exec(text).slice(1).join(' ')), [
    'GET /a /a/', 'GET /b /b/', 'PUT /a /a/', 'PUT /b /b/',
  ])
})

test('the other 3xx and a redirect without a target are told apart', async (t) => {
  const server = await listen(t, ({ url }) => [Number(url.slice(1)), {}, ''])
  const { auth } = await loggedIn({ origins: [server.url] })
  const warnings = warningsOf(t)
  for (const status of [300, 304, 305, 307]) await auth.request({ url: `${server.url}/${status}` })
  assert.equal(warnings.length, 1)
  assert.match(warnings[0], /\/307 redirects to another address\./)
})

test('a redirect in the place of a login, of an upload or of a member warns, too, and no token is shown', async (t) => {
  const server = await listen(t, () => [302, { Location: 'https://me:pass@sso.example.com/eyJhbGciOi.x.y?ticket=1' }, ''])
  const warnings = warningsOf(t)
  await rejection(start({ baseURL: server.url }).auth.login(), 'http_error')
  const { auth, phone } = await loggedIn({ origins: [server.url] })
  phone.files.set('f', Buffer.from('x'))
  const { statusCode } = await new Promise((success) => auth.uploadFile({ url: `${server.url}/files`, filePath: 'f', name: 'f', success }))
  assert.equal(statusCode, 302)
  const [login, upload] = warnings
  assert.match(login, /POST http:\/\/[\w.:]+\/v1\/login redirects to …@sso\.example\.com\/eyJ…\. Call/)
  assert.match(upload, /POST http:\/\/[\w.:]+\/files redirects to another address\. Call/) // wx.uploadFile has no header
})

test('however many paths redirect, the console has a hundred warnings at most', async (t) => {
  const server = await listen(t, () => [301, { Location: '/' }, ''])
  const { auth } = await loggedIn({ origins: [server.url] })
  const warnings = warningsOf(t)
  for (let n = 0; n < 110; n += 1) assert.equal((await auth.request({ url: `${server.url}/${n}` })).statusCode, 301)
  assert.ok(warnings.length <= 100 && warnings.length > 50, `${warnings.length}`)
  t.mock.method(console, 'warn', () => { throw new Error('no console') })
  assert.equal((await auth.request({ url: `${server.url}/last` })).statusCode, 301)
})
