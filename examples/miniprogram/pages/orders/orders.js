import { auth, fetched, run } from '../../auth.js'
import { ordersURL } from '../../config.js'

Page({
  data: { orders: null, isBusy: false, isSignedOut: false },

  onShow() {
    return run(this, () => this.load())
  },

  async onPullDownRefresh() {
    await run(this, () => this.load())
    wx.stopPullDownRefresh()
  },

  async load() {
    await getApp().started
    this.setData({ isSignedOut: !auth.user })
    this.setData({ orders: auth.user ? await fetched({ url: `${ordersURL}/orders` }) : null })
  },
})
