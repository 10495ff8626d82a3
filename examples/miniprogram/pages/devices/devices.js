import { auth, fetched, run } from '../../auth.js'

Page({
  data: { sessions: null, hasOthers: false, isBusy: false, isSignedOut: false },

  onShow() {
    return run(this, () => this.load())
  },

  async onPullDownRefresh() {
    await run(this, () => this.load())
    wx.stopPullDownRefresh()
  },

  revoke({ currentTarget }) {
    return run(this, async () => {
      await auth.revokeSession(currentTarget.dataset.id)
      await this.load()
    })
  },

  revokeOthers() {
    return run(this, async () => {
      await fetched({ url: '/v1/me/sessions', method: 'DELETE' })
      await this.load()
    })
  },

  async load() {
    await getApp().started
    this.setData({ isSignedOut: !auth.user })
    if (!auth.user) return this.setData({ sessions: null })
    const sessions = (await auth.sessions()).map((session) => ({ ...session, lastUsed: timeText(session.last_used_at) }))
    this.setData({ sessions, hasOthers: sessions.some(({ current }) => !current) })
  },
})

function timeText(time) {
  const date = new Date(time)
  const minutes = `${date.getMinutes()}`.padStart(2, '0')
  return `${date.getMonth() + 1}月${date.getDate()}日 ${date.getHours()}:${minutes}`
}
