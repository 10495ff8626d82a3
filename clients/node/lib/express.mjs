import all from './express.js'

export const { bearer } = all
