// Replaces a wrapper of uni.request that adds a token. 代替项目原有的、添加令牌的 uni.request 封装。
import { auth } from './auth.js'
import { ordersURL } from './config.js'
import { AuthError } from './wxauth.js'

/** Returns the data of a successful response. Throws an AuthError for any other response. */
export async function request(path, options) {
  const { statusCode: status, data } = await auth.request({ ...options, url: ordersURL + path })
  if (status < 300) return data
  const { code = 'http_error', title } = data || {}
  throw new AuthError(code, { title, status })
}
