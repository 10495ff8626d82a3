// The guard for Nest, for @UseGuards and useGlobalGuards, on Express and on Fastify. It uses the caller's own Nest.
const { rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

function forNest({ HttpException, createParamDecorator }) {
  function bearer(guard, ...roles) {
    const demanded = rolesOf(roles)
    return {
      async canActivate(context) {
        if (context.getType() !== 'http') throw new TypeError('this guard is for HTTP routes')
        const http = context.switchToHttp()
        const request = http.getRequest()
        const sent = request.raw ?? request
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
