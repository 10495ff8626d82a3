import type { MiddlewareHandler } from 'hono'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

/**
 * Returns middleware that admits requests with a valid token, whose user has all of these roles. `context.get('user')`
 * is the `Principal`. With an optional guard and no roles, requests without a Bearer token pass, too, and
 * `context.get('user')` stays unchanged.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): MiddlewareHandler<{ Variables: { user: Principal } }>
