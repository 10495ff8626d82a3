import type { MiddlewareHandler } from 'hono'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

/** Admits requests with a valid token and all of these roles. `context.get('user')` is the `Principal`. */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): MiddlewareHandler<{ Variables: { user: Principal } }>
