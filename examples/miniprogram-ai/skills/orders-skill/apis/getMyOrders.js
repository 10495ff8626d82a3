import { said } from '../answers.js'
import { myOrders } from '../auth.js'

export async function getMyOrders() {
  const orders = await myOrders()
  const text = orders.length ? `用户有 ${orders.length} 个订单，请逐个列出。` : '用户还没有订单。'
  return said(text, { structuredContent: { orders: orders.map(({ item }) => item) } })
}
