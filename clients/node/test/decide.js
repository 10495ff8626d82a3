// This program verifies tokens with the guard. It reads {jwks, issuer, now, tokens, websites} as JSON from its standard input,
// and writes a list with the user and the claims, or the code and the detail of the refusal, of each token. `now` is in
// seconds since 1970.
import { BearerGuard } from 'wxauth-guard'
import { verificationKeys } from '../lib/keys.js'

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const { jwks, issuer, now, tokens, websites } = JSON.parse(Buffer.concat(chunks))
const keys = verificationKeys(jwks.keys)
const find = async (kid) => keys.get(kid) ?? null
const guard = new BearerGuard({ issuer, websites, keys: { find }, now: () => now * 1000 })

const outcomes = []
for (const token of tokens) {
  try {
    const { claims, ...user } = await guard.verify(token)
    outcomes.push({ user, claims })
  } catch (refusal) {
    outcomes.push({ code: refusal.code, detail: refusal.message })
  }
}
process.stdout.write(JSON.stringify(outcomes))
