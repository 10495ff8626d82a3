// Types of wxauth.js. Every promise that is rejected is rejected with an AuthError.

/** What `createAuth` is told. */
export interface AuthOptions {
  /** Where the service is, with its path where it has one: `https://auth.example.com`. */
  baseURL: string
  /** The mini-program's appid; without it the phone's own, or the service's first app where the phone does not say. */
  appId?: string
  /** Who else is sent the token with `request`: `https://api.example.com`. */
  origins?: readonly string[]
  /** `wx`, `uni`, or what behaves like them; found by itself where left out. */
  platform?: Platform
  /** Under which key the session is kept; `wxauth`. */
  storageKey?: string
  /** The time in milliseconds; `Date.now`. */
  now?: () => number
}

/** What is used of `wx` or `uni`: the style with callbacks. */
export interface Platform {
  login(options: {
    provider: 'weixin'
    timeout: number
    success(answer: { code: string }): void
    fail(error: { errMsg: string }): void
  }): unknown
  request(options: {
    url: string
    method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
    data?: any
    header?: Record<string, string>
    timeout?: number
    redirect: 'manual'
    success(answer: { statusCode: number; data: any; header: any }): void
    fail(error: { errMsg: string }): void
  }): unknown
  uploadFile(options: {
    url: string
    filePath: string
    name: string
    header?: Record<string, string>
    timeout?: number
    success(answer: { statusCode: number; data: string }): void
    fail(error: { errMsg: string }): void
  }): unknown
  getStorageSync(key: string): any
  setStorageSync(key: string, value: string): void
  removeStorageSync(key: string): void
  /** Asked for the appid, where none is given. */
  getAccountInfoSync?(): { miniProgram: { appId: string } }
}

/** A person, in the app of the session. Times are RFC 3339. */
export interface User {
  id: string
  app_id: string
  openid: string
  unionid: string | null
  nickname: string | null
  avatar_url: string | null
  /** In E.164 form: `+8613800138000`. */
  phone: string | null
  /** False for a number that was merely imported; null without one. */
  phone_verified: boolean | null
  /** The id that the person had before wxauth. */
  external_id: string | null
  /** What they have not agreed to yet, where the service asks for consents. */
  consents_due?: { document: string; version: string }[]
  roles: string[]
  status: 'active' | 'disabled'
  created_at: string
  last_login_at: string | null
}

/** A login on one device. Times are RFC 3339. */
export interface Session {
  id: string
  app_id: string
  /** Such as `iOS 17.1, WeChat 8.0.44`. */
  device: string | null
  ip: string | null
  created_at: string
  last_used_at: string
  expires_at: string
  /** Whether it is the one that asks. */
  current: boolean
}

/** What may go along with a login. What is left out or empty changes nothing. */
export interface LoginFields {
  /** Log in anew although the kept session has time left: a new `wx.login`, a new session_key. */
  force?: boolean
  nickname?: string | null
  /** An https URL; for what `chooseAvatar` gave, `setAvatar` after the login. */
  avatarUrl?: string | null
  /** `detail.code` of `bindgetphonenumber`. Where it fails the login succeeds, and `auth.phoneError` says why. */
  phoneCode?: string | null
  /** What the person agrees to: `{ privacy: '2026-05' }`. What is not in force is left out, and due still. */
  consents?: Record<string, string>
}

/** As for `wx.request`, whose other options are passed on; `success`, `fail` and `complete` are not called. */
export interface RequestOptions {
  /** Of `baseURL`'s origin or one of `origins`; a relative one is appended to `baseURL`. */
  url: string
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  data?: string | object | ArrayBuffer
  header?: Record<string, string>
  /** Milliseconds. */
  timeout?: number
  dataType?: string
  responseType?: 'text' | 'arraybuffer'
  [other: string]: unknown
}

/** An answer, whatever its status. */
export interface Answer<Data = any> {
  statusCode: number
  data: Data
  header: Record<string, any>
}

