// The guard for Nest, for @UseGuards and useGlobalGuards, on Express and on Fastify. It uses the caller's own Nest.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

/** Returns the guard and the decorator `User` for the Nest whose classes and functions are given. */
function forNest({ HttpException, createParamDecorator }) {
  /** Returns a guard that checks a request's token, and requires all of these roles. */
  function bearer(guard, ...roles) {
    const demanded = rolesOf(roles)
    return {
      async canActivate(context) {
        if (context.getType() !== 'http') throw new TypeError('this guard is for HTTP routes')
        const http = context.switchToHttp()
        const request = http.getRequest()
        const sent = request.raw ?? request // Node's own request, which Fastify wraps
        try {
          request.user = (await guard.user(sent, ...demanded)) ?? request.user
        } catch (error) {
          if (!(error instanceof AuthError)) throw error
          const { status, headers, body } = problem(error, sent)
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
