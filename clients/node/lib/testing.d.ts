import type { BearerGuard } from './index.js'

/** The user's id, by default. */
export const USER_ID: string

export interface TokenFields {
  /** The user's id. `userId` and `sessionId` are UUIDs. */
  userId?: string
  /** The user's roles. If there are none, the token has no such claim. */
  roles?: readonly string[]
  appId?: string
  /** The openid. By default, the openid and the session are derived from the user and the app. */
  openid?: string
  sessionId?: string
  /** The lifetime in seconds. Guards allow 30 s of clock skew, so -31 has expired and -29 has not. */
  expiresIn?: number
  /** The scopes granted to a website or an agent, as a list or separated by spaces. */
  scope?: string | readonly string[]
  /**
   * The website's client id, or the URL of a client's metadata document. With such a URL, the token has no appId,
   * openid or roles, and setting one of them throws a TypeError. By default, it is the app.
   */
  client_id?: string
  /** Claims to add or replace. A claim that is null is omitted. */
  claims?: Readonly<Record<string, unknown>>
}

/** Issues access tokens like wxauth, with its own key. Tests need no network and no waiting. */
export class TestIssuer {
  /**
   * Makes an issuer. The defaults are `issuer` https://auth.test, `audience` wxauth, and `appId` wxtest. `now` returns
   * milliseconds since 1970.
   */
  constructor(options?: { issuer?: string; audience?: string; appId?: string; now?: () => number })
  readonly issuer: string
  readonly audience: string
  readonly appId: string
  token(fields?: TokenFields): string
  /** Returns the `authorization` header with a token. */
  headers(fields?: TokenFields): { authorization: string }
  /** Returns a guard that accepts these tokens. */
  guard(options?: { scopes?: string | readonly string[] }): BearerGuard
  /**
   * Makes a guard, and the guards made by its `requires`, accept these tokens and no others. Returns a function that
   * undoes this.
   */
  trustedBy(guard: BearerGuard): () => void
  /** The public key as a JWK set, for other verifiers. */
  readonly jwks: { keys: Record<string, string>[] }
  /** The metadata with the URL of the JWK set (RFC 8414). */
  readonly metadata: { issuer: string; jwks_uri: string }
}
