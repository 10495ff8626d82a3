// Uses every member like a native mini-program in TypeScript. This file is compiled and never run.
import { AuthError, createAuth } from '../../../../clients/miniprogram/wxauth.js'
import type { Answer, Auth, Platform, Session, User } from '../../../../clients/miniprogram/wxauth.js'

import { approve, claim, deny, scanOf, scanSeen } from '../../../../clients/miniprogram/wxauth-scan.js'
import { authorize } from '../../../../clients/miniprogram/wxauth-site.js'
import type { Claimed, Scan } from '../../../../clients/miniprogram/wxauth-scan.js'

const platform: Platform = wx
const auth: Auth = createAuth({
  baseURL: 'https://auth.example.com',
  appId: 'wx1a2b3c4d5e6f7a8b',
  origins: ['https://api.example.com'] as const,
  platform,
  storageKey: 'wxauth',
  now: () => Date.now(),
  silent: false,
  isRefused: async ({ statusCode, data }) => statusCode === 200 && data.errno === 501,
})
createAuth({ baseURL: 'https://auth.example.com', platform: wx })
// @ts-expect-error: a service is needed
createAuth({ appId: 'wx1a2b3c4d5e6f7a8b' })

interface Order {
  item: string
}

Page({
  stop: () => {},
  onLoad() {
    this.stop = auth.onChange((user: User | null) => this.setData({ nickname: user ? user.nickname : null }))
    const told = auth.onChange((user, endedBy) => user || endedBy === 'account_disabled')
    told()
    const reason: string = auth.endedBy || 'none'
    this.setData({ reason })
    const user: User | null = auth.user
    this.setData({ user })
    // @ts-expect-error: it is the client that says who the user is
    auth.user = null
  },
  async onShow() {
    const user: User = await auth.login()
    await auth.login({})
    await auth.login({ force: true, consents: { privacy: '2026-05' } })
    for (const { document, version } of user.consents_due || []) await auth.consent({ [document]: version })
    await auth.withdrawConsent('privacy')
    const idToken: string = await auth.idToken('supabase', { nonce: 'n' })
    this.setData({ idToken: (await auth.idToken('supabase')).length + idToken.length })
    this.setData({ welcome: auth.isNewUser, phoneError: auth.phoneError === null ? '' : auth.phoneError })
    await auth.login({ nickname: '小明', avatarUrl: null, phoneCode: 'code' })
    for (const [field, code] of Object.entries(auth.ignored || {})) this.setData({ [field]: code.length })
    // @ts-expect-error: it is called avatarUrl
    await auth.login({ avatar_url: 'https://example.com/1.png' })
    this.setData({ user, token: (await auth.getToken()).length })
    const answer: Answer<Order[]> = await auth.request<Order[]>({ url: 'https://api.example.com/orders' })
    answer.data.map((order) => order.item)
    const { statusCode, data, header } = await auth.request({
      url: '/v1/me',
      method: 'POST',
      data: { nickname: '小明' },
      header: { 'X-Mine': '1' },
      timeout: 5000,
      enableHttp2: true,
      silent: true,
    })
    this.setData({ statusCode: statusCode + 1, data, date: header.Date })
    let shown = 0
    await auth.request({
      url: 'https://api.example.com/chat',
      enableChunked: true,
      onChunk: (piece) => (shown += piece.byteLength),
      onTask: (task) => task.abort(),
    })
    const cookies: string[] = answer.cookies || []
    this.setData({ isGood: answer.errMsg.indexOf('ok') >= 0, cookies: cookies.length })
    const upload = auth.uploadFile({
      url: 'https://api.example.com/files',
      filePath: 'http://tmp/1.png',
      name: 'file',
      formData: { order: 7 },
      enableHttp2: true,
      success: ({ statusCode, data }) => this.setData({ statusCode, data: data.length }),
      fail: ({ errMsg, title }) => this.setData({ errMsg, title }),
      complete: ({ errMsg }) => this.setData({ errMsg }),
    })
    upload.onProgressUpdate(({ progress, totalBytesSent }) => this.setData({ progress, totalBytesSent }))
    const task: Pick<WechatMiniprogram.UploadTask, 'abort' | 'onProgressUpdate' | 'offProgressUpdate'> = upload
    task.abort()
    const download = auth.downloadFile({
      url: 'https://api.example.com/files/7',
      success: ({ statusCode, tempFilePath }) => this.setData({ statusCode, tempFilePath }),
    })
    download.onHeadersReceived(({ header }) => this.setData({ length: header['Content-Length'] }))
    download.onProgressUpdate(({ progress, totalBytesWritten }) => this.setData({ progress, totalBytesWritten }))
    download.offProgressUpdate()
    // @ts-expect-error: a file needs a name
    auth.uploadFile({ url: 'https://api.example.com/files', filePath: 'http://tmp/1.png' })
    // @ts-expect-error: wx.request knows no PATCH
    await auth.request({ url: '/v1/me', method: 'PATCH' })
  },
  async onChooseAvatar(event: WechatMiniprogram.CustomEvent<{ avatarUrl: string }>) {
    await auth.setAvatar(event)
    const events: [WechatMiniprogram.CustomEvent, WechatMiniprogram.BaseEvent & { detail: any }] = [event, event]
    for (const each of events) await auth.setAvatar(each).then(() => auth.bindPhone(each))
    await auth.setAvatar(event.detail.avatarUrl)
  },
  async onGetPhoneNumber(event: WechatMiniprogram.ButtonGetPhoneNumber) {
    try {
      const { phone } = await auth.bindPhone(event)
      this.setData({ phone: (await auth.login({ phone: event })).phone || phone })
    } catch (error) {
      if (!(error instanceof AuthError)) throw error
      const { code, title, status, requestId, retryAfter, wechatErrcode } = error
      for (const { field, message } of error.errors) this.setData({ [field]: message.length })
      wx.showToast({ title, icon: 'none' })
      this.setData({ code, again: retryAfter === null ? 0 : retryAfter + 1, told: `${status} ${requestId} ${wechatErrcode}` })
    }
  },
  async onRun(event: WechatMiniprogram.CustomEvent<{ encryptedData: string; iv: string }>) {
    const { stepInfoList } = await auth.decrypt<{ stepInfoList: { step: number }[] }>(event.detail)
    this.setData({ steps: stepInfoList[0].step })
  },
  async onSave(event: WechatMiniprogram.Input) {
    const user = await auth.updateProfile({ nickname: event.detail.value })
    await auth.updateProfile({ avatarUrl: null })
    this.setData({ user })
  },
  async onDevices() {
    const sessions: Session[] = await auth.sessions()
    for (const session of sessions) if (!session.current) await auth.revokeSession(session.id)
  },
  async onLeave() {
    await auth.logout()
    await auth.logout({ everywhere: true })
    await auth.deleteAccount()
  },
  onUnload() {
    this.stop()
  },
})

export const refusal = new AuthError('order_refused', { title: '下单失败', status: 409 })

export async function onLoad(options: { q?: string; scene?: string }): Promise<string> {
  const scan: Scan | null = scanOf(options)
  const claimed: Claimed = await claim(auth, scan)
  wx.scanCode({ onlyFromCamera: true, success: (seen) => void claim(auth, scanSeen(seen)) })
  await claim(auth, { user_code: 'BCDF-GHJK' })
  // @ts-expect-error: a claim is decided upon, not a scan
  await approve(auth, scan)
  const code: string = await auth.loginCode()
  if (!code) return code
  await (claimed.typed ? deny(auth, claimed) : approve(auth, claimed))
  return claimed.browser?.device ?? claimed.client.origin ?? claimed.client.title
}

export async function onLoadOfASite(query: Record<string, string | undefined>): Promise<string> {
  // @ts-expect-error: the request, not its URL
  await authorize(auth, 'client_id=shop')
  return authorize(auth, query)
}
