import type { CanActivate } from '@nestjs/common'
import type { BearerGuard } from './index.js'

/** For `@UseGuards` and `useGlobalGuards`: lets through whose token is good and who has every one of these roles. */
export function bearer(guard: BearerGuard, ...roles: string[]): CanActivate

/** In a guarded route, its caller: `orders(@User() user: Principal)`. */
export const User: () => ParameterDecorator
