import type { onRequestAsyncHookHandler } from 'fastify'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

declare module 'fastify' {
  interface FastifyRequest {
    user: Principal
  }
}

/**
 * Returns a hook that admits requests with a valid token, whose user has all of these roles. `request.user` is the
 * `Principal`. With an optional guard and no roles, requests without a Bearer token pass, too, and `request.user` stays
 * unchanged.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): onRequestAsyncHookHandler