/** An event of a button, as far as it matters here. */
export interface ButtonEvent<Detail> {
  detail: Detail
}

/** What went wrong. Holds no token. */
export declare class AuthError extends Error {
  constructor(
    code: string,
    more?: {
      title?: string
      detail?: string
      status?: number | null
      requestId?: string | null
      retryAfter?: number | null
      wechatErrcode?: number | null
    },
  )
  /**
   * The service's, or `network_error`, `timeout`, `wx_login_failed`, `phone_refused`, `invalid_argument`,
   * `origin_not_allowed`, `http_error` (an answer that is no problem document). `session_revoked` also means that a
   * logout, or another person on this phone, came between.
   */
  code: string
  /** One short sentence for the person, fit for `wx.showToast`: Chinese, or English where WeChat is not in Chinese. */
  title: string
  /** The HTTP status, or null where no answer came. */
  status: number | null
  /** What the service's log knows this request by. */
  requestId: string | null
  /** Seconds until it makes sense to try again, where the service says so. */
  retryAfter: number | null
  /** What WeChat answered the service, where it was WeChat that refused. */
  wechatErrcode: number | null
}

/** A person's session on this phone. Members need no `this`. */
export interface Auth {
  /** The last known user, at once after a restart too; null where nobody is logged in. */
  readonly user: User | null
  /** Whether the last login made this user; false before one. */
  readonly isNewUser: boolean
  /** Why the last login did not bind the number of its `phoneCode`: the code of the problem. Null where it did. */
  readonly phoneError: string | null
  /** Calls `listener` with the user after each change. Returns the way to stop. */
  onChange(listener: (user: User | null) => void): () => void
  /**
   * The user, by the kept session, or by `wx.login` where there is none; calls at the same time share one login.
   * With `force` or a field it always logs in anew.
   */
  login(fields?: LoginFields): Promise<User>
  /** The code of a new `wx.login`, as a proof that the person is here. It works once; it may end the former session_key. */
  loginCode(): Promise<string>
  /** An access token with half a minute to live (or half its life), refreshed or logged in for where needed. */
  getToken(): Promise<string>
  /**
   * `wx.request` with the token. After a 401 it refreshes once and sends once more; any status resolves, redirects too,
   * which are not followed. Where no answer came it rejects and does not send again.
   */
  request<Data = any>(options: RequestOptions): Promise<Answer<Data>>
  /** Changes what is named; null or empty clears. */
  updateProfile(changes: { nickname?: string | null; avatarUrl?: string | null }): Promise<User>
  /** Uploads a picture: the local path, or the event of `bindchooseavatar`. */
  setAvatar(picture: string | ButtonEvent<{ avatarUrl: string }>): Promise<User>
  /** Binds the phone number: the code, or the event of `bindgetphonenumber`. `phone_refused` where there is no code. */
  bindPhone(tap: string | ButtonEvent<{ code?: string }>): Promise<User>
  /** Records that the person agrees to these documents, in the versions in force: `{ privacy: '2026-05' }`. */
  consent(documents: Record<string, string>): Promise<User>
  /** Records that they take it back. */
  withdrawConsent(document: string): Promise<User>
  /** Opens what WeChat encrypted. At `session_key_expired`: `login({ force: true })`, and what is encrypted then. */
  decrypt<Data = any>(sealed: { encryptedData: string; iv: string }): Promise<Data>
  /** Where the person is logged in, the last used first; 200 at most. */
  sessions(): Promise<Session[]>
  /** Logs out on one device. */
  revokeSession(id: string): Promise<void>
  /**
   * Forgets the session at once and tells the service, as far as the network allows; with `everywhere` on all devices.
   * Never rejects, and wins over a login or a refresh under way.
   */
  logout(options?: { everywhere?: boolean }): Promise<void>
  /** Erases the person at the service, and the session here. */
  deleteAccount(): Promise<void>
}

/** Takes up the kept session, without the network. Throws an AuthError for a `baseURL` or an origin that is none. */
export declare function createAuth(options: AuthOptions): Auth
