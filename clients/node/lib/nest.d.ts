import type { CanActivate } from '@nestjs/common'
import type { BearerGuard, OptionalGuard } from './index.js'

/**
 * Returns a guard for `@UseGuards` and `useGlobalGuards`, which admits requests with a valid token and all of these
 * roles.
 */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): CanActivate

/** The user of a guarded route, as in `orders(@User() user: Principal)`. */
export const User: () => ParameterDecorator
