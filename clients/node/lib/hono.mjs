import all from './hono.js'

export const { bearer } = all
