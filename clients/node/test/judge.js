// This program tells tests/foreign/test_key_documents.py how the guard treats the keys of an issuer. Each line of its
// standard input contains an issuer, a valid token, and a stranger's token, which names an unknown key. For each line,
// the program prints the status (200 if the guard accepts the token) of the valid token, the stranger's, and the valid
// one again. In between, the issuer might publish unusable keys.
import { createInterface } from 'node:readline'
import { BearerGuard } from 'wxauth-guard'

for await (const line of createInterface({ input: process.stdin })) {
  const [issuer, token, stranger] = line.split(' ')
  const guard = new BearerGuard({ issuer, warn() {} })
  const statusOf = (sentToken) => guard.verify(sentToken).then(() => 200, (refusal) => refusal.status)
  const first = await statusOf(token)
  if (!issuer.endsWith('/hanging')) {
    console.log(first, await statusOf(stranger), await statusOf(token))
    continue
  }
  // After its first response, this issuer does not respond while the strangers' tokens wait for its keys. A user must
  // not wait. The issuer then tells whether the guard still waits.
  const strangers = Array.from({ length: 300 }, () => statusOf(stranger))
  const second = await statusOf(token)
  const isWaitedFor = await (await fetch(`${issuer}/answered`)).text()
  console.log(first, second, isWaitedFor, `[${[...new Set(await Promise.all(strangers))]}]`)
  process.exit()
}
