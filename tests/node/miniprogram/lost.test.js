import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { LIFE, pass, passAtService, rejection, start, withoutWaiting } from './world.js'

const REFRESH = 'POST /v1/refresh'
const me = (auth) => auth.request({ url: '/v1/me' })
/** The seconds until the user taps again after "please try again". */
const SECOND_THOUGHTS = 20

test('answers to a refresh that are lost without a sign end no session, by the clock of the service', async (t) => {
  const { auth, phone } = start()
  await auth.login()
  await pass(phone, LIFE)
  const { expire } = withoutWaiting(t)
  phone.next(REFRESH, fates.doneInSilence, fates.doneInSilence)
  const failed = rejection(me(auth), 'timeout')
  for (const n of [1, 2]) {
    while (phone.count(REFRESH) < n) await new Promise(setImmediate)
    await passAtService((await expire()) / 1000)
  }
  await failed
  t.mock.restoreAll()
  await passAtService(SECOND_THOUGHTS)
  assert.equal((await me(auth)).statusCode, 200)
  assert.equal(new Set(phone.callsOf(REFRESH).map((call) => call.data.refresh_token)).size, 1)
  assert.deepEqual([phone.count(REFRESH), phone.count('login')], [3, 1])
})
