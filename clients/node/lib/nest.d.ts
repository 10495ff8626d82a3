import type { IncomingMessage } from 'node:http'
import type { CanActivate } from '@nestjs/common'
import type { BearerGuard, OptionalGuard } from './index.js'

/**
 * Returns a guard for `@UseGuards` and `useGlobalGuards`. It admits requests with a valid token, whose user has all of
 * these roles. With an optional guard and no roles, requests without a Bearer token pass, too.
 *
 * In GraphQL, the token is the one of `req`, `request` or `extra.request` in the context. In a gateway, it is
 * `handshake.auth.token` or the header of the handshake, and each message is checked. A message of a micro-service has
 * no token. There, an optional guard without roles admits everything, without a user.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): CanActivate

/** Remembers the request of a socket of `ws`. Call it in `handleConnection(client, request)` of a guarded gateway. */
export function attachRequest(client: object, request: IncomingMessage): void

/** The decorator for the user of a guarded route, resolver or message, as in `orders(@User() user: Principal)`. */
export const User: () => ParameterDecorator
