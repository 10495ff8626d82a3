import type { onRequestAsyncHookHandler } from 'fastify'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

declare module 'fastify' {
  interface FastifyRequest {
    user: Principal
  }
}

/** Admits requests with a valid token and all of these roles. `request.user` is the `Principal`. */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): onRequestAsyncHookHandler
