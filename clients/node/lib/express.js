// The guard for Express 4 and 5, Connect, and anything else that accepts (request, response, next).
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns middleware that checks a request's token, requires all of these roles, and sets `request.user`. */
function bearer(guard, ...roles) {
  const requiredRoles = rolesOf(roles)
  return async (request, response, next) => {
    try {
      const user = await guard.user(request, ...requiredRoles)
      request.user = user ?? request.user // an optional guard keeps the user of another login
    } catch (error) {
      if (!(error instanceof AuthError)) return next(error)
      const { status, headers, body } = problem(error, request)
      return response.writeHead(status, headers).end(body)
    }
    next()
  }
}

module.exports = { bearer }
