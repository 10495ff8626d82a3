// The exports for a service that accepts wxauth's access tokens.
const { BearerGuard } = require('./guard.js')
const { problem } = require('./problems.js')
const { AuthError } = require('./refusals.js')

module.exports = { BearerGuard, problem, AuthError }
