// The guard for Hono, on Node and elsewhere.
import { rolesOf } from './guard.js'
import { problem } from './problems.js'
import { AuthError } from './refusals.js'

export function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (context, next) => {
    try {
      context.set('user', await guard.user(context.req.raw, ...demanded))
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, context.req.raw)
      return context.body(body, status, headers)
    }
    await next()
  }
}
