import all from './testing.js'

export const { TestIssuer, USER_ID } = all
