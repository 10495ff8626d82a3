// The guard for Koa.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, requires all of these roles, and sets `context.state.user`. */
function bearer(guard, ...roles) {
  const requiredRoles = rolesOf(roles)
  return async (context, next) => {
    try {
      const user = await guard.user(context.req, ...requiredRoles)
      context.state.user = user ?? context.state.user // an optional guard keeps the user of another login
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { status, headers, body } = problem(error, context.req)
      context.status = status
      context.set(headers)
      context.body = Buffer.from(body)
      return
    }
    await next()
  }
}

module.exports = { bearer }
