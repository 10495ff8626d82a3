import type { RequestHandler } from 'express'
import type { BearerGuard, OptionalGuard, Principal } from './index.js'

declare global {
  namespace Express {
    interface User extends Principal {}
    interface Request {
      user?: User
    }
  }
}

/** Admits requests with a valid token and all of these roles. `request.user` is the `Principal`. */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): RequestHandler
