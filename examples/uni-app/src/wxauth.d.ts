// Types of wxauth.js. Every promise that rejects does so with an AuthError.

/** The options of `createAuth`. */
export interface AuthOptions {
  /** The URL of the service, with its path if it has one: `https://auth.example.com`. */
  baseURL: string
  /** The mini-program's appid. By default the running mini-program's, or the service's first app if that is unknown. */
  appId?: string
  /** Other origins to which `request` sends the token: `https://api.example.com`. */
  origins?: readonly string[]
  /** `wx`, `uni`, or an object that behaves like them. By default `uni` if it exists, otherwise `wx`. */
  platform?: Platform
  /** The storage key of the session. By default `wxauth`. */
  storageKey?: string
  /** Returns the time in milliseconds. By default `Date.now`. */
  now?: () => number
}

/** The members used of `wx` or `uni`, in the style with callbacks. */
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
  /** Used for the appid, if none is given. */
  getAccountInfoSync?(): { miniProgram: { appId: string } }
  /** Used to tell the single page that Moments shows, where nobody can log in: scene 1154. */
  getEnterOptionsSync?(): { scene: number }
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
  /** False for a number that was only imported; null without a number. */
  phone_verified: boolean | null
  /** The person's id in the system before wxauth. */
  external_id: string | null
  /** Documents that the person has not agreed to yet, if the service requires consents. */
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
  /** The address of its last use. */
  ip: string | null
  /** From where it was opened. */
  opened: { ip: string | null; device: string | null }
  created_at: string
  last_used_at: string
  expires_at: string
  /** The client that may use a resource, the resource, and its scopes; null for any other login. */
  client: { title: string; host: string | null } | null
  resource: { resource: string; title: string } | null
  scopes: string[] | null
  /** Whether it is the session of the request. */
  current: boolean
}

/** Optional parts of a login. Absent or empty ones change nothing. */
export interface LoginFields {
  /** Log in again even if the stored session has time left: a new `wx.login`, a new session_key. */
  force?: boolean
  nickname?: string | null
  /** An https URL. For a picture from `chooseAvatar`, call `setAvatar` after the login. */
  avatarUrl?: string | null
  /** As for `bindPhone`. If it fails, or has no code, the login succeeds, and `auth.phoneError` has the reason. */
  phone?: PhoneTap | null
  /** The same, for a login that has its code alone. */
  phoneCode?: string | null
  /** The documents that the person agrees to: `{ privacy: '2026-05' }`. Versions not in force are ignored, and stay due. */
  consents?: Record<string, string>
  /** Cancels the erasure that the person has asked for, after `account_leaving`. */
  stay?: boolean
}

/** As for `wx.request`. Its other options are passed on; `success`, `fail` and `complete` are not called. */
export interface RequestOptions {
  /** At the origin of `baseURL` or one of `origins`. A relative URL is appended to `baseURL`. */
  url: string
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  data?: string | object | ArrayBuffer
  header?: Record<string, string>
  /** Milliseconds. */
  timeout?: number
  dataType?: string
  responseType?: 'text' | 'arraybuffer'
  /** The answer arrives in pieces, as of a language model. A 401 before the first piece is handled as always. */
  enableChunked?: boolean
  /** Called with each piece, if `enableChunked` is set. A character may be split between two. */
  onChunk?(piece: ArrayBuffer): void
  /** Called with the request's task, and with that of the second try after a 401. `abort()` rejects with `aborted`. */
  onTask?(task: RequestTask): void
  [other: string]: unknown
}

/** What `wx.request` returns, reduced to the member used here. */
export interface RequestTask {
  abort(): void
}

/** An answer with any status. */
export interface Answer<Data = any> {
  statusCode: number
  data: Data
  header: Record<string, any>
}

/** A button's event, reduced to the members used here. */
export interface ButtonEvent<Detail> {
  detail: Detail
}

/** A tap on the phone button: the event of `bindgetphonenumber`, or its code. */
export type PhoneTap = string | ButtonEvent<{ code?: string; errMsg?: string; errno?: number }>

