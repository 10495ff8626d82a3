// Creates the only auth of this app, and the functions with which pages use it. 创建全小程序共用的 auth，以及各页面使用它的函数。
import { AuthError, createAuth } from './wxauth.js'
import { baseURL, ordersURL, simulated } from './config.js'
import { simulatedPlatform } from './simulated.js'

export const auth = createAuth({
  baseURL,
  origins: [ordersURL],
  platform: simulated ? simulatedPlatform(simulated) : undefined,
})

export function showError(error) {
  uni.showToast({ title: error.title, icon: 'none' })
}

/**
 * Returns the data of a successful response. Throws an AuthError for any other response, like the functions of auth.
 */
export async function fetched(options) {
  const { statusCode: status, data } = await auth.request(options)
  if (status < 300) return data
  const { code = 'http_error', title } = data || {}
  throw new AuthError(code, { title, status })
}
