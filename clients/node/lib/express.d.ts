import type { RequestHandler } from 'express'
import type { BearerGuard, Principal } from './index.js'

declare global {
  namespace Express {
    interface User extends Principal {}
    interface Request {
      user?: User
    }
  }
}

/** Lets through whose token is good and who has every one of these roles; `request.user` is the `Principal`. */
export function bearer(guard: BearerGuard, ...roles: string[]): RequestHandler
