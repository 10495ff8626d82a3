import type { onRequestAsyncHookHandler } from 'fastify'
import type { BearerGuard, Principal } from './index.js'

declare module 'fastify' {
  interface FastifyRequest {
    user: Principal
  }
}

/** Lets through whose token is good and who has every one of these roles; `request.user` is the `Principal`. */
export function bearer(guard: BearerGuard, ...roles: string[]): onRequestAsyncHookHandler
