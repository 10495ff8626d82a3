// The guard for Fastify, as an `onRequest` hook, which runs before the body is read.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns a hook that checks a request's token, requires all of these roles, and sets `request.user`. */
function bearer(guard, ...roles) {
  const requiredRoles = rolesOf(roles)
  return async (request, reply) => {
    try {
      const user = await guard.user(request.raw, ...requiredRoles)
      request.user = user ?? request.user // an optional guard keeps the user of another login
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, request.raw)
      return reply.code(status).headers(headers).send(Buffer.from(body))
    }
  }
}

module.exports = { bearer }
