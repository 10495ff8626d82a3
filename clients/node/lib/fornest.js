// The guard for Nest, for @UseGuards and useGlobalGuards, on Express and on Fastify. nest.js and nest.mjs pass the Nest
// that the service itself loads, with `require` or with `import`, so that the guard uses the same copy.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns the function `bearer` and the decorator `User`, which use these exports of `@nestjs/common`. */
function forNest({ HttpException, createParamDecorator }) {
  /** Returns a guard that checks a request's token, requires all of these roles, and sets `request.user`. */
  function bearer(guard, ...roles) {
    const requiredRoles = rolesOf(roles)
    return {
      async canActivate(context) {
        if (context.getType() !== 'http') throw new TypeError('this guard is for HTTP routes')
        const http = context.switchToHttp()
        const request = http.getRequest()
        const nodeRequest = request.raw ?? request // Fastify wraps Node's own request, and Express does not
        try {
          const user = await guard.user(nodeRequest, ...requiredRoles)
          request.user = user ?? request.user // an optional guard keeps the user of another login
        } catch (error) {
          if (!(error instanceof AuthError)) throw error
          const { status, headers, body } = problem(error, nodeRequest)
          for (const [name, value] of Object.entries(headers)) http.getResponse().header(name, value)
          throw new HttpException(JSON.parse(body), status, { cause: error })
        }
        return true
      },
    }
  }

  return { bearer, User: createParamDecorator((_, context) => context.switchToHttp().getRequest().user) }
}

module.exports = { forNest }