/** A failure. Contains no token. */
export declare class AuthError extends Error {
  constructor(
    code: string,
    more?: {
      title?: string
      detail?: string
      errors?: { field: string; message: string }[]
      status?: number | null
      requestId?: string | null
      retryAfter?: number | null
      wechatErrcode?: number | null
      until?: string | null
      eraseAt?: string | null
    },
  )
  /**
   * The service's code, or `network_error`, `timeout`, `aborted` (by `onTask`), `wx_login_failed`, `single_page`,
   * `phone_refused`, `phone_unavailable`, `phone_quota_used_up`, `invalid_argument`, `origin_not_allowed`, `http_error`
   * (an answer that is not a problem document). `session_revoked` also means that a logout, or another person's login,
   * happened meanwhile; `session_replaced` that a login on another device replaced this session: only `login()` gets a
   * new one.
   */
  code: string
  /** One short sentence for the person, fit for `wx.showToast`: Chinese, or English if WeChat is not in Chinese. */
  title: string
  /** The fields that the service refused, by its names for them. Empty for other errors. */
  errors: { field: string; message: string }[]
  /** The HTTP status; null without an answer. */
  status: number | null
  /** The id of this request in the service's log. */
  requestId: string | null
  /** Seconds after which to try again, if the service names them. */
  retryAfter: number | null
  /** WeChat's error code, if WeChat refused the service's call. */
  wechatErrcode: number | null
  /** For `account_disabled`: when the ban ends by itself, which `title` has in the phone's time. RFC 3339. */
  until: string | null
  /** For `account_leaving`: when the person is erased, unless they log in with `stay`. RFC 3339. */
  eraseAt: string | null
}

/** A person's session on this phone. Members need no `this`. */
export interface Auth {
  /** The last known user, available at once even after a restart; null if nobody is logged in. */
  readonly user: User | null
  /** Whether the last login created this user; false before a login. */
  readonly isNewUser: boolean
  /** The code of the problem for which the last login did not bind the number of its `phone`; null if it did. */
  readonly phoneError: string | null
  /** The fields that the last login left out, each with its problem's code: `{ nickname: 'invalid_request' }`; or null. */
  readonly ignored: Record<string, string> | null
  /** Calls `listener` with the user after each change. Returns a function that stops this. */
  onChange(listener: (user: User | null) => void): () => void
  /**
   * Resolves to the user of the stored session, otherwise logs in with `wx.login`. Simultaneous calls share one login.
   * With `force` or a field it always logs in again.
   */
  login(fields?: LoginFields): Promise<User>
  /** The code of a new `wx.login`, as a proof that the person is present. It works once, and may end the session_key.
  */
  loginCode(): Promise<string>
  /** An access token with half a minute (or half its life) left. Refreshes or logs in if necessary. */
  getToken(): Promise<string>
  /**
   * `wx.request` with the token. After a 401 it refreshes once and sends again. Any status resolves, even a redirect,
   * which is not followed. Without an answer it rejects and does not send again.
   */
  request<Data = any>(options: RequestOptions): Promise<Answer<Data>>
  /** Changes the given fields; null or empty clears. */
  updateProfile(changes: { nickname?: string | null; avatarUrl?: string | null; phone?: null }): Promise<User>
  /** Uploads a picture: the local path, or the event of `bindchooseavatar`. */
  setAvatar(picture: string | ButtonEvent<{ avatarUrl: string }>): Promise<User>
  /** Binds the phone number. `phone_refused` if the person refused, `phone_unavailable` if WeChat gives no code. */
  bindPhone(tap: PhoneTap): Promise<User>
  /** Records that the person agrees to these documents, in the versions in force: `{ privacy: '2026-05' }`. */
  consent(documents: Record<string, string>): Promise<User>
  /** Records that the person withdraws a consent. */
  withdrawConsent(document: string): Promise<User>
  /** Decrypts WeChat's data. After `session_key_expired`, call `login({ force: true })`, and encrypt again. */
  decrypt<Data = any>(sealed: { encryptedData: string; iv: string }): Promise<Data>
  /** The person's sessions on all devices, last used first, at most 200. */
  sessions(): Promise<Session[]>
  /** Logs out on one device. */
  revokeSession(id: string): Promise<void>
  /**
   * An id_token for another back end, such as Supabase, proved by a new `wx.login`; valid for five minutes. The client must
   * have been added with `--phone-id-token`.
   */
  idToken(clientId: string, options?: { nonce?: string }): Promise<string>
  /**
   * Forgets the session at once, and ends it at the service, as far as the network allows; with `everywhere` on all
   * devices. Never rejects, and takes precedence over a login or a refresh under way.
   */
  logout(options?: { everywhere?: boolean }): Promise<void>
  /**
   * Erases the person at the service, proved by a new `wx.login`, and the session here. If the service has days of grace,
   * it erases the person after them, and a login meanwhile is `account_leaving`.
   */
  deleteAccount(): Promise<void>
}

/** Loads the stored session, without the network. Throws an AuthError if `baseURL` or an origin is malformed. */
export declare function createAuth(options: AuthOptions): Auth
