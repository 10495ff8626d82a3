import { auth } from '../../auth.js'
import { authorize } from '../../wxauth-site.js'

const HERE = 'pages/authorize/authorize'

// A site in a web-view opens this page to log in. web-view 中的网站请求登录时，跳转到本页。
Page({
  data: { url: null, failed: null },

  async onLoad(query) {
    this.setData({ failed: null })
    // A card or a link might contain the sign-in request of another person, so refuse it.
    // 卡片、链接中可能是他人发起的登录，一律拒绝。
    if (wx.getEnterOptionsSync().path === HERE) return this.setData({ failed: '请从小程序内打开网页' })
    await getApp().started
    try {
      this.setData({ url: await authorize(auth, query) })
    } catch (error) {
      this.setData({ failed: error.title })
    }
  },
})
