// Uses every member like an engine with TypeScript 2.8. This file is compiled and never run.
import { Answer, Auth, AuthError, createAuth, Platform, Session, User } from '../../../../clients/miniprogram/wxauth.js'
import { approve, claim, Claimed, deny, Scan, scanOf, scanSeen } from '../../../../clients/miniprogram/wxauth-scan.js'
import { authorize } from '../../../../clients/miniprogram/wxauth-site.js'

declare global {
  const auth: Auth
  interface Window {
    auth: Auth
  }
}
declare const window: Window
declare const platform: Platform

const origins: ReadonlyArray<string> = ['https://api.example.com']
window.auth = createAuth({
  baseURL: 'https://auth.example.com',
  origins,
  platform,
  silent: false,
  isRefused: ({ statusCode, data }) => statusCode === 200 && data.errno === 501,
})
createAuth({ baseURL: 'https://auth.example.com', isRefused: async () => true })

export async function play(event: { detail: any }, query: { [name: string]: string | undefined }): Promise<string> {
  const stop: () => void = auth.onChange((known: User | null, endedBy) => (known ? known.nickname : endedBy || auth.endedBy))
  const user: User = await auth.login({ nickname: '小明', phone: event, consents: { privacy: '2026-05' } })
  const answer: Answer<{ item: string }[]> = await auth.request<{ item: string }[]>({
    url: 'https://api.example.com/orders',
    method: 'POST',
    data: {},
    enableHttp2: true,
    onChunk: (piece: ArrayBuffer) => piece.byteLength,
    onTask: (task) => task.abort(),
  })
  const files = { url: 'https://api.example.com/files', filePath: '', name: 'file' }
  auth.uploadFile({ ...files, fail: (error: AuthError) => error.code }).onProgressUpdate(({ progress }) => progress)
  auth.downloadFile({ url: files.url, success: (got: { tempFilePath: string }) => got.tempFilePath }).abort()
  try {
    await auth.setAvatar(event)
    await auth.bindPhone(event)
    await auth.updateProfile({ nickname: null, avatarUrl: '' })
    await auth.consent({ privacy: '2026-05' }).then(() => auth.withdrawConsent('privacy'))
    await auth.decrypt<{ step: number }>({ encryptedData: '', iv: '' })
    const devices: Session[] = await auth.sessions()
    await auth.revokeSession(devices[0].id)
    await auth.idToken(await auth.loginCode(), { nonce: await auth.getToken() })
  } catch (error) {
    if (error instanceof AuthError) return `${error.code} ${error.title} ${error.retryAfter}`
  }
  const scan: Scan | null = scanOf(query) || scanSeen({ result: '' })
  const claimed: Claimed = await claim(auth, scan)
  const number = await (claimed.typed ? deny(auth, claimed) : approve(auth, claimed))
  stop()
  await auth.logout({ everywhere: true })
  await auth.deleteAccount()
  return (await authorize(auth, query)) + answer.data[0].item + user.id + (number ? number.number : '')
}
