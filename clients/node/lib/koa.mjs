import all from './koa.js'

export const { bearer } = all
