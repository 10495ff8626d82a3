// The guard for Nest.
const { forNest } = require('./fornest.js')

module.exports = forNest(require('@nestjs/common'))
