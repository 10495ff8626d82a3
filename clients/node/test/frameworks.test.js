// Each service in the README admits the right users, and refuses other requests like wxauth.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { BearerGuard } from 'wxauth-guard'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'
import { chosen, frameworks, frameworksWithChosenGuard } from './readme.js'
import { hang, identify, impatient, patient, refuse, respond, Wxauth } from './wxauth.js'

const issuer = new TestIssuer()

for (const [name, start] of Object.entries(frameworks)) {
  describe(name, () => {
    const cleanups = []
    let url

    before(async () => {
      const service = await start((cleanUp) => cleanups.push(cleanUp))
      cleanups.push(issuer.trustedBy(service.guard))
      url = `${service.url}/orders`
    })

    after(() => Promise.all(cleanups.map((cleanUp) => cleanUp())))

    const ask = (headers = {}) => fetch(url, { headers })
    const erase = (headers = {}) => fetch(`${url}/7`, { method: 'DELETE', headers })

    test('a request with a valid token receives the data of its user', async () => {
      const answer = await ask(issuer.headers({ openid: 'o-1' }))
      assert.equal(answer.status, 200)
      assert.deepEqual(await answer.json(), { user: USER_ID, openid: 'o-1' })
    })

    test("a website's token is refused", async () => {
      for (const answer of [await ask(issuer.headers({ scope: '' })), await erase(issuer.headers({ scope: 'openid' }))]) {
        assert.deepEqual([answer.status, (await answer.json()).code], [403, 'insufficient_scope'])
        assert.equal(answer.headers.get('www-authenticate'), 'Bearer error="insufficient_scope"')
      }
    })

    test('a request without a token fails with 401 and a problem document', async () => {
      const answer = await ask({ 'x-request-id': 'order-7.a_B' })
      assert.equal(answer.status, 401)
      assert.match(answer.headers.get('content-type'), /^application\/problem\+json/)
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer')
      assert.equal(answer.headers.get('cache-control'), 'no-store')
      assert.equal(answer.headers.get('x-request-id'), 'order-7.a_B')
      assert.deepEqual(await answer.json(), {
        type: 'urn:wxauth:problem:missing_token',
        title: 'Please log in.',
        status: 401,
        detail: "send the access token as 'Authorization: Bearer ...'",
        code: 'missing_token',
        request_id: 'order-7.a_B',
      })
    })

    test('the title is in the language that the phone prefers', async () => {
      const answer = await ask({ 'accept-language': 'zh_CN' })
      assert.equal((await answer.json()).title, '请先登录。')
      assert.equal(answer.headers.get('content-language'), 'zh-CN')
    })

    test("the title is in WeChat's language if the request names no language", async () => {
      for (const noLanguage of ['', '*', '*;q=0.5', '*, *;q=0.1']) {
        const answer = await ask({ 'accept-language': noLanguage, 'user-agent': 'MicroMessenger/8.0.44 Language/zh_CN' })
        assert.equal((await answer.json()).title, '请先登录。')
      }
    })

    test('a token signed with another key is refused', async () => {
      const answer = await ask(new TestIssuer().headers())
      assert.equal(answer.status, 401)
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer error="invalid_token"')
      assert.equal((await answer.json()).code, 'invalid_token')
    })

    test('an expired token is refused', async () => {
      const answer = await ask(issuer.headers({ expiresIn: -31 }))
      assert.deepEqual([answer.status, (await answer.json()).code], [401, 'token_expired'])
    })

    test('a request fails with 403 only if the user lacks the role', async () => {
      const answer = await erase(issuer.headers({ roles: ['clerks'] }))
      assert.deepEqual([answer.status, (await answer.json()).code], [403, 'insufficient_role'])
      assert.equal(answer.headers.get('www-authenticate'), null)
      assert.ok((await erase(issuer.headers({ roles: ['auditor', 'clerk'] }))).ok)
      assert.equal((await erase()).status, 401)
    })

    test('a request with two Authorization headers fails with 400', async () => {
      const { authorization } = issuer.headers()
      const { hostname, port, pathname } = new URL(url)
      const joined = [`${authorization}, ${authorization}`, `Basic eDp5, ${authorization}`] // joined by proxies
      for (const values of [[authorization, authorization], ...joined.map((value) => [value])]) {
        const headers = values.map((value) => `Authorization: ${value}\r\n`).join('')
        const socket = connect(port, hostname)
        socket.end(`GET ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: close\r\n${headers}\r\n`)
        const chunks = []
        socket.on('data', (chunk) => chunks.push(chunk))
        await once(socket, 'close')
        const answer = Buffer.concat(chunks).toString()
        assert.match(answer, /^HTTP\/1\.1 400 /)
        assert.match(answer, /"code":"invalid_request".*"errors":\[\]/)
      }
    })
  })
}

