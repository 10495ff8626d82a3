// This program verifies tokens with the guard. It reads {jwks, issuer, now, tokens} as JSON, and writes a list of the
// results.
import { BearerGuard } from 'wxauth-guard'
import { verificationKeys } from '../lib/keys.js'

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const { jwks, issuer, now, tokens } = JSON.parse(Buffer.concat(chunks))
const keys = await verificationKeys(jwks.keys)
const guard = new BearerGuard({ issuer, keys: { find: async (kid) => keys.get(kid) ?? null }, now: () => now * 1000 })

const outcomes = []
for (const token of tokens) {
  try {
    const { claims, ...user } = await guard.verify(token)
    outcomes.push({ user, claims })
  } catch ({ code, message }) {
    outcomes.push({ code, detail: message })
  }
}
process.stdout.write(JSON.stringify(outcomes))
