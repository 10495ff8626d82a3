// Registers the atomic interfaces. A middleware logs in before each of them. 注册原子接口，由一个中间件统一登录。
import { failed } from './answers.js'
import { getMyOrders } from './apis/getMyOrders.js'
import { showTea } from './apis/showTea.js'
import { auth } from './auth.js'

const skill = wx.modelContext.createSkill('skills/orders-skill')

// The login is silent and happens only once, because pages and interfaces share the stored session.
// 静默登录，且只登录一次，因为页面与接口共用存储中的会话。
skill.use(async (_, next) => {
  try {
    await auth.login()
    await next()
  } catch (error) {
    return failed(`${error.title || '出错了'}。请告知用户稍后重试，不要重复调用。`)
  }
})

// An interface only reads the user's data. Actions that change something belong to a button on a page, because the AI
// calls an interface without a tap of the user. 接口只读取数据；会产生后果的操作由页面上的按钮完成，因为 AI 调用接口不需要用户点击。
skill.registerAPI('getMyOrders', getMyOrders)
skill.registerAPI('showTea', showTea)
