import type { BearerGuard } from './index.js'

/** The default of `userId`. */
export const USER_ID: string

export interface TokenFields {
  /** A UUID, as is `sessionId`. */
  userId?: string
  /** Absent from the token if there are none. */
  roles?: readonly string[]
  appId?: string
  /** By default, openid and session are derived from user and app. */
  openid?: string
  sessionId?: string
  /** Seconds. Guards allow 30 s of clock skew: -31 has expired, -29 has not. */
  expiresIn?: number
  /** The scopes granted to a website or an agent, each or all of them separated by spaces. */
  scope?: string | readonly string[]
  /** The website, or the URL of a client's metadata document, whose tokens have neither app nor openid. By default the app. */
  client_id?: string
  /** Additional or replaced claims. A claim that is null is omitted. */
  claims?: Readonly<Record<string, unknown>>
}

/** Issues access tokens as wxauth does, with a key of its own. No network, no waiting. */
export class TestIssuer {
  /** Defaults: `issuer` https://auth.test, `audience` wxauth, `appId` wxtest. `now` returns milliseconds since 1970. */
  constructor(options?: { issuer?: string; audience?: string; appId?: string; now?: () => number })
  readonly issuer: string
  readonly audience: string
  readonly appId: string
  token(fields?: TokenFields): string
  /** The header with a token. */
  headers(fields?: TokenFields): { authorization: string }
  /** A guard that accepts these tokens. */
  guard(options?: { scopes?: string | readonly string[] }): BearerGuard
  /** Makes a guard, and those made by its `requires`, accept these tokens and no others. Returns a function that undoes this. */
  trustedBy(guard: BearerGuard): () => void
  /** The public key as a JWK set, for other verifiers. */
  readonly jwks: { keys: Record<string, string>[] }
  /** The metadata with the URL of the JWK set (RFC 8414). */
  readonly metadata: { issuer: string; jwks_uri: string }
}
