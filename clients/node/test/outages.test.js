// With `orOffline`, a token is admitted only while wxauth is away, and never because this process is busy.
import assert from 'node:assert/strict'
import dns from 'node:dns'
import { after, before, beforeEach, describe, test } from 'node:test'
import { BearerGuard } from 'wxauth-guard'
import { verificationKeys } from '../lib/keys.js'
import { hang, identify, impatient, patient, raw, refuse, reset, respond, Wxauth } from './wxauth.js'

const ADMITTED = false // the user's `isCurrent`
const REFUSED = 'verification_unavailable'
const MAX_ASKED = 64
const MAX_WAITING = 256
const PUBLISHED = respond(200, {}, '{"keys":[]}')
const AWAY_STATUSES = [502, 503, 504]
const OTHER_STATUSES = [201, 204, 301, 304, 307, 400, 404, 405, 407, 418, 429, 431, 500, 501, 505]
const NO_RESPONSE = { end: raw(''), reset, nothing: hang, half: (request) => request.socket.write('HTTP/1.1 200 OK\r\n') }

let wxauth, clock
before(async () => {
  wxauth = await new Wxauth().listen()
})
after(() => wxauth.close())
beforeEach(() => {
  clock = 0
  ;[wxauth.requests, wxauth.readings] = [[], []]
  ;[wxauth.behaviour, wxauth.keys] = [identify(), PUBLISHED]
})

/** Returns a function that asks with one token, whose timer the test moves. */
function asking({ fetch = patient, orOffline = true, timer = () => clock } = {}) {
  const known = verificationKeys(wxauth.issuer.jwks.keys)
  const keys = { find: async (kid) => known.get(kid) ?? null }
  const guard = new BearerGuard({ issuer: wxauth.url, keys, fetch, orOffline, timer, warn() {} })
  const token = wxauth.issuer.token({ roles: ['clerk'] })
  return () => guard.current.verify(token).then(({ isCurrent }) => isCurrent, ({ code }) => code)
}

async function until(condition) {
  while (!condition()) await new Promise(setImmediate)
}

describe('an outage', () => {
  const away = { ...NO_RESPONSE, ...Object.fromEntries(AWAY_STATUSES.map((status) => [status, respond(status)])) }
  const others = Object.fromEntries(OTHER_STATUSES.map((status) => [status, respond(status, { Location: '/' })]))
  const there = { keys: PUBLISHED, ssh: raw('SSH-2.0\r\n\r\n'), ...others }
  for (const [name, question] of Object.entries(NO_RESPONSE)) {
    // The statuses of the keys are tried with one kind of question, because they don't depend on it.
    for (const [keysName, keys] of Object.entries(question === reset ? { ...away, ...there } : { ...NO_RESPONSE, keys: PUBLISHED })) {
      const expected = keysName in away ? ADMITTED : REFUSED
      test(`the question has no response (${name}), and the keys have ${keysName}`, async () => {
        ;[wxauth.behaviour, wxauth.keys] = [question, keys]
        // Even a busy machine has time to receive the keys.
        const fetch = (...asked) => (asked[0].includes('/v1/') || expected === ADMITTED ? impatient : patient)(...asked)
        let outcome
        for (let attempt = 0; attempt < 10 && !(outcome === expected && wxauth.readings.length); attempt++) {
          outcome = await asking({ fetch })() // until this process is in time on a busy machine
        }
        assert.equal(outcome, expected)
        assert.notEqual(wxauth.readings.length, 0)
      })
    }
  }

  for (const status of [...AWAY_STATUSES, ...OTHER_STATUSES]) {
    test(`a response with status ${status} decides without the keys`, async () => {
      wxauth.behaviour = respond(status)
      for (wxauth.keys of [PUBLISHED, reset]) {
        assert.equal(await asking()(), AWAY_STATUSES.includes(status) ? ADMITTED : REFUSED)
      }
      assert.equal(wxauth.readings.length, 0)
    })
  }

  test('is found once for all questions, without a token', async () => {
    ;[wxauth.behaviour, wxauth.keys] = [reset, respond(503)]
    const ask = asking()
    assert.deepEqual(await Promise.all(Array.from({ length: 10 }, ask)), Array(10).fill(ADMITTED))
    const [{ headers }, ...more] = wxauth.readings
    assert.deepEqual([headers.authorization, more], [undefined, []])
  })

  test('is not looked for without orOffline', async () => {
    wxauth.behaviour = reset
    assert.equal(await asking({ orOffline: false })(), REFUSED)
    assert.equal(wxauth.readings.length, 0)
  })

  test('admits without a question for one second', async () => {
    wxauth.behaviour = wxauth.keys = reset
    const ask = asking()
    assert.equal(await ask(), ADMITTED)
    wxauth.behaviour = refuse(401, 'invalid_token')
    const { length } = wxauth.requests
    clock = 1000
    assert.equal(await ask(), ADMITTED)
    assert.equal(wxauth.requests.length, length)
    clock = 1001
    assert.equal(await ask(), 'session_revoked')
  })

  test('is looked for once a second', async () => {
    wxauth.behaviour = reset
    const ask = asking()
    for (let times = 0; times < 3; times += 1) assert.equal(await ask(), REFUSED)
    wxauth.keys = respond(502)
    clock = 999
    assert.deepEqual([await ask(), wxauth.readings.length], [REFUSED, 1])
    clock = 1000
    assert.deepEqual([await ask(), wxauth.readings.length], [ADMITTED, 2])
  })
})

