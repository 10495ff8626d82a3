// auth.endedBy says why a session has ended, before onChange is called.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import * as copy from '../../../clients/miniprogram/wxauth.js?in-another-context'
import { APP_ID, ban, createAuth, endSession, loggedIn, OTHER_APP_ID, rejection, secondInstance, SERVICE_URL, start, startAgain } from './world.js'

const REFRESH = 'POST /v1/refresh'
const needRefresh = (phone) => (phone.time += 10 ** 9)
const read = (auth) => auth.request({ url: '/v1/me' })
const inAnotherContext = ({ phone, ...options }) =>
  copy.createAuth({ baseURL: SERVICE_URL, appId: APP_ID, platform: phone.wx, now: phone.now, ...options })

/** Log a phone in, and record what its listener hears and reads. */
async function listening(options) {
  const { auth, phone } = await loggedIn(options)
  const heard = hearing(auth)
  return { auth, phone, heard }
}

function hearing(auth) {
  const heard = []
  auth.onChange((user, endedBy) => heard.push([user && user.id, endedBy, auth.endedBy]))
  return heard
}

const answers = (code) => (auth, phone) => {
  needRefresh(phone)
  phone.next(REFRESH, fates.answers(code === 'session_revoked' ? 400 : 403, { code }))
  return read(auth).catch(() => {})
}

/** The ways in which a session ends, and the code. */
const ENDS = {
  'a logout': [(auth) => auth.logout(), 'signed_out'],
  'a logout without a network': [(auth, phone) => ((phone.isOnline = false), auth.logout().then(() => (phone.isOnline = true))), 'signed_out'],
  'a logout everywhere': [(auth) => auth.logout({ everywhere: true }), 'signed_out'],
  'an erasure': [(auth) => auth.deleteAccount(), 'signed_out'],
  'a ban': [async (auth, phone) => (await ban(auth.user), needRefresh(phone), read(auth).catch(() => {})), 'account_disabled'],
  'a ban of which a login hears': [async (auth) => (await ban(auth.user), rejection(auth.login({ force: true }), 'account_disabled')), 'account_disabled'],
  'an erasure that waits': [answers('account_leaving'), 'account_leaving'],
  'another device': [answers('session_replaced'), 'session_replaced'],
}

for (const [what, [end, code]] of Object.entries(ENDS))
  for (const silent of [true, false])
    test(`${what} with silent: ${silent} is ${code}, on other instances too, until the next login`, async () => {
      const { auth, phone, heard } = await listening({ silent })
      const others = [secondInstance({ phone, silent }), inAnotherContext({ phone, silent })]
      const all = [auth, ...others]
      const heardByOthers = others.map(hearing)
      assert.deepEqual(all.map((each) => each.endedBy), [null, null, null])
      await end(auth, phone)
      assert.deepEqual([heard, auth.user, auth.endedBy], [[[null, code, code]], null, code])
      for (const [i, other] of others.entries()) {
        assert.equal(other.endedBy, code)
        assert.deepEqual(heardByOthers[i], [[null, code, code]])
      }
      await auth.logout() // a guest's logout ends nothing
      assert.equal(auth.endedBy, code)
      phone.person = `${phone.person}x` // the first might be banned
      const { id } = await auth.login()
      assert.deepEqual(all.map((each) => each.endedBy), [null, null, null])
      assert.deepEqual([heard.at(-1), ...heardByOthers.map((each) => each.at(-1))], Array(3).fill([id, null, null]))
    })

test('a session that was ended elsewhere is told to guests, and is only there during the login where that is silent', async () => {
  const guest = await listening({ silent: false })
  await endSession(guest.auth)
  needRefresh(guest.phone)
  assert.equal((await read(guest.auth)).statusCode, 401)
  assert.deepEqual(guest.heard, [[null, 'session_revoked', 'session_revoked']])

  const { auth, phone, heard } = await listening()
  await endSession(auth)
  needRefresh(phone)
  const gate = phone.hold('login')
  const asked = read(auth)
  await gate.arrived
  assert.deepEqual([auth.endedBy, secondInstance({ phone }).endedBy], ['session_revoked', 'session_revoked'])
  gate.open()
  assert.equal((await asked).statusCode, 200)
  assert.deepEqual([auth.endedBy, heard], [null, []])
})

test('a refused refresh of an instance without guests is told to the guests of another', async () => {
  const { auth, phone } = await loggedIn()
  const guest = secondInstance({ phone, silent: false })
  const heard = hearing(guest)
  await endSession(auth)
  needRefresh(phone)
  phone.next('login', fates.notSent, fates.notSent)
  await rejection(read(auth), 'network_error')
  assert.deepEqual([guest.user, heard], [null, [[null, 'session_revoked', 'session_revoked']]])
})

for (const fate of [fates.notSent, fates.answerLost, fates.tooLate, fates.answers(429, {}), fates.answers(500, {}), fates.answers(503, '<html>')])
  test(`no network, a timeout and a ${fate.name || 'status'} never set it`, async () => {
    for (const silent of [true, false]) {
      const { auth, phone, heard } = await listening({ silent })
      needRefresh(phone)
      phone.next(REFRESH, fate, fate)
      await read(auth).catch(() => {})
      assert.deepEqual([auth.endedBy, heard, Boolean(auth.user)], [null, [], true])
    }
  })

test('who was never logged in has no session that could have ended', async () => {
  const { auth, phone } = start({ silent: false })
  const heard = hearing(auth)
  phone.next('POST /v1/login', fates.answers(403, { code: 'account_disabled' }))
  await rejection(auth.login(), 'account_disabled')
  await auth.logout()
  await rejection(auth.getToken(), 'login_required')
  assert.deepEqual([auth.endedBy, heard], [null, []])
})

test('after a restart, it is null', async () => {
  for (const [end, silent] of [[(auth) => auth.logout(), true], [(auth) => auth.logout(), false], [answers('account_disabled'), false]]) {
    const { auth, phone } = await loggedIn({ silent })
    await end(auth, phone)
    assert.equal(startAgain(phone, { silent }).endedBy, null)
  }
})

test('a logout is known to a copy of the client that knows only ids', async () => {
  const { auth, phone } = await loggedIn()
  const { era } = JSON.parse(phone.wx.getStorageSync('wxauth'))
  await auth.logout()
  assert.equal(phone.wx.getStorageSync('wxauth.ended'), era)
})

test('in a plugin, the login is for the appid of the plugin', async () => {
  for (const [account, sent] of [
    [{ miniProgram: { appId: APP_ID } }, APP_ID],
    [{ miniProgram: { appId: APP_ID }, plugin: { appId: OTHER_APP_ID, version: '1.0.0' } }, OTHER_APP_ID],
    [{ miniProgram: { appId: APP_ID }, plugin: { appId: '' } }, APP_ID],
    [{ miniProgram: { appId: APP_ID }, plugin: null }, APP_ID],
    [{ plugin: { appId: OTHER_APP_ID } }, OTHER_APP_ID],
    [{}, undefined],
  ]) {
    const { phone } = start()
    phone.appId = sent || APP_ID
    const platform = { ...phone.wx, getAccountInfoSync: () => account }
    const user = await createAuth({ baseURL: SERVICE_URL, platform, now: phone.now }).login()
    assert.deepEqual([user.app_id, phone.callsOf('POST /v1/login')[0].data.app_id], [sent || APP_ID, sent])
  }
})
