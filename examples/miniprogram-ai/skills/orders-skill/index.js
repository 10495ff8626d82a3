// The atomic interfaces: each has a session, by one middleware. 原子接口：由一个中间件统一登录。
import { failed } from './answers.js'
import { getMyOrders } from './apis/getMyOrders.js'
import { showTea } from './apis/showTea.js'
import { auth } from './auth.js'

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
skill.registerAPI('getMyOrders', getMyOrders)
skill.registerAPI('showTea', showTea)
