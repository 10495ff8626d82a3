import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates, Gate } from '../../../examples/phone/phone.mjs'
import { expireAtService, listen, loggedIn, rejection, withoutWaiting } from './world.js'

const REFRESH = 'POST /v1/refresh'
const textOf = (pieces) => pieces.map((piece) => Buffer.from(piece).toString()).join('')

/** Log a phone in, and start a service that responds in pieces, like the service of a language model. */
async function streaming(t, answer = () => [200, {}, inPieces('one ', 'two ', 'three')]) {
  const server = await listen(t, answer)
  const { auth, phone } = await loggedIn({ origins: [server.url] })
  const tasks = []
  const pieces = []
  const onTask = (task) => tasks.push(task)
  const onChunk = (piece) => pieces.push(piece)
  const ask = (more) => auth.request({ url: `${server.url}/chat`, enableChunked: true, onChunk, onTask, ...more })
  return { server, auth, phone, tasks, pieces, ask }
}

const inPieces =
  (...texts) =>
  async (response) => {
    for (const text of texts) {
      response.write(text)
      await new Promise((later) => setTimeout(later, 20))
    }
    response.end()
  }

test('an answer in pieces comes piece by piece, and the promise resolves at its end', async (t) => {
  const { pieces, phone, ask } = await streaming(t)
  const { statusCode } = await ask()
  assert.deepEqual([statusCode, textOf(pieces), pieces.length], [200, 'one two three', 3])
  assert.ok(pieces.every((piece) => piece instanceof ArrayBuffer))
  const [call] = phone.callsOf('GET /chat')
  assert.deepEqual([call.enableChunked, call.onChunk, call.onTask], [true, undefined, undefined])
})

test('a 401 before the first piece refreshes once, and its body is no piece', async (t) => {
  const { pieces, phone, tasks, ask } = await streaming(t, (_, n) =>
    n === 1 ? [401, {}, '{"code":"invalid_token"}'] : [200, {}, inPieces('yes')],
  )
  assert.equal((await ask()).statusCode, 200)
  assert.deepEqual([textOf(pieces), phone.count(REFRESH), tasks.length], ['yes', 1, 2])
})

test('a second 401 is the answer, and its body is no piece either', async (t) => {
  const { pieces, server, ask } = await streaming(t, () => [401, {}, '{"code":"invalid_token"}'])
  assert.equal((await ask()).statusCode, 401)
  assert.deepEqual([pieces, server.requests.length], [[], 2])
})

test('where the head has no status, a 401 without a body is sent again, and one with a body is the answer', async (t) => {
  let body = ''
  const { pieces, server, phone, ask } = await streaming(t, (_, n) => [n === 2 ? 200 : 401, {}, body])
  phone.hasStatusInHead = false
  assert.equal((await ask()).statusCode, 200)
  body = '{"code":"invalid_token"}'
  assert.equal((await ask()).statusCode, 401)
  assert.deepEqual([textOf(pieces), server.requests.length], [body, 3])
})

test('a stream that breaks after its first piece rejects, and is not sent again', async (t) => {
  const { pieces, server, ask } = await streaming(t, () => [
    200,
    { 'Content-Length': 99 },
    async (response) => {
      await new Promise((sent) => response.write('one', sent))
      await new Promise((later) => setTimeout(later, 20))
      response.destroy()
    },
  ])
  await rejection(ask(), 'network_error')
  assert.deepEqual([textOf(pieces), server.requests.length], ['one', 1])
})

test('abort() during the answer rejects with aborted, and no piece comes after it', async (t) => {
  const { pieces, tasks, ask } = await streaming(t, () => [200, {}, inPieces('one', 'two', 'three')])
  const asking = ask({
    onChunk: (piece) => {
      pieces.push(piece)
      tasks[0].abort()
    },
  })
  const error = await rejection(asking, 'aborted')
  await new Promise((later) => setTimeout(later, 100))
  assert.deepEqual([error.status, textOf(pieces)], [null, 'one'])
})

test('abort() between the two tries rejects with aborted at once, and the second is not sent', async (t) => {
  const { server, auth, phone, tasks, ask } = await streaming(t, () => [401, {}, ''])
  const gate = phone.hold(REFRESH, 'before')
  const asking = ask()
  await gate.arrived
  tasks[0].abort()
  await rejection(asking, 'aborted')
  gate.open()
  await auth.getToken()
  await new Promise(setImmediate)
  assert.equal(server.requests.length, 1)
})

test('abort() of the first task ends the second try too', async (t) => {
  const { phone, tasks, ask } = await streaming(t, (_, n) => (n === 1 ? [401, {}, ''] : [200, {}, () => {}]))
  const { request } = phone.wx
  const ended = []
  t.mock.method(phone.wx, 'request', (options) => {
    const task = request(options)
    return { ...task, abort: () => (ended.push(options.url), task.abort()) }
  })
  await rejection(ask({ onTask: (task) => tasks.push(task) === 2 && tasks[0].abort() }), 'aborted')
  assert.deepEqual([phone.count('GET /chat'), ended.length], [2, 1])
})

test('an ordinary request may be aborted, too; after its end that does nothing', async (t) => {
  const { auth, server, tasks } = await streaming(t, () => [200, {}, '{}'])
  const request = (onTask) => auth.request({ url: server.url, onTask })
  await rejection(request((task) => task.abort()), 'aborted')
  assert.equal((await request((task) => tasks.push(task))).statusCode, 200)
  tasks[0].abort()
})

test('a long stream is not given up while pieces come', async (t) => {
  const clock = withoutWaiting(t)
  const gate = new Gate()
  const { phone, auth, pieces } = await streaming(t)
  let listener
  const asking = auth.request({
    url: '/v1/me',
    enableChunked: true,
    onChunk: (piece) => pieces.push(piece),
    onTask: (task) => (task.onHeadersReceived = null),
  })
  phone.next('GET /v1/me', gate.after)
  const { request } = phone.wx
  t.mock.method(phone.wx, 'request', (options) => {
    const task = request(options)
    return { ...task, onChunkReceived: (fn) => (listener = fn) }
  })
  await gate.arrived
  const [before] = clock.timers.keys()
  listener({ data: new ArrayBuffer(1) })
  assert.notEqual([...clock.timers.keys()].at(-1), before)
  assert.equal(clock.timers.size, 1)
  gate.open()
  assert.equal((await asking).statusCode, 200)
})

test('an expired token is renewed before the stream begins', async (t) => {
  const { phone, pieces, ask } = await streaming(t)
  await expireAtService()
  phone.time += 10 ** 9
  await ask()
  assert.deepEqual([textOf(pieces), phone.count(REFRESH)], ['one two three', 1])
})

test('a stream without an answer rejects as any request does', async (t) => {
  const { phone, ask } = await streaming(t)
  phone.next('GET /chat', fates.notSent)
  await rejection(ask(), 'network_error')
})
