import type { Middleware } from 'koa'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

/** Admits requests with a valid token and all of these roles. `context.state.user` is the `Principal`. */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): Middleware<{ user: Principal }>
