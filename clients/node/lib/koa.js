// The guard for Koa.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, and requires all of these roles. */
function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (context, next) => {
    try {
      context.state.user = (await guard.user(context.req, ...demanded)) ?? context.state.user
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
