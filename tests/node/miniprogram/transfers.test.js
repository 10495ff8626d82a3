// auth.uploadFile and auth.downloadFile are wx.uploadFile and wx.downloadFile with a session.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import {
  AuthError, ban, checkError, createAuth, endSession, expireAtService, isGood, listen, loggedIn, rejection, secondInstance, SERVICE_URL,
  start, withoutWaiting,
} from './world.js'

const REFRESH = 'POST /v1/refresh'
const KINDS = { uploadFile: 'UPLOAD /files', downloadFile: 'DOWNLOAD /files' }
const NAMES = Object.keys(KINDS)
const FILE = 'http://tmp/tea.png'
const BYTES = Buffer.alloc(200_000, 'tea')

/** Set up a phone with a file, and a service that stores files. */
async function files(t, { answer = () => [200, {}, 'stored'], isGuest, ...options } = {}) {
  const server = await listen(t, answer)
  const { auth, phone } = await (isGuest ? start : loggedIn)({ origins: [server.url], ...options })
  phone.files.set(FILE, BYTES)
  const url = `${server.url}/files`
  const tokens = () => server.requests.map((each) => each.headers.authorization)
  /** Start a transfer, and return its task and the outcomes as the callbacks received them. */
  const transfer = (name, more) => {
    const called = []
    let task
    const done = new Promise((resolve) => {
      const callbacks = {
        success: (answer) => called.push(['success', answer]),
        fail: (error) => called.push(['fail', error]),
        complete: (result) => (called.push(['complete', result]), resolve(called)),
      }
      task = auth[name]({ url, ...(name === 'uploadFile' && { filePath: FILE, name: 'file' }), ...callbacks, ...more })
    })
    return { task, called, done }
  }
  const failure = async ({ called, done }, code) => {
    await done
    const [[outcome, error], [last, again]] = called
    assert.deepEqual([outcome, last, again === error, called.length], ['fail', 'complete', true, 2])
    checkError(error)
    assert.equal(error.code, code, error.stack)
    return error
  }
  const answerOf = async ({ called, done }) => {
    await done
    const [[outcome, answer], [last, again]] = called
    assert.deepEqual([outcome, last, again === answer, called.length], ['success', 'complete', true, 2], `${answer.stack}`)
    return answer
  }
  return { auth, phone, server, url, tokens, transfer, failure, answerOf }
}

/** Register listeners for all events of a task, and return what they hear. */
function listening(task) {
  const heard = { progress: [], heads: [] }
  task.onProgressUpdate(({ progress }) => heard.progress.push(progress))
  task.onHeadersReceived((head) => heard.heads.push(head.header['x-n']))
  return heard
}

test('a file is uploaded as a form, with its fields, the headers of the page, and a good token', async (t) => {
  const { phone, server, transfer, answerOf } = await files(t, { answer: () => [201, {}, '{"id":7}'] })
  const header = { 'X-Mine': '1', authorization: 'Bearer mine' }
  const answer = await answerOf(transfer('uploadFile', { formData: { order: 5, note: '乌龙' }, header, timeout: 9000, enableHttp2: true }))
  assert.deepEqual(answer, { statusCode: 201, data: '{"id":7}', errMsg: 'uploadFile:ok' })
  const [{ method, headers, body }] = server.requests
  const form = await new Response(body, { headers: { 'content-type': headers['content-type'] } }).formData()
  const file = form.get('file')
  assert.deepEqual([method, headers['x-mine'], form.get('order'), form.get('note')], ['POST', '1', '5', '乌龙'])
  assert.deepEqual([file.name, file.type, Buffer.from(await file.arrayBuffer())], ['tea.png', 'image/png', BYTES])
  assert.ok(await isGood(/^Bearer (.+)$/.exec(headers.authorization)[1]))
  const [call] = phone.callsOf(KINDS.uploadFile)
  assert.deepEqual([call.timeout, call.enableHttp2, call.silent], [9000, true, undefined])
})

test('a file is downloaded to a temporary place, or to the place that is given', async (t) => {
  const { phone, transfer, answerOf } = await files(t, { answer: ({ headers }) => [headers.authorization ? 200 : 401, {}, 'tea'] })
  const { tempFilePath, ...answer } = await answerOf(transfer('downloadFile'))
  assert.deepEqual([answer, `${phone.files.get(tempFilePath)}`], [{ statusCode: 200, errMsg: 'downloadFile:ok' }, 'tea'])
  const { filePath } = await answerOf(transfer('downloadFile', { filePath: 'wxfile://usr/1' }))
  assert.deepEqual([filePath, `${phone.files.get(filePath)}`], ['wxfile://usr/1', 'tea'])
})

