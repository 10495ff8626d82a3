// The guard for Hono, on Node and elsewhere.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, and requires all of these roles. */
function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (context, next) => {
    try {
      context.set('user', (await guard.user(context.req.raw, ...demanded)) ?? context.get('user'))
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, context.req.raw)
      return context.body(body, status, headers)
    }
    await next()
  }
}

module.exports = { bearer }
