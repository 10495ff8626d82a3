/** The user behind a valid access token. Deeply frozen. */
export interface Principal {
  /** The user's id, a UUID that is the same in every app. Use it as the key of your data. */
  readonly id: string
  /** The id of the WeChat app to which the openid belongs. A website's token contains it, too. */
  readonly appId: string
  /**
   * The user's openid in that app. `appId` and `openid` are empty if a metadata document describes the client of the
   * token.
   */
  readonly openid: string
  readonly sessionId: string
  readonly roles: readonly string[]
  /** The user's id in the system from which they were imported, or null. */
  readonly externalId: string | null
  /** The scopes granted to a website or another client; empty for a login in a mini-program or mobile app. */
  readonly scope: readonly string[]
  /** All claims of the token. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Whether wxauth has confirmed the session and the roles. Null if the guard doesn't ask (`guard.current` asks). */
  readonly isCurrent: boolean | null
}

export type RefusalCode =
  | 'invalid_request'
  | 'missing_token'
  | 'invalid_token'
  | 'token_expired'
  | 'session_revoked'
  | 'insufficient_role'
  | 'insufficient_scope'
  | 'keys_unavailable'
  | 'verification_unavailable'

/** The reason for refusing a request. `message` is for the developer. */
export class AuthError extends Error {
  constructor(code: RefusalCode, message: string, options?: { status?: number })
  readonly code: RefusalCode
  /** The HTTP status of the response. A guard's errors have 400, 401, 403 or 503. */
  readonly status: number
  /** One short sentence for the user. */
  readonly title: { readonly en: string; readonly zh: string }
  /** The value for `WWW-Authenticate` (RFC 6750), or null. */
  readonly challenge: string | null
  /** The number of seconds for `Retry-After`, or null. */
  readonly retryAfter: number | null
}

/** A request of Node (Express, Koa's `req`, Fastify's `raw`) or of the Fetch standard. */
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
  /** The issuer's public URL. It must be equal to `iss`, and must be https, or http on loopback. */
  issuer: string
  /**
   * The issuer's URL inside your own network, at which the guard reads keys and asks wxauth, such as
   * `http://wxauth:8000`. Plain http is allowed. The metadata there must still name the public issuer.
   */
  internalUrl?: string
  /**
   * The required `aud`, by default `wxauth`. If it is a resource's URL, a 401 names the resource's metadata, and so
   * does a refusal for a missing scope.
   */
  audience?: string
  /** The required scopes. The token must contain all of them, and a 401 names them. */
  scopes?: string | readonly string[] | undefined
  /**
   * Whether to accept the tokens of the operator's own apps as well as those of websites and agents. `scopes`,
   * `requires` and `checkScopes` then bind only tokens that have a scope.
   */
  websites?: boolean | undefined
  /**
   * Whether `current` accepts a token by its signature while wxauth is away. The user's `isCurrent` is then false, and
   * a ban counts only when the token expires. A process that is too busy to ask in time refuses the token.
   */
  orOffline?: boolean | undefined
  /** The source of keys, by default the issuer's metadata. */
  keys?: KeySource
  /** Returns milliseconds since 1970. The default is `Date.now`. */
  now?: () => number
  /**
   * The function that reads from the issuer, and asks wxauth. The default is the global `fetch`. Set it to use a proxy or
   * your own CA. It must allow 65 connections, because a request that waits for one counts as unanswered.
   */
  fetch?: typeof globalThis.fetch
  /** The timeout in milliseconds for reading metadata and keys, by default 5000. */
  timeout?: number
  /** Returns milliseconds on a monotonic clock. The default is `performance.now`. */
  timer?: () => number
  /**
   * Receives a message when the keys cannot be read, when a token is refused, and when wxauth could not be asked, at most
   * once a minute for each cause. The default is `console.warn`.
   */
  warn?: (message: string) => void
}

/** A resource's metadata (RFC 9728), which says where clients get tokens, and which scopes they can request. */
export interface ResourceMetadata {
  resource: string
  authorization_servers: string[]
  scopes_supported?: string[]
  bearer_methods_supported: ['header']
  resource_name?: string
}

/**
 * Verifies access tokens offline. It fetches the issuer's public keys from time to time, and only `current` sends a
 * token to the issuer. One guard serves a whole process.
 *
 * By default, it accepts only the tokens of the operator's own apps. The tokens of websites and agents, which have the
 * claim `scope`, need `scopes`, `websites`, or the URL of a resource as the audience.
 */
export class BearerGuard {
  /**
   * Throws a TypeError for a malformed issuer, audience, scope or `internalUrl`, if `websites` or `orOffline` is not a
   * boolean, or if `keys` and `internalUrl` are given.
   */
  constructor(options: GuardOptions)
  /** Returns the user behind a token. Rejects with an `AuthError`, or with a TypeError if the token is not a string. */
  verify(token: string): Promise<Principal>
  /**
   * Returns the user behind a request, who must have all of these roles. Rejects with an `AuthError`, or with a
   * TypeError if a role is malformed.
   */
  user(request: AnyRequest, ...roles: string[]): Promise<Principal>
  /** Returns a guard that also requires these scopes, and shares everything else with this guard. */
  requires(scope: string, ...others: string[]): BearerGuard
  /**
   * A guard that also asks wxauth about each token, so that bans, sign-outs and roles count at once. Each request then
   * needs a response of wxauth within two seconds. It shares everything else with this guard. Throws a TypeError if the
   * issuer is not an https URL, or http on loopback.
   */
  readonly current: BearerGuard
  /**
   * Returns a guard for an app with public pages or other logins. The user is null if a request has no Bearer token and
   * no role is required. It shares everything else with this guard.
   */
  optional(): OptionalGuard
  /**
   * Throws an `AuthError` if the user's token lacks one of these scopes or of the guard's own. Call it in code that is
   * not a route, such as a tool of an MCP server.
   */
  checkScopes(user: Principal, ...scopes: string[]): void
  /**
   * Returns the resource's metadata. Throws a TypeError if the audience is not a resource's URL, or a scope is
   * malformed.
   */
  resourceMetadata(members?: { scopesSupported?: readonly string[]; resourceName?: string }): ResourceMetadata
  /** The path of the metadata on the audience's host. Throws a TypeError if the audience is not a resource's URL. */
  readonly resourceMetadataPath: string
}

export interface OptionalGuard extends Omit<BearerGuard, 'user' | 'requires' | 'current'> {
  user(request: AnyRequest): Promise<Principal | null>
  user(request: AnyRequest, role: string, ...roles: string[]): Promise<Principal>
  requires(scope: string, ...others: string[]): OptionalGuard
  readonly current: OptionalGuard
}

/**
 * Returns the response to a refused request, as application/problem+json, in the language that the request prefers.
 */
export function problem(
  refusal: AuthError,
  request: AnyRequest,
): { status: number; headers: Record<string, string>; body: string }
