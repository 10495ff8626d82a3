import * as nest from '@nestjs/common'
import { forNest } from './fornest.js'

export const { bearer, User } = forNest(nest)
