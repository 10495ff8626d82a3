// The guard for Fastify, as an `onRequest` hook, which runs before the body is read.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns a hook that checks a request's token, and requires all of these roles. */
function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (request, reply) => {
    try {
      request.user = (await guard.user(request.raw, ...demanded)) ?? request.user
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, request.raw)
      return reply.code(status).headers(headers).send(Buffer.from(body))
    }
  }
}

module.exports = { bearer }
