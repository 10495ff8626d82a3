// The guard for Nest, for @UseGuards and useGlobalGuards, on Express and on Fastify.
import { HttpException, createParamDecorator } from '@nestjs/common'
import { rolesOf } from './guard.js'
import { problem } from './problems.js'
import { AuthError } from './refusals.js'

export function bearer(guard, ...roles) {
  const demanded = rolesOf(roles)
  return {
    async canActivate(context) {
      if (context.getType() !== 'http') throw new TypeError('this guard is for HTTP routes')
      const http = context.switchToHttp()
      const request = http.getRequest()
      const sent = request.raw ?? request
      try {
        request.user = await guard.user(sent, ...demanded)
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

export const User = createParamDecorator((_, context) => context.switchToHttp().getRequest().user)
