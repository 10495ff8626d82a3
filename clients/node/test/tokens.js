// Prints what Node's guard says of each token, which is in base64. See tests/foreign/test_attacks.py.
import { createInterface } from 'node:readline'
import { BearerGuard } from 'wxauth-guard'

const [issuer] = process.argv.slice(2)
const guards = [false, true].map((websites) => new BearerGuard({ issuer, websites, warn() {} }))
for await (const line of createInterface({ input: process.stdin })) {
  const authorization = Buffer.from(line, 'base64').toString()
  const said = []
  for (const guard of guards) {
    try {
      const user = await guard.user({ headers: { authorization } })
      const { id, sessionId, appId, openid, externalId, roles, scope } = user
      said.push([id, sessionId, appId, openid, externalId, roles, scope])
    } catch (refusal) {
      said.push(refusal.code)
    }
  }
  console.log(JSON.stringify(said))
}
