// The guard for Hono, on Node and elsewhere.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, requires all of these roles, and sets the variable `user`. */
function bearer(guard, ...roles) {
  const requiredRoles = rolesOf(roles)
  return async (context, next) => {
    try {
      const user = await guard.user(context.req.raw, ...requiredRoles)
      context.set('user', user ?? context.get('user')) // an optional guard keeps the user of another login
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, context.req.raw)
      return context.body(body, status, headers)
    }
    await next()
  }
}

module.exports = { bearer }
