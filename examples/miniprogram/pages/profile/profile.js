import { auth, run } from '../../auth.js'
import { simulated } from '../../config.js'
import { simulatedPhoneCode } from '../../simulated.js'

Page({
  data: { user: null, isBusy: false, isSimulated: Boolean(simulated) },

  onLoad() {
    this.stopListening = auth.onChange((user) => this.setData({ user }))
    this.setData({ user: auth.user })
    return run(this, () => getApp().started)
  },

  onUnload() {
    this.stopListening()
  },

  logIn() {
    return run(this, () => auth.login())
  },

  setAvatar(event) {
    return run(this, () => auth.setAvatar(event))
  },

  saveNickname({ detail }) {
    return run(this, async () => {
      await auth.updateProfile({ nickname: detail.value.nickname })
      wx.showToast({ title: '已保存' })
    })
  },

  bindPhone(event) {
    return run(this, () => auth.bindPhone(event))
  },

  bindSimulatedPhone() {
    return run(this, async () => auth.bindPhone(await simulatedPhoneCode(simulated)))
  },

  logOut() {
    return run(this, () => auth.logout())
  },

  deleteAccount() {
    return run(this, async () => {
      const { confirm } = await wx.showModal({
        title: '注销账号',
        content: '昵称、头像、手机号和所有设备上的登录都会删除，无法恢复。',
        confirmText: '注销',
        confirmColor: '#d93d3d',
      })
      if (confirm) await auth.deleteAccount()
    })
  },
})