for (const [name, start] of Object.entries(frameworksWithChosenGuard)) {
  describe(`${name}, with another guard,`, () => {
    const cleanups = []
    let url, wxauth

    before(async () => {
      wxauth = await new Wxauth().listen()
      cleanups.push(() => wxauth.close())
      url = `${(await start((cleanUp) => cleanups.push(cleanUp))).url}/orders`
    })

    after(() => Promise.all(cleanups.map((cleanUp) => cleanUp())))

    /** Makes the service use a guard with these options. */
    const choose = (options, isCurrent = true) => {
      const fetch = (url, init) => (wxauth.behaviour === hang ? impatient : patient)(url, init)
      // The timer stands still, so that no machine is too busy.
      const guard = new BearerGuard({ issuer: wxauth.url, warn() {}, fetch, timer: () => 0, ...options })
      chosen.guard = isCurrent ? guard.current : guard
    }
    /** Returns the status and the code of a refused request for the orders, or 200. */
    const ask = async (fields = {}, method = 'GET') => {
      const answer = await fetch(method === 'GET' ? url : `${url}/7`, { method, headers: wxauth.issuer.headers(fields) })
      return answer.ok ? [200] : [answer.status, (await answer.json()).code]
    }

    test('a guard for websites accepts both, and asks about both', async () => {
      for (const isCurrent of [false, true]) {
        choose({ websites: true }, isCurrent)
        assert.deepEqual(await ask({ scope: 'openid' }), [200])
        assert.deepEqual(await ask(), [200])
      }
      assert.deepEqual(wxauth.requests.map((request) => request.url), Array(2).fill('/v1/verify?websites=true'))
    })

    test('a ban, an ended session and new roles count at once', async () => {
      choose({})
      wxauth.behaviour = identify()
      assert.deepEqual(await ask({ roles: ['clerk'] }, 'DELETE'), [403, 'insufficient_role'])
      wxauth.behaviour = identify('clerk')
      assert.deepEqual(await ask({}, 'DELETE'), [200])
      wxauth.behaviour = refuse(401, 'invalid_token')
      assert.deepEqual(await ask(), [401, 'session_revoked'])
      choose({}, false)
      assert.deepEqual(await ask(), [200])
    })

    test('an unreachable wxauth refuses, unless the signature is enough', async () => {
      for (const [behaviour, offline] of [
        [refuse(503, 'storage_unavailable'), [200]],
        [(request) => request.socket.destroy(), [200]],
        [hang, [200]],
        [refuse(429, 'rate_limited'), [503, 'verification_unavailable']],
        [respond(302, { Location: '/v1/verify?again' }), [503, 'verification_unavailable']],
        [respond(200, { 'X-Auth-User-Id': randomUUID() }), [503, 'verification_unavailable']],
        [refuse(401, 'invalid_token'), [401, 'session_revoked']],
      ]) {
        wxauth.behaviour = identify()
        choose({ orOffline: true })
        assert.deepEqual(await ask(), [200])
        wxauth.behaviour = wxauth.keys = behaviour
        assert.deepEqual(await ask(), offline)
        wxauth.keys = null
        choose({})
        assert.deepEqual(await ask(), offline[0] === 200 ? [503, 'verification_unavailable'] : offline)
      }
    })
  })
}