for (const name of NAMES) {
  test(`${name}: the task is there at once, no callback is called before the return, and nothing of the page's is changed`, async (t) => {
    const { auth, url } = await files(t)
    let isReturned = false
    const options = Object.freeze({
      url, filePath: FILE, name: 'file', header: Object.freeze({ Authorization: 'mine' }), complete: () => assert.ok(isReturned),
    })
    const ended = new Promise((success) => {
      const task = auth[name]({ ...options, success })
      assert.deepEqual(
        Object.keys(task).sort(),
        ['abort', 'offHeadersReceived', 'offProgressUpdate', 'onHeadersReceived', 'onProgressUpdate'],
      )
      assert.equal(auth[name](options).then, undefined)
      isReturned = true
    })
    assert.equal((await ended).statusCode, 200)
  })

  test(`${name}: an expired token is refreshed before`, async (t) => {
    const { phone, server, transfer, answerOf } = await files(t)
    phone.time += 10 ** 9
    assert.equal((await answerOf(transfer(name))).statusCode, 200)
    assert.deepEqual([phone.count(REFRESH), server.requests.length], [1, 1])
  })

  test(`${name}: without a session, it logs in first`, async (t) => {
    const { auth, phone, tokens, transfer, answerOf } = await files(t, { isGuest: true })
    await answerOf(transfer(name))
    assert.deepEqual([phone.count('login'), tokens().map(Boolean), Boolean(auth.user)], [1, [true], true])
  })

  test(`${name}: a 401 refreshes and sends once more, and the listeners follow the second task`, async (t) => {
    const { phone, server, tokens, transfer, answerOf } = await files(t, {
      answer: (_, n) => [n === 1 ? 401 : 200, { 'X-N': `${n}`, 'Content-Length': 4 }, n === 1 ? 'oops' : 'good'],
    })
    const gate = phone.hold(REFRESH)
    const sent = transfer(name)
    const heard = listening(sent.task)
    await gate.arrived
    const before = heard.progress.length
    gate.open()
    const answer = await answerOf(sent)
    assert.deepEqual([answer.statusCode, heard.heads], [200, ['2']])
    if (name === 'uploadFile') assert.ok(before > 2, 'the first attempt reports its progress, too')
    assert.deepEqual([heard.progress.at(-1), heard.progress.length > before], [100, true])
    assert.deepEqual([new Set(tokens()).size, phone.count(REFRESH)], [2, 1])
    assert.equal(new Set(server.requests.map(({ body }) => body.length)).size, 1)
    if (name === 'downloadFile') assert.equal(`${phone.files.get(answer.tempFilePath)}`, 'good')
  })

  test(`${name}: a second 401 is the answer, and its head is heard`, async (t) => {
    const { server, transfer, answerOf } = await files(t, { answer: (_, n) => [401, { 'X-N': `${n}` }, 'no'] })
    const sent = transfer(name)
    const { heads } = listening(sent.task)
    assert.equal((await answerOf(sent)).statusCode, 401)
    assert.deepEqual([server.requests.length, heads], [2, ['2']])
  })

  test(`${name}: a listener that is taken away hears nothing, and without one all are`, async (t) => {
    const { transfer, answerOf } = await files(t)
    for (const [off, isHeard] of [[[true], true], [[], false]]) {
      const { task, ...sent } = transfer(name)
      const heard = []
      for (const event of ['ProgressUpdate', 'HeadersReceived']) {
        const gone = () => assert.fail('taken away')
        task[`on${event}`](gone)
        task[`on${event}`](() => heard.push(event))
        task[`off${event}`](...off.map(() => gone))
      }
      await answerOf(sent)
      assert.equal(heard.includes('HeadersReceived'), isHeard)
    }
  })

  test(`${name}: abort() before anything is sent fails as WeChat's does, and nothing is sent`, async (t) => {
    const { phone, server, auth, transfer, failure } = await files(t)
    phone.time += 10 ** 9
    const gate = phone.hold(REFRESH)
    const [atOnce, whileRefreshing] = [transfer(name), transfer(name)]
    atOnce.task.abort()
    await gate.arrived
    whileRefreshing.task.abort()
    for (const sent of [atOnce, whileRefreshing]) {
      assert.equal((await failure(sent, 'aborted')).errMsg, `${name}:fail abort`)
      sent.task.abort()
    }
    gate.open()
    await auth.getToken()
    await new Promise(setImmediate)
    assert.deepEqual([server.requests, atOnce.called.length], [[], 2])
  })

  test(`${name}: abort() while the file is under way, or after the first attempt, ends the real task`, async (t) => {
    for (const attempt of [1, 2]) {
      const { phone, transfer, failure } = await files(t, { answer: (_, n) => (n === attempt ? [200, {}, (response) => response.flushHeaders()] : [401, {}, 'no']) })
      const real = phone.wx[name]
      let ended = 0
      let atLast
      const under = new Promise((resolve) => (atLast = resolve))
      t.mock.method(phone.wx, name, (options) => {
        const task = real(options)
        if (phone.count(KINDS[name]) === attempt) task.onHeadersReceived(atLast)
        return { ...task, abort: () => ((ended += 1), task.abort()) }
      })
      const sent = transfer(name)
      await under
      sent.task.abort()
      const heard = listening(sent.task)
      await failure(sent, 'aborted')
      assert.deepEqual([ended, phone.count(KINDS[name]), heard.heads], [1, attempt, []])
    }
  })

  for (const [what, end] of Object.entries({
    'a logout': (auth) => auth.logout(),
    'a logout in another instance': (auth, phone) => secondInstance({ phone }).logout(),
    'a logout and a login': (auth) => auth.logout().then(() => auth.login()),
  }))
    test(`${name}: ${what} while the file is under way ends it, and nothing more is heard of it`, async (t) => {
      const { auth, phone, transfer, failure } = await files(t)
      const gate = phone.hold(KINDS[name])
      const sent = transfer(name)
      await gate.arrived
      const heard = listening(sent.task)
      await end(auth, phone)
      gate.open()
      await failure(sent, 'session_revoked')
      assert.deepEqual(heard, { progress: [], heads: [] })
    })

  test(`${name}: a logout while the token is refreshed sends nothing`, async (t) => {
    for (const silent of [true, false]) {
      const { auth, phone, server, transfer, failure } = await files(t, { silent })
      phone.time += 10 ** 9
      const gate = phone.hold(REFRESH)
      const sent = transfer(name)
      await gate.arrived
      await auth.logout()
      gate.open()
      await failure(sent, 'session_revoked')
      assert.deepEqual(server.requests, [])
    }
  })

  test(`${name}: a guest sends without a token, and gets what is answered`, async (t) => {
    const { phone, tokens, transfer, answerOf } = await files(t, { isGuest: true, silent: false, answer: (_, n) => [n === 1 ? 200 : 401, {}, ''] })
    const [first, second] = [await answerOf(transfer(name)), await answerOf(transfer(name, { header: { Authorization: 'mine' } }))]
    assert.deepEqual([first.statusCode, second.statusCode, tokens(), phone.count('login')], [200, 401, [undefined, undefined], 0])
    await answerOf(transfer(name, { silent: true }))
    assert.equal(phone.count('login'), 1)
  })

  test(`${name}: without an answer it fails as a request does, and is not sent again`, async (t) => {
    const { phone, transfer, failure } = await files(t)
    for (const [fate, code] of [[fates.notSent, 'network_error'], [fates.tooLate, 'timeout'], [fates.fails('fail url not in domain list'), 'domain_not_allowed']]) {
      phone.next(KINDS[name], fate)
      const before = phone.count(KINDS[name])
      const { errMsg, message } = await failure(transfer(name), code)
      assert.equal(errMsg, `${name}:fail ${message}`)
      assert.equal(phone.count(KINDS[name]), before + 1)
    }
  })

  test(`${name}: what is wrong fails by the callback, and without callbacks nothing is thrown`, async (t) => {
    const { auth, phone, transfer, failure } = await files(t)
    await failure(transfer(name, { url: 'https://evil.example.com/' }), 'origin_not_allowed')
    await failure(transfer(name, { url: undefined }), 'invalid_argument')
    if (name === 'uploadFile') await failure(transfer(name, { filePath: 'none' }), 'invalid_argument')
    for (const options of [undefined, null, {}, { url: 'https://evil.example.com/' }]) auth[name](options).abort()
    delete phone.wx[name]
    await failure(transfer(name), 'no_platform')
    await new Promise(setImmediate)
  })

  test(`${name}: an error of the page's callbacks is its own`, async (t) => {
    const errors = []
    t.mock.method(console, 'error', (error) => errors.push(error.message))
    const { transfer } = await files(t)
    const broken = (what) => () => { throw new Error(what) }
    let ended
    const complete = new Promise((resolve) => (ended = resolve))
    const { task } = transfer(name, { success: broken('success'), complete: ended })
    task.onHeadersReceived(broken('head'))
    await complete
    assert.deepEqual(errors, ['head', 'success'])
  })

  test(`${name}: it is not given up while it makes progress, and is where no callback comes`, async (t) => {
    const { phone, transfer, failure } = await files(t)
    const clock = withoutWaiting(t)
    let move
    t.mock.method(phone.wx, name, () => ({ onProgressUpdate: (listener) => (move = () => listener({ progress: 1 })) }))
    const sent = transfer(name, { timeout: 1000 })
    while (!move) await new Promise(setImmediate)
    const [before] = clock.timers.keys()
    move()
    assert.equal(clock.timers.size, 1)
    assert.notEqual([...clock.timers.keys()][0], before)
    assert.equal(await clock.expire(), 6000)
    await failure(sent, 'timeout')
  })
}

