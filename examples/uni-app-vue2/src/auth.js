// Creates the only auth of this app. 创建全小程序共用的 auth。
import { createAuth } from './wxauth.js'
import { baseURL, ordersURL, simulated } from './config.js'
import { simulatedPlatform } from './simulated.js'

export const auth = createAuth({
  baseURL,
  origins: [ordersURL],
  platform: simulated ? simulatedPlatform(simulated) : undefined,
})
