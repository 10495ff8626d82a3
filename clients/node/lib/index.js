// The imports of a service that accepts wxauth's access tokens.
export { BearerGuard } from './guard.js'
export { problem } from './problems.js'
export { AuthError } from './refusals.js'
