// This program checks each line of tests/foreign/key_documents.py with the guard, and prints the statuses.
import { createInterface } from 'node:readline'
import { BearerGuard } from 'wxauth-guard'

for await (const line of createInterface({ input: process.stdin })) {
  const [issuer, token, stranger] = line.split(' ')
  const guard = new BearerGuard({ issuer, warn() {} })
  const status = (given) => guard.verify(given).then(() => 200, (refusal) => refusal.status)
  const first = await status(token)
  if (!issuer.endsWith('/hanging')) {
    console.log(first, await status(stranger), await status(token))
    continue
  }
  for (let number = 0; number < 32; number += 1) status(stranger)
  const user = await status(token)
  console.log(first, user, await (await fetch(`${issuer}/answered`)).text())
  process.exit()
}
