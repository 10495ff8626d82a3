// What a service in Node imports to accept wxauth's access tokens.
export { BearerGuard } from './guard.js'
export { problem } from './problems.js'
export { AuthError } from './refusals.js'
