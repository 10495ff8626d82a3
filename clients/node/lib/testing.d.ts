import type { BearerGuard, GuardOptions } from './index.js'

/** The id of the default user of a token. */
export const USER_ID: string

export interface TokenFields {
  /** The user's id, a UUID. */
  userId?: string
  /** The user's roles. If there are none, the token has no such claim. */
  roles?: readonly string[]
  /** The mini-program, by default the issuer's `appId`. */
  appId?: string
  /** The user's openid in the mini-program. By default, it is derived from the user and the mini-program. */
  openid?: string
  /** The session's id, a UUID. By default, it is derived from the user and the mini-program. */
  sessionId?: string
  /**
   * The seconds until the token expires, by default 900. Guards allow 30 s of clock skew, so they refuse a token with
   * -31, and accept a token with -29.
   */
  expiresIn?: number
  /**
   * The scopes granted to a website or an agent, as a list or separated by spaces. With a scope, the token has the
   * claims of a website's token, even without `client_id`.
   */
  scope?: string | readonly string[]
  /**
   * The name of a website, or the URL of a client's metadata document. With such a URL, the token has neither an appId
   * nor an openid nor roles. By default, the token is from a login in the mini-program.
   */
  client_id?: string
  /** Claims to add or replace. A claim that is null is omitted. */
  claims?: Readonly<Record<string, unknown>>
}

/** Issues access tokens like wxauth, with its own key. Tests need no network and no waiting. */
export class TestIssuer {
  /**
   * Makes an issuer. `issuer` is the `iss` of the tokens, by default https://auth.test, to which no request is sent.
   * `audience` is their `aud`, by default wxauth. `appId` is their default mini-program, by default wxtest. `now`
   * returns milliseconds since 1970, and its default is `Date.now`.
   */
  constructor(options?: { issuer?: string; audience?: string; appId?: string; now?: () => number })
  readonly issuer: string
  readonly audience: string
  readonly appId: string
  /**
   * Returns an access token. Throws a TypeError if `userId` or `sessionId` is not a UUID, or if `roles`, `appId` or
   * `openid` is given for a client with a metadata document.
   */
  token(fields?: TokenFields): string
  /** Returns the `authorization` header with a token. */
  headers(fields?: TokenFields): { authorization: string }
  /** Let `guard.current` refuse the user's tokens, as after a ban. */
  ban(userId: string): void
  /** Let `guard.current` refuse the tokens of this session (their claim `sid`), as after a logout. */
  endSession(sessionId: string): void
  /** Set the roles that `guard.current` finds, whatever the user's tokens say. By default, these are the roles. */
  setRoles(userId: string, roles: string | readonly string[]): void
  /** Let `guard.current` behave as while wxauth is unreachable. Returns the function that ends this. */
  unreachable(): () => void
  /** Forget all bans, ended sessions and roles. */
  forget(): void
  /** Returns a guard that accepts these tokens. */
  guard(options?: Pick<GuardOptions, 'scopes' | 'websites' | 'orOffline'>): BearerGuard
  /**
   * Makes a guard, and the guards made by it, accept these tokens and no others. Returns a function that undoes this, and
   * also forgets all bans, ended sessions and roles.
   */
  trustedBy(guard: BearerGuard): () => void
  /** The public key as a JWK set, for other verifiers. */
  readonly jwks: { keys: Record<string, string>[] }
  /** The issuer's metadata (RFC 8414), with the URL of the JWK set. */
  readonly metadata: { issuer: string; jwks_uri: string }
}
