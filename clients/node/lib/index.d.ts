/** What a good access token says of its sender. Frozen, and so is all that is in it. */
export interface Principal {
  /** Who it is, the same in every app: key your data by this. A UUID, as is `sessionId`. */
  readonly id: string
  /** The mini-program that the person came by. */
  readonly appId: string
  /** Who the person is in that mini-program. */
  readonly openid: string
  readonly sessionId: string
  readonly roles: readonly string[]
  /** Who the person was in the system that they were imported from, or null. */
  readonly externalId: string | null
  /** What a website's login was granted; empty for a login in the mini-program. */
  readonly scope: readonly string[]
  /** All claims of the token. */
  readonly claims: Readonly<Record<string, unknown>>
}

export type RefusalCode =
  | 'invalid_request'
  | 'missing_token'
  | 'invalid_token'
  | 'token_expired'
  | 'insufficient_role'
  | 'keys_unavailable'

/** Why a request is not let through. `message` is for the developer. */
export class AuthError extends Error {
  constructor(code: RefusalCode, message: string, options?: { status?: number })
  readonly code: RefusalCode
  /** 400, 401, 403 or 503. */
  readonly status: number
  /** One short sentence for the person who waits. */
  readonly title: { readonly en: string; readonly zh: string }
  /** For `WWW-Authenticate` (RFC 6750), or null. */
  readonly challenge: string | null
  /** Seconds, or null. */
  readonly retryAfter: number | null
}

/** A request of Node's (Express, Koa's `req`, Fastify's `raw`) or of the Fetch standard. */
export type AnyRequest =
  | { headers: Record<string, string | string[] | undefined>; rawHeaders?: string[] }
  | { headers: { get(name: string): string | null } }

/** Where verification keys come from. */
export interface KeySource {
  find(kid: string): Promise<VerificationKey | null>
}

export interface VerificationKey {
  readonly kid: string
  readonly key: CryptoKey
}

export interface GuardOptions {
  /** The issuer's public URL, compared exactly with `iss`. https, or http on loopback. */
  issuer: string
  /**
   * Where the issuer's keys are read inside your own network, plain http allowed, such as `http://wxauth:8000`. The
   * metadata there must still name the public issuer.
   */
  internalUrl?: string
  /** What `aud` must name; `wxauth` unless given. */
  audience?: string
  /** Where keys come from; the issuer's own metadata, unless given. */
  keys?: KeySource
  /** Milliseconds since 1970; `Date.now` unless given. */
  now?: () => number
  /** How the issuer is read; the global `fetch` unless given. For a proxy, or a certificate of your own. */
  fetch?: typeof globalThis.fetch
  /** Milliseconds for reading metadata and keys; 5000 unless given. */
  timeout?: number
  /** Milliseconds on a clock that never jumps; `performance.now` unless given. */
  timer?: () => number
  /** Is told when the keys cannot be read; `console.warn` unless given. */
  warn?: (message: string) => void
}

/**
 * Tells whose access token it is. Checking is off-line: the issuer is asked for its public keys now and then, never
 * about a token. One guard serves a whole process.
 */
export class BearerGuard {
  /** Throws a TypeError for an issuer or audience that no token can be compared with. */
  constructor(options: GuardOptions)
  /** The user behind a token that came by itself. Rejects with an `AuthError`. */
  verify(token: string): Promise<Principal>
  /** The user behind a request, who must have every one of these roles. Rejects with an `AuthError`. */
  user(request: AnyRequest, ...roles: string[]): Promise<Principal>
}

/** The answer to a request that is refused: application/problem+json, in the language that its sender prefers. */
export function problem(
  refusal: AuthError,
  request: AnyRequest,
): { status: number; headers: Record<string, string>; body: string }
