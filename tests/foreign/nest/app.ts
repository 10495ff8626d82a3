// A service with routes, resolvers, gateways and messages, behind a global guard that admits guests.
import 'reflect-metadata'
import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo'
import { Controller, Get, Module, UseGuards } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { Args, GraphQLModule, Query, Resolver } from '@nestjs/graphql'
import { MessagePattern, Transport } from '@nestjs/microservices'
import { WsAdapter } from '@nestjs/platform-ws'
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets'
import { BearerGuard, type Principal } from 'wxauth-guard'
import { bearer, User } from 'wxauth-guard/nest'
import { Feed } from './feed.js' // as the guard's page shows it

export const guard = new BearerGuard({ issuer: 'http://127.0.0.1:8000' })

const text = (user?: Principal) => (user ? user.openid : 'nobody')

@Controller()
class Orders {
  @Get('open')
  open(@User() user: Principal) {
    return text(user)
  }

  @Get('orders')
  @UseGuards(bearer(guard))
  mine(@User() user: Principal) {
    return text(user)
  }

  @MessagePattern('open')
  openMessage(@User() user: Principal) {
    return text(user)
  }

  @MessagePattern('orders')
  @UseGuards(bearer(guard))
  message() {
    return 'never'
  }
}

@Resolver()
class Queries {
  @Query(() => String)
  open(@User() user: Principal) {
    return text(user)
  }

  @Query(() => String)
  @UseGuards(bearer(guard))
  mine(@User() user: Principal, @Args('note', { nullable: true, type: () => String }) note?: string) {
    return text(user) + (note ?? '')
  }

  @Query(() => String)
  @UseGuards(bearer(guard, 'clerk'))
  clerks() {
    return 'clerk'
  }
}

class Messages {
  @SubscribeMessage('open')
  open(@User() user: Principal) {
    return { event: 'answer', data: text(user) }
  }

  @SubscribeMessage('orders')
  @UseGuards(bearer(guard))
  mine(@User() user: Principal) {
    return { event: 'answer', data: text(user) }
  }

  @SubscribeMessage('clerks')
  @UseGuards(bearer(guard, 'clerk'))
  clerks() {
    return { event: 'answer', data: 'clerk' }
  }
}

@WebSocketGateway()
class Socket extends Messages {}

@WebSocketGateway({ path: '/ws' })
class Attaching extends Messages {
  handleConnection = Feed.prototype.handleConnection
}

@WebSocketGateway({ path: '/forgetful' })
class Forgetful extends Messages {}

const graphql = (context: ApolloDriverConfig['context']) =>
  GraphQLModule.forRoot<ApolloDriverConfig>({ driver: ApolloDriver, autoSchemaFile: true, context })

export const contexts: Record<string, ApolloDriverConfig['context']> = {
  req: ({ req }: any) => ({ req }),
  // Without an object in `req`, Nest itself puts the request there.
  request: ({ req }: any) => ({ req: {}, request: req }),
  extra: ({ req }: any) => ({ req: {}, extra: { request: req } }),
  subscription: ({ req }: any) => ({ req: { extra: { request: req } } }),
  none: () => ({ req: {} }),
}

export async function start({ context = 'req', sockets = 'socket.io' } = {}) {
  const gateways = sockets === 'ws' ? [Attaching, Forgetful] : [Socket]

  @Module({ imports: [graphql(contexts[context])], controllers: [Orders], providers: [Queries, ...gateways] })
  class App {}

  const app = await NestFactory.create(App, { logger: false })
  if (sockets === 'ws') app.useWebSocketAdapter(new WsAdapter(app))
  const microservice = app.connectMicroservice(
    { transport: Transport.TCP, options: { host: '127.0.0.1', port: 0 } },
    { inheritAppConfig: true },
  )
  app.useGlobalGuards(bearer(guard.optional()))
  await app.listen(0, '127.0.0.1')
  return { app, microservice }
}
