// The AI opens this page. It shows its content to every user first, and logs in silently when an action requires it.
// AI 打开的页面：先展示内容，任何人都能看；到需要身份的操作时才静默登录。
import { auth, myOrders } from '../../auth.js'
import { TEAS, teaOf } from '../../teas.js'

Page({
  data: { name: '', about: '', orders: null, isBusy: false },

  // If there is no content from the AI, for example after a restart, the query still contains the id of the tea.
  // 没有 AI 交来的内容时（例如重启之后），查询参数仍说明是哪种茶。
  onLoad(query) {
    this.setData(getApp().takeHandedOver(this) || teaOf(query.tea) || TEAS.oolong)
  },

  async showOrders() {
    if (this.data.isBusy) return
    this.setData({ isBusy: true })
    try {
      await auth.login()
      this.setData({ orders: await myOrders() })
    } catch (error) {
      wx.showToast({ title: error.title, icon: 'none' })
    } finally {
      this.setData({ isBusy: false })
    }
  },
})
