import type { BearerGuard } from './index.js'

/** Whose a token is that was asked for without `userId`. */
export const USER_ID: string

export interface TokenFields {
  /** A UUID, as is `sessionId`. */
  userId?: string
  /** Absent from the token where there are none. */
  roles?: readonly string[]
  appId?: string
  /** Openid and session follow from user and app where they are not given. */
  openid?: string
  sessionId?: string
  /** Seconds. Guards allow 30 s of clock skew: -31 has expired, -29 has not. */
  expiresIn?: number
  /** What the token says instead, or besides; a claim that is null is left out. */
  claims?: Readonly<Record<string, unknown>>
}

/** Issues access tokens as wxauth does, with a key of its own. No network, no waiting. */
export class TestIssuer {
  /** `issuer` is https://auth.test, `audience` wxauth, `appId` wxtest unless given; `now` in milliseconds since 1970. */
  constructor(options?: { issuer?: string; audience?: string; appId?: string; now?: () => number })
  readonly issuer: string
  readonly audience: string
  readonly appId: string
  token(fields?: TokenFields): string
  /** The header that carries a token. */
  headers(fields?: TokenFields): { authorization: string }
  /** A guard that accepts these tokens. */
  guard(): BearerGuard
  /** Makes this very guard accept these tokens and no others, wherever it stands. Gives the way back. */
  trustedBy(guard: BearerGuard): () => void
  /** The public key as a JWK set, for what checks tokens by other means. */
  readonly jwks: { keys: Record<string, string>[] }
  /** What finds the JWK set (RFC 8414). */
  readonly metadata: { issuer: string; jwks_uri: string }
}
