// The guard for Express 4 and 5, Connect, and anything else that accepts (request, response, next).
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, and requires all of these roles. */
function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return async (request, response, next) => {
    try {
      request.user = (await guard.user(request, ...demanded)) ?? request.user
    } catch (error) {
      if (!(error instanceof AuthError)) return next(error)
      const { status, headers, body } = problem(error, request)
      return response.writeHead(status, headers).end(body)
    }
    next()
  }
}

module.exports = { bearer }
