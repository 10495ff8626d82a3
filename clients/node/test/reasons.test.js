// These tests check the guard's log of refusals. It contains both values, at most once a minute for each cause, and
// never the token.
import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import { BearerGuard } from 'wxauth-guard'
import { TestIssuer } from 'wxauth-guard/testing'
import { verificationKeys } from '../lib/keys.js'

const NOW = 1795161600 // seconds since 1970
let clockSeconds, warnings, issuer, guard

beforeEach(async () => {
  clockSeconds = NOW
  warnings = []
  const now = () => clockSeconds * 1000
  issuer = new TestIssuer({ audience: 'shop', now })
  const keys = verificationKeys(issuer.jwks.keys)
  const find = async (kid) => keys.get(kid) ?? null
  const warn = (message) => warnings.push(message.replace(/^A token was refused: /, ''))
  guard = new BearerGuard({ issuer: issuer.issuer, audience: 'shop', keys: { find }, now, warn })
})

const refuse = (token) => assert.rejects(guard.verify(token), { name: 'AuthError' })
const kidOf = ({ jwks }) => jwks.keys[0].kid

for (const [claims, reason] of [
  [{ aud: 'wxauth' }, "aud is 'wxauth', this guard expects 'shop'"],
  [{ aud: ['a', 'b'] }, "aud is ['a', 'b'], this guard expects 'shop'"],
  [{ aud: null }, "aud is missing, this guard expects 'shop'"],
  [{ iss: 'https://old.test' }, "iss is 'https://old.test', this guard expects 'https://auth.test'"],
  [{ exp: NOW - 3300 }, "expired 3,300 s ago by this machine's clock"],
  [{ iat: NOW + 3300 }, "iat is 3,300 s in the future by this machine's clock"],
  [{ nbf: NOW + 45 }, "nbf is 45 s in the future by this machine's clock"],
]) {
  test(`the log of a refusal because of ${JSON.stringify(claims)} contains both values`, async () => {
    await refuse(issuer.token({ claims }))
    assert.deepEqual(warnings, [reason])
  })
}

for (const [sent, detail] of [
  ['undefined', 'the client sent undefined in place of a token'],
  ['[object Object]', 'the client sent [object Object] in place of a token'],
  ["'NaN'", 'the client sent NaN in place of a token'],
  ['""', 'the client sent empty quotation marks in place of a token'],
  ['"{token}"', 'the client sent the token in quotation marks'],
  ['undefined.x', 'the token is not a JWS in compact form with an ES256 signature'],
]) {
  test(`the refusal of ${sent} says what is wrong`, async () => {
    const token = sent.replace('{token}', issuer.token())
    await assert.rejects(guard.verify(token), { code: 'invalid_token', message: detail })
  })
}

test('with a clock that returns no number, every token is refused', async () => {
  clockSeconds = NaN
  const token = issuer.token({ claims: { iat: NOW, exp: NOW + 900 } })
  await assert.rejects(guard.verify(token), { code: 'invalid_token', message: 'iat is in the future' })
})

test('the same cause is logged once a minute', async () => {
  for (const [later, lines] of [[0, 1], [59, 1], [60, 2], [119, 2], [-3600, 3]]) {
    clockSeconds = NOW + later
    for (let times = 0; times < 3; times += 1) await refuse(issuer.token({ claims: { aud: 'wxauth' } }))
    assert.equal(warnings.length, lines)
  }
  await refuse(issuer.token({ expiresIn: -45 }))
  assert.equal(warnings.at(-1), "expired 45 s ago by this machine's clock")
})

test('the log contains the id of another issuer’s key', async () => {
  const other = new TestIssuer()
  await refuse(other.token())
  assert.deepEqual(warnings, [`its kid is '${kidOf(other)}', which is no key of 'https://auth.test'`])
})

test('an unverified key id is escaped and shortened', async () => {
  const [header, ...rest] = issuer.token().split('.')
  const members = { ...JSON.parse(Buffer.from(header, 'base64url')), kid: `\n\x1b登${'x'.repeat(4000)}` }
  await refuse([Buffer.from(JSON.stringify(members)).toString('base64url'), ...rest].join('.'))
  assert.match(warnings[0], /^its kid is '\?\?\?x+, which is no key of/)
  assert.ok(warnings[0].length < 300)
})

test('claims are logged only if the signature fits, and malformed tokens are not logged', async () => {
  await refuse('not a token')
  assert.deepEqual(warnings, [])
  const [header, payload] = issuer.token({ claims: { aud: 'evil' } }).split('.')
  await refuse([header, payload, issuer.token().split('.')[2]].join('.'))
  assert.deepEqual(warnings, [`its signature does not fit the key '${kidOf(issuer)}' of 'https://auth.test'`])
})

test('nothing is logged about a valid token', async () => {
  await guard.verify(issuer.token())
  assert.deepEqual(warnings, [])
})

test('the guard logs to the console by default', async (context) => {
  const warn = context.mock.method(console, 'warn', () => {})
  await assert.rejects(issuer.guard().verify(issuer.token({ claims: { aud: 'wxauth' } })))
  assert.deepEqual(warn.mock.calls.map((call) => call.arguments), [
    ["A token was refused: aud is 'wxauth', this guard expects 'shop'"],
  ])
})
