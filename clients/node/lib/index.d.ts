/** The user behind a valid access token. Deeply frozen. */
export interface Principal {
  /** The user's id, a UUID, the same in every app: use it as the key of your data. */
  readonly id: string
  /** The mini-program of the login. */
  readonly appId: string
  /** The user's openid in that mini-program. Both are empty in the token of a client by its metadata document. */
  readonly openid: string
  readonly sessionId: string
  readonly roles: readonly string[]
  /** The user's id in the system from which they were imported, or null. */
  readonly externalId: string | null
  /** The scopes granted to a website or another client; empty for a login in the mini-program. */
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
  | 'insufficient_scope'
  | 'keys_unavailable'

/** The reason for refusing a request. `message` is for the developer. */
export class AuthError extends Error {
  constructor(code: RefusalCode, message: string, options?: { status?: number })
  readonly code: RefusalCode
  /** 400, 401, 403 or 503. */
  readonly status: number
  /** One short sentence for the person. */
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

/** A source of verification keys. */
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
   * The issuer's URL inside your own network, from which keys are read, such as `http://wxauth:8000`. Plain http is
   * allowed. The metadata there must still name the public issuer.
   */
  internalUrl?: string
  /** The required `aud`. By default `wxauth`. If it is a resource's URL, a 401 names the resource's metadata. */
  audience?: string
  /** The token must have been granted every one of these. */
  scopes?: string | readonly string[] | undefined
  /** The source of keys. By default the issuer's metadata. */
  keys?: KeySource
  /** Returns milliseconds since 1970. By default `Date.now`. */
  now?: () => number
  /** Reads from the issuer, for a proxy or a certificate of your own. By default the global `fetch`. */
  fetch?: typeof globalThis.fetch
  /** Milliseconds for reading metadata and keys. By default 5000. */
  timeout?: number
  /** Returns milliseconds on a monotonic clock. By default `performance.now`. */
  timer?: () => number
  /** Called when the keys cannot be read, and with why a token is refused, once per cause and minute. By default `console.warn`. */
  warn?: (message: string) => void
}

/** A resource's metadata (RFC 9728): where clients get tokens, and which scopes they can ask for. */
export interface ResourceMetadata {
  resource: string
  authorization_servers: string[]
  scopes_supported?: string[]
  bearer_methods_supported: ['header']
  resource_name?: string
}

/**
 * Verifies access tokens offline: only the issuer's public keys are fetched, now and then. One guard serves a whole
 * process.
 */
export class BearerGuard {
  /** Throws a TypeError for a malformed issuer, audience or scope. */
  constructor(options: GuardOptions)
  /** The user behind a token. Rejects with an `AuthError`. */
  verify(token: string): Promise<Principal>
  /** The user behind a request, who must have all of these roles. Rejects with an `AuthError`. */
  user(request: AnyRequest, ...roles: string[]): Promise<Principal>
  /** A guard that needs these scopes too. It shares everything else with this one. */
  requires(scope: string, ...others: string[]): BearerGuard
  /**
   * A guard for an app with open pages or logins of its own: the user is null if a request has no Bearer token and no
   * role is demanded. It shares everything else with this one.
   */
  optional(): OptionalGuard
  /** Throws an `AuthError` if a scope is missing, for what is no route of its own, such as a tool of MCP. */
  checkScopes(user: Principal, ...scopes: string[]): void
  /** Throws a TypeError if the audience is no URL. */
  resourceMetadata(told?: { scopesSupported?: readonly string[]; resourceName?: string }): ResourceMetadata
  /** Where the metadata is, on the audience's host. Throws a TypeError if that is no URL. */
  readonly resourceMetadataPath: string
}

export interface OptionalGuard extends Omit<BearerGuard, 'user' | 'requires'> {
  user(request: AnyRequest): Promise<Principal | null>
  user(request: AnyRequest, role: string, ...roles: string[]): Promise<Principal>
  requires(scope: string, ...others: string[]): OptionalGuard
}

/** The answer to a refused request: application/problem+json, in the language that the request prefers. */
export function problem(
  refusal: AuthError,
  request: AnyRequest,
): { status: number; headers: Record<string, string>; body: string }
