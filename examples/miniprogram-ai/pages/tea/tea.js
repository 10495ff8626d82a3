// The page that the AI opens: content first, for whoever it is. The login is silent, and at the action that needs it.
// AI 打开的页面：先展示内容，任何人都能看；到需要身份的操作时才静默登录。
import { auth, myOrders } from '../../auth.js'

Page({
  data: { name: '', about: '', orders: null, isBusy: false },

  onLoad() {
    this.setData(getApp().handedOver['pages/tea/tea'] || { name: '今日推荐：乌龙茶', about: '半发酵，清香' })
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
