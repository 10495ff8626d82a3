// Creates the only auth of this JavaScript context. The SKILL contains a copy of this file, because it cannot load
// files of the main package. 创建本上下文唯一的 auth。SKILL 不能加载主包的文件，所以 SKILL 中也有同样的一份。
import { AuthError, createAuth } from './wxauth.js'

const baseURL = 'http://127.0.0.1:8000'
const ordersURL = 'http://127.0.0.1:8002'

export const auth = createAuth({ baseURL, origins: [ordersURL] })

/** Returns the user's orders. Throws an AuthError if they cannot be read. */
export async function myOrders() {
  const { statusCode: status, data } = await auth.request({ url: `${ordersURL}/orders` })
  if (status < 300) return data
  const { code = 'http_error', title } = data || {}
  throw new AuthError(code, { title, status })
}
