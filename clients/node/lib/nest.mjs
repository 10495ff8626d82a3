import * as nest from '@nestjs/common'
import { forNest } from './fornest.js'

export const { attachRequest, bearer, User } = forNest(nest)
