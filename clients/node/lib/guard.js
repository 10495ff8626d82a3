// The guard: finds the user behind a bearer token (RFC 6750).
import { RemoteKeys } from './keys.js'
import { AuthError, forLog } from './refusals.js'
import { authorizations } from './problems.js'
import { Verifier } from './verifier.js'

/** For `TestIssuer`: `guard[trust](other)` makes the guard trust as `other` does. Returns a function that undoes it. */
export const trust = Symbol('trust')

const PAUSE = 60 // seconds between two lines of the log about the same cause

export class BearerGuard {
  #verifier
  #now
  #warn
  #toldAt = new Map() // by cause: the few fixed messages of the verifier

  constructor({ issuer, audience = 'wxauth', keys, now = () => Date.now(), ...remote } = {}) {
    if (keys && remote.internalUrl) throw new TypeError('internalUrl is where keys are read: with keys it must be left out')
    this.#verifier = new Verifier({ issuer, audience, keys: keys ?? new RemoteKeys(issuer, remote) })
    this.#now = now
    this.#warn = remote.warn ?? ((message) => console.warn(message))
  }

  async verify(token) {
    const now = this.#now() / 1000
    try {
      return await this.#verifier.verify(token, now)
    } catch (refusal) {
      this.#tell(refusal, now)
      throw refusal
    }
  }

  /** Tells the log what the answer does not: the token's value, and the one that is expected. Not of malformed tokens. */
  #tell(refusal, now) {
    const toldAt = this.#toldAt.get(refusal.message) ?? -Infinity
    if (!refusal[forLog] || Math.abs(now - toldAt) < PAUSE) return // absolute: the clock may be set back
    this.#toldAt.set(refusal.message, now)
    this.#warn(`A token was refused: ${refusal[forLog]}`)
  }

  async user(request, ...roles) {
    const demanded = rolesOf(roles)
    const user = await this.verify(bearerToken(request))
    if (!demanded.every((role) => user.roles.includes(role))) {
      throw new AuthError('insufficient_role', `this needs the role ${demanded.sort().join(', ')}`)
    }
    return user
  }

  [trust](other) {
    const [verifier, now] = [this.#verifier, this.#now]
    this.#verifier = other.#verifier
    this.#now = other.#now
    return () => {
      this.#verifier = verifier
      this.#now = now
    }
  }
}

/** The roles given to middleware. Anything but names throws, because such a mistake must not admit everybody. */
export function rolesOf(roles) {
  const names = [...new Set(roles.flat())]
  if (!names.every((name) => typeof name === 'string' && name)) throw new TypeError('a role is a string, and not empty')
  if (roles.some((given) => given.length === 0)) throw new TypeError('a list of roles is not empty')
  return names
}

function bearerToken(request) {
  const values = authorizations(request)
  if (values.length > 1) throw new AuthError('invalid_request', 'there are two Authorization headers', { status: 400 })
  const [scheme, ...rest] = (values[0] ?? '').split(' ')
  const token = withoutSpaces(rest.join(' '))
  if (scheme.toLowerCase() !== 'bearer' || !token) {
    throw new AuthError('missing_token', "send the access token as 'Authorization: Bearer ...'")
  }
  return token
}

/** Unlike `trim`, removes only spaces: other characters would give one token two spellings. */
function withoutSpaces(text) {
  let [start, end] = [0, text.length]
  while (text[start] === ' ') start += 1
  while (end > start && text[end - 1] === ' ') end -= 1
  return text.slice(start, end)
}
