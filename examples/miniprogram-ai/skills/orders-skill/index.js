// The atomic interfaces: each has a session, by one middleware. 原子接口：由一个中间件统一登录。
import { auth, myOrders } from './auth.js'

const TEAS = {
  oolong: { name: '乌龙茶', about: '半发酵，清香' },
  jasmine: { name: '茉莉花茶', about: '绿茶窨制，花香' },
}

const said = (text, more) => ({ isError: false, content: [{ type: 'text', text }], ...more })
const failed = (text) => ({ isError: true, content: [{ type: 'text', text }] })

const skill = wx.modelContext.createSkill('skills/orders-skill')

// Silent, and once: the session is in the storage that the pages have, too. 静默且只登录一次：会话存于与页面共用的存储。
skill.use(async (_, next) => {
  try {
    await auth.login()
    await next()
  } catch (error) {
    return failed(`${error.title || '出错了'}。请告知用户稍后重试，不要重复调用。`)
  }
})

// Reading as the person is all that an interface does. What changes something is a button of a page, because here
// nobody has to tap. 接口只读取；有后果的操作由页面上的按钮完成，因为调用接口不需要用户点击。
skill.registerAPI('getMyOrders', async () => {
  const orders = await myOrders()
  const text = orders.length ? `用户有 ${orders.length} 个订单，请逐个列出。` : '用户还没有订单。'
  return said(text, { structuredContent: { orders: orders.map(({ item }) => item) } })
})

skill.registerAPI('showTea', async ({ tea }) => {
  if (!TEAS[tea]) return failed(`没有这种茶，可选：${Object.keys(TEAS).join('、')}。`)
  const handoff = { query: `tea=${tea}`, payload: TEAS[tea] }
  return said('已准备好页面，请引导用户点击卡片。', { structuredContent: { tea }, handoff })
})
