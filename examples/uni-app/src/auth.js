// The one auth of this app, and how its pages use it. 全小程序共用的 auth。
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

/** What was answered. A problem is thrown, as auth's own members do. */
export async function fetched(options) {
  const { statusCode: status, data } = await auth.request(options)
  if (status < 300) return data
  const { code = 'http_error', title } = data || {}
  throw new AuthError(code, { title, status })
}
