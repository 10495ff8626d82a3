import type { CanActivate } from '@nestjs/common'
import type { BearerGuard, OptionalGuard } from './index.js'

/**
 * Returns a guard for `@UseGuards` and `useGlobalGuards`. It admits requests with a valid token, whose user has all of
 * these roles. With an optional guard and no roles, requests without a Bearer token pass, too.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): CanActivate

/** The decorator for the user of a guarded route, as in `orders(@User() user: Principal)`. */
export const User: () => ParameterDecorator
