// This program runs all services in the README, and prints their URLs. Its argument is {jwks, issuer, now} as JSON: the
// keys and the issuer whose tokens the services accept, and their time, in seconds since 1970. The program ends when
// its standard input ends.
import { BearerGuard } from 'wxauth-guard'
import { trust } from '../lib/guard.js'
import { verificationKeys } from '../lib/keys.js'
import { frameworks } from './readme.js'

const { jwks, issuer, now } = JSON.parse(process.argv[2])
const keys = verificationKeys(jwks.keys)
const trusted = new BearerGuard({ issuer, keys: { find: async (kid) => keys.get(kid) ?? null }, now: () => now * 1000 })

const urls = {}
for (const [name, start] of Object.entries(frameworks)) {
  const { guard, url } = await start(() => {})
  guard[trust](trusted)
  urls[name] = url
}
console.log(`listening on ${JSON.stringify(urls)}`)
process.stdin.resume().once('end', () => process.exit())
