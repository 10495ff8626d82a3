// The guard for Nest, for @UseGuards and useGlobalGuards: routes on Express and on Fastify, resolvers of GraphQL, gateways
// and micro-services. nest.js and nest.mjs pass the Nest that the service itself loads, with `require` or with `import`,
// so that the guard uses the same copy.
const { isOptional, rolesOf } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

// The user of each socket by handler, because a handler without a guard must not see the user of another message.
const users = new WeakMap()
const upgrades = new WeakMap() // the request with which each socket of `ws` began

// Because of this function, bundlers allow that a service has no gateways or micro-services.
const fail = (error) => {
  throw error
}

/** Returns the functions of `wxauth-guard/nest`, which use these exports of `@nestjs/common`. */
function forNest({ HttpException, createParamDecorator }) {
  /** Returns a guard that checks a request's token, requires all of these roles, and sets the user. */
  function bearer(guard, ...roles) {
    const requiredRoles = rolesOf(roles)
    return {
      async canActivate(context) {
        const kind = kinds[context.getType()] ?? kinds.rpc
        // A global guard is asked for messages, too, but only a route's own guard can refuse a guest there.
        if (kind !== kinds.http && guard[isOptional] && requiredRoles.length === 0) return true
        const { owner, request } = kind.find(context)
        try {
          const user = await guard.user(request, ...requiredRoles)
          kind.setUser(owner, user, context)
        } catch (error) {
          if (!(error instanceof AuthError)) throw error
          throw await kind.refusal(error, request, context)
        }
        return true
      },
    }
  }

  const setUser = (request, user) => {
    request.user = user ?? request.user // an optional guard keeps the user of another login
  }
  const httpException = (error, document) => new HttpException(document, error.status, { cause: error })

  const kinds = {
    http: {
      find(context) {
        const request = context.switchToHttp().getRequest()
        return { owner: request, request: request.raw ?? request } // Fastify wraps Node's own request
      },
      setUser,
      userOf: (owner) => owner.user,
      refusal(error, request, context) {
        const answer = problem(error, request)
        const response = context.switchToHttp().getResponse()
        for (const [name, value] of Object.entries(answer.headers)) response.header(name, value)
        return httpException(error, JSON.parse(answer.body))
      },
    },
    graphql: {
      find(context) {
        const { req, request, extra } = context.getArgByIndex(2) ?? {}
        // For subscriptions, Nest puts the context of graphql-ws into `req`.
        const places = [req, request, extra?.request, req?.extra?.request]
        const owner = places.find((each) => each?.headers) ?? { headers: {} }
        return { owner, request: owner.raw ?? owner }
      },
      setUser,
      userOf: (owner) => owner.user,
      refusal(error, request) {
        const document = JSON.parse(problem(error, request).body)
        // Without these two, Nest answers with an internal error.
        return httpException(error, { statusCode: error.status, message: document.title, ...document })
      },
    },
    ws: {
      find(context) {
        const owner = context.switchToWs().getClient()
        return { owner, request: handshakeOf(owner) }
      },
      setUser(owner, user, context) {
        if (!users.has(owner)) users.set(owner, new WeakMap())
        users.get(owner).set(context.getHandler(), user)
      },
      userOf: (owner, context) => users.get(owner)?.get(context.getHandler()),
      async refusal(error, request) {
        const { WsException } = await import('@nestjs/websockets').catch(fail)
        return new WsException(JSON.parse(problem(error, request).body))
      },
    },
    rpc: {
      find: () => ({ owner: {}, request: { headers: {} } }), // messages have no header
      setUser() {},
      userOf: () => undefined,
      async refusal(error, request) {
        const { RpcException } = await import('@nestjs/microservices').catch(fail)
        return new RpcException(JSON.parse(problem(error, request).body))
      },
    },
  }

  const User = createParamDecorator((_, context) => {
    const kind = kinds[context.getType()] ?? kinds.rpc
    return kind.userOf(kind.find(context).owner, context)
  })

  return { attachRequest, bearer, User }
}

/** Returns the request of a socket's handshake. In socket.io, a token in `auth` comes before the one in the header. */
function handshakeOf(client) {
  const handshake = client.handshake ?? upgrades.get(client) ?? { headers: {} }
  const token = client.handshake?.auth?.token
  return typeof token === 'string' ? { headers: { ...handshake.headers, authorization: `Bearer ${token}` } } : handshake
}

/** Remembers the request with which a socket of `ws` began, because this library does not. */
function attachRequest(client, request) {
  upgrades.set(client, request)
}

module.exports = { forNest }