describe('this process', () => {
  test('asks 64 questions at once, lets 256 wait, and refuses the others', async () => {
    const held = []
    wxauth.behaviour = (request, response) => held.push([request, response])
    wxauth.keys = reset
    const ask = asking()
    const outcomes = Array.from({ length: MAX_ASKED + MAX_WAITING }, ask)
    await until(() => held.length === MAX_ASKED)
    assert.equal(await ask(), REFUSED)
    assert.equal(held.length, MAX_ASKED)
    clock = 501 // those that wait can no longer begin in time
    wxauth.behaviour = identify()
    for (const [request, response] of held) wxauth.behaviour(request, response)
    const all = await Promise.all(outcomes)
    const counts = [true, REFUSED].map((outcome) => all.filter((each) => each === outcome).length)
    assert.deepEqual(counts, [MAX_ASKED, MAX_WAITING])
    assert.equal(wxauth.requests.length, MAX_ASKED)
    assert.equal(await ask(), true)
  })

  test('gives a place to the next question in turn', async () => {
    const ask = asking()
    const number = MAX_ASKED + 20
    let outcomes = []
    // Until the places become free within half a second, which can take longer on a busy machine.
    for (let time = 0; time < 20 && !(outcomes.length && outcomes.every((outcome) => outcome === true)); time += 1) {
      outcomes = await Promise.all(Array.from({ length: number }, ask))
    }
    assert.deepEqual(outcomes, Array(number).fill(true))
  })

  test('asks nothing if the turn of the event loop comes too late', async () => {
    for (const [late, expected] of [[500, true], [501, REFUSED]]) {
      const times = [0, 0, late] // the last is that of the turn
      assert.equal(await asking({ timer: () => times.shift() ?? late })(), expected)
    }
    assert.equal(wxauth.requests.length, 1)
  })

  for (const [name, ofQuestion, ofKeys, expected] of [
    ['in time', 2400, 500, ADMITTED],
    ['late when the question ends', 2600, 0, REFUSED],
    ['late when the keys end', 0, 800, REFUSED],
  ]) {
    test(`is ${name}`, async () => {
      // Each request is repeated once, because the connection may have been idle.
      const late = (milliseconds) => (request) => {
        clock += milliseconds / 2
        reset(request)
      }
      ;[wxauth.behaviour, wxauth.keys] = [late(ofQuestion), late(ofKeys)]
      assert.equal(await asking()(), expected)
    })
  }

  for (const [name, lookup, expected] of [
    ['can resolve names', async () => ({}), ADMITTED],
    ['has no free file descriptor for resolving names', () => Promise.reject(new Error('EAI_AGAIN')), REFUSED],
    ['is busy resolving other names', async () => (clock += 600), REFUSED],
    ['never resolves a name', () => new Promise(() => {}), REFUSED],
  ]) {
    test(name, async (t) => {
      wxauth.behaviour = wxauth.keys = reset
      t.mock.method(dns.promises, 'lookup', lookup)
      assert.equal(await asking()(), expected)
    })
  }
})
