import { auth, run } from '../../auth.js'
import { approve, claim, deny, scanOf, scanSeen } from '../../wxauth-scan.js'

Page({
  data: { claimed: null, until: null, verdict: null, number: null, failed: null, isBusy: false },

  // Scanning a code with the camera opens this page. Without a code, the user scans or types it on this page.
  // 用户用相机扫码后进入本页；没有扫码内容时，由用户在本页扫码或输入。
  onLoad(options) {
    const scan = scanOf(options)
    if (scan) return this.ask(scan)
  },

  scan() {
    wx.scanCode({ onlyFromCamera: true, success: (seen) => this.ask(scanSeen(seen)) })
  },

  type({ detail }) {
    return this.ask({ user_code: detail.value.code })
  },

  ask(scan) {
    return run(this, async () => {
      this.setData({ claimed: null, verdict: null, number: null, failed: null })
      await getApp().started
      try {
        const claimed = await claim(auth, scan)
        this.setData({ claimed: { ...claimed }, until: timeAfter(claimed.sso_ttl) })
      } catch (error) {
        this.setData({ failed: error.title })
      }
    })
  },

  approve() {
    return this.decide(approve, 'approved')
  },

  deny() {
    return this.decide(deny, 'denied')
  },

  decide(say, verdict) {
    return run(this, async () => {
      const shown = await say(auth, this.data.claimed) // a number, if a link in this phone's browser opened the page
      this.setData({ verdict, number: shown ? shown.number : null })
    })
  },
})

// Returns the time until which this browser can also log in to other sites. 返回一个时刻，在此之前，该浏览器也可以登录其他网站。
function timeAfter(seconds) {
  if (!seconds) return null
  const at = new Date(Date.now() + seconds * 1000)
  const two = (number) => `0${number}`.slice(-2)
  return `${at.getMonth() + 1}月${at.getDate()}日 ${two(at.getHours())}:${two(at.getMinutes())}`
}