test('where the session has ended, a download goes on as a guest, and an upload fails with the reason', async (t) => {
  for (const [end, code] of [[endSession, 'session_revoked'], [(auth) => ban(auth.user), 'account_disabled']])
    for (const isKnown of [true, false])
      for (const name of NAMES) {
        const { auth, phone, tokens, transfer, failure, answerOf } = await files(t, {
          silent: false, answer: ({ headers }) => [headers.authorization ? 401 : 200, {}, ''],
        })
        await end(auth)
        if (isKnown) phone.time += 10 ** 9
        else await expireAtService()
        if (name === 'uploadFile') await failure(transfer(name), code)
        else assert.equal((await answerOf(transfer(name))).statusCode, 200)
        const guest = name === 'downloadFile' ? [false] : []
        assert.deepEqual(tokens().map(Boolean), isKnown ? guest : [true, ...guest])
        assert.equal(auth.user, null)
      }
})

test('isRefused reads the JSON of an upload, and a download by its status', async (t) => {
  for (const [name, isRefused] of [
    ['uploadFile', ({ data }) => data.errno === 501],
    ['downloadFile', ({ data, statusCode }) => !data.errno && statusCode === 403],
  ]) {
    const { phone, transfer, answerOf } = await files(t, { isRefused, answer: (_, n) => [n === 1 && name === 'downloadFile' ? 403 : 200, {}, `{"errno":${n === 1 ? 501 : 0}}`] })
    const { statusCode, data } = await answerOf(transfer(name))
    assert.deepEqual([statusCode, data, phone.count(KINDS[name])], [200, name === 'uploadFile' ? '{"errno":0}' : undefined, 2])
  }
})

test('the error of a callback is an AuthError of its own, and requests that fail for the same reason have no errMsg', async (t) => {
  const { auth, phone, transfer, failure } = await files(t, { silent: false })
  await endSession(auth)
  phone.time += 10 ** 9
  const [sent, asked] = [transfer('uploadFile'), rejection(auth.request({ url: '/v1/me', method: 'POST' }), 'session_revoked')]
  assert.ok((await failure(sent, 'session_revoked')) instanceof AuthError)
  assert.equal((await asked).errMsg, undefined)
})

test('both go where the token may go, a relative url is appended to baseURL, and neither needs this', async (t) => {
  const { phone } = await loggedIn()
  phone.files.set('f', Buffer.from('no picture'))
  const { uploadFile, downloadFile } = createAuth({ baseURL: SERVICE_URL, platform: phone.wx, now: phone.now })
  const up = await new Promise((success, fail) => uploadFile({ url: '/v1/me/avatar', filePath: 'f', name: 'file', success, fail }))
  const down = await new Promise((success, fail) => downloadFile({ url: '/v1/me', success, fail }))
  assert.deepEqual([up.statusCode, down.statusCode], [422, 200])
})
