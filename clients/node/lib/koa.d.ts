import type { Middleware } from 'koa'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

/**
 * Returns middleware that admits requests with a valid token, whose user has all of these roles. `context.state.user`
 * is the `Principal`. With an optional guard and no roles, requests without a Bearer token pass, too, and
 * `context.state.user` stays unchanged.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): Middleware<{ user: Principal }>
