import all from './index.js'

export const { AuthError, BearerGuard, problem } = all
