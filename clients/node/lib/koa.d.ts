import type { Middleware } from 'koa'
import type { BearerGuard, Principal } from './index.js'

/** Lets through whose token is good and who has every one of these roles; `context.state.user` is the `Principal`. */
export function bearer(guard: BearerGuard, ...roles: string[]): Middleware<{ user: Principal }>
