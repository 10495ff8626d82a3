import all from './fastify.js'

export const { bearer } = all
