import type { MiddlewareHandler } from 'hono'
import type { BearerGuard, Principal } from './index.js'

/** Lets through whose token is good and who has every one of these roles; `context.get('user')` is the `Principal`. */
export function bearer(guard: BearerGuard, ...roles: string[]): MiddlewareHandler<{ Variables: { user: Principal } }>
