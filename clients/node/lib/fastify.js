// The guard for Fastify, as an `onRequest` hook: before the body is read.
import { rolesOf } from './guard.js'
import { problem } from './problems.js'
import { AuthError } from './refusals.js'

export function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (request, reply) => {
    try {
      request.user = await guard.user(request.raw, ...demanded)
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, request.raw)
      return reply.code(status).headers(headers).send(Buffer.from(body))
    }
  }
}
