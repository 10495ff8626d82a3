// What a developer must correct is in the console once, and users read a sentence for users.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fates } from '../../../examples/phone/phone.mjs'
import { createAuth, loggedIn, rejection, start } from './world.js'

let n = 0
/** Return an origin that no test has warned about. */
const newOrigin = () => `https://shop${(n += 1)}.example.com`

function warningsOf(t) {
  const warnings = []
  t.mock.method(console, 'warn', (text) => warnings.push(text))
  return warnings
}

const MISTAKES = {
  origin_not_allowed: (auth, phone, origin) => auth.request({ url: `${origin}/orders?key=secret#part` }),
  domain_not_allowed: (auth, phone, origin) => {
    phone.next('GET /v1/me', fates.fails(`fail url not in domain list:${origin}/orders?key=secret`))
    return auth.request({ url: '/v1/me' })
  },
  'domain_not_allowed of an upload': (auth, phone, origin) => {
    phone.next('UPLOAD /v1/me/avatar', fates.fails(`fail url not in domain list ${origin}`))
    return auth.setAvatar('f')
  },
  invalid_argument: (auth, phone, origin) => auth.revokeSession({ origin }),
}
for (const [what, call] of Object.entries(MISTAKES))
  test(`${what} is said once in the console, with what to do`, async (t) => {
    const { auth, phone } = await loggedIn()
    const warnings = warningsOf(t)
    const [code] = what.split(' ')
    const origin = newOrigin()
    for (let times = 0; times < 3; times += 1) assert.match((await rejection(call(auth, phone, origin), code)).title, /[一-鿿]/)
    const [text, ...more] = warnings
    assert.deepEqual(more, [])
    assert.match(text, new RegExp(`^wxauth: ${code}: .*\\. (Add|Correct) `))
    if (code !== 'invalid_argument') assert.ok(text.includes(origin), text)
    assert.doesNotMatch(text, /secret|eyJ|wxr_/)
  })

test('two pages of one origin are one warning, and two origins are two', async (t) => {
  const { auth } = await loggedIn()
  const warnings = warningsOf(t)
  const [one, other] = [newOrigin(), newOrigin()]
  for (const url of [`${one}/a`, `${one}/b?c`, `${other}/a`]) await rejection(auth.request({ url }), 'origin_not_allowed')
  assert.equal(warnings.length, 2)
})

test('an address for createAuth that is wrong is in the console, too, without its password', (t) => {
  const warnings = warningsOf(t)
  assert.throws(() => createAuth({ baseURL: 'https://me:secret@auth.example.com' }), { code: 'invalid_argument' })
  assert.match(warnings[0], /createAuth/)
  assert.doesNotMatch(warnings[0], /secret/)
})

test('what users cause or can wait for is not in the console', async (t) => {
  const { auth, phone } = await loggedIn({ silent: false })
  const warnings = warningsOf(t)
  phone.next('GET /v1/me', fates.notSent, fates.tooLate)
  for (const code of ['network_error', 'timeout']) await rejection(auth.request({ url: '/v1/me' }), code)
  await rejection(auth.setAvatar({ detail: { errMsg: 'chooseAvatar:fail cancel' } }), 'aborted')
  await rejection(auth.bindPhone({ detail: { errMsg: 'getPhoneNumber:fail user deny' } }), 'phone_refused')
  await auth.logout()
  await rejection(auth.getToken(), 'login_required')
  assert.deepEqual(warnings, [])
})

test('however many mistakes there are, the console has fifty at most, and without a console nothing else changes', async (t) => {
  const { auth } = start()
  const warnings = warningsOf(t)
  for (let times = 0; times < 60; times += 1) await rejection(auth.request({ url: newOrigin() }), 'origin_not_allowed')
  assert.ok(warnings.length <= 50)
  t.mock.method(console, 'warn', () => {
    throw new Error('no console')
  })
  await rejection(auth.revokeSession(n), 'invalid_argument')
})

for (const [fate, code, why] of [
  [fates.notSent, 'network_error', 'net::ERR_INTERNET_DISCONNECTED'],
  [fates.tooLate, 'timeout', 'timeout'],
  [fates.fails('fail invalid url "https://shop.example.com/orders?key=secret"'), 'invalid_argument', 'invalid url'],
  [fates.throws(undefined), 'network_error', 'no response'],
])
  test(`${code} names the address without its query: ${why}`, async () => {
    const { auth, phone } = await loggedIn({ origins: ['https://shop.example.com'] })
    phone.next('GET /orders', fate)
    const url = 'https://shop.example.com/orders?key=secret#part'
    const { message } = await rejection(auth.request({ url: fate === fates.tooLate ? '/orders?key=secret' : url }), code)
    assert.ok(message.includes(why), message)
    assert.match(message, /\(https?:\/\/[\w.:]+\/orders\)/)
    assert.doesNotMatch(message, /secret/)
  })

test('the address of wxauth itself is named, too', async () => {
  const { auth, phone } = start()
  phone.next('POST /v1/login', fates.notSent, fates.notSent)
  assert.match((await rejection(auth.login(), 'network_error')).message, /\(http:.*\/v1\/login\)/)
})
