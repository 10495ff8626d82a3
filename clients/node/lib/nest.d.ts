import type { CanActivate } from '@nestjs/common'
import type { BearerGuard, OptionalGuard } from './index.js'

/** For `@UseGuards` and `useGlobalGuards`: admits requests with a valid token and all of these roles. */
export function bearer(guard: BearerGuard | OptionalGuard, ...roles: string[]): CanActivate

/** The caller in a guarded route: `orders(@User() user: Principal)`. */
export const User: () => ParameterDecorator
