/* eslint-disable */
// Types of wxauth.js, for TypeScript 2.8 and newer. Every promise that rejects does so with an AuthError. 所有 Promise 失败时都是 AuthError。

/**
 * The options of `createAuth`.
 * `createAuth` 的参数。
 */
export interface AuthOptions {
  /**
   * The URL of the service, with its path if it has one: `https://auth.example.com`.
   * wxauth 的地址，有路径则带上路径：`https://auth.example.com`。
   */
  baseURL: string
  /**
   * The mini-program's appid. By default, it is the running mini-program's, or the service's first app if that is
   * unknown.
   * 小程序的 appid。默认为当前小程序的；取不到时为服务的第一个应用。
   */
  appId?: string
  /**
   * Other origins to which `request` sends the token, such as `https://api.example.com`.
   * `request` 可携带 token 访问的其他源：`https://api.example.com`。
   */
  origins?: ReadonlyArray<string>
  /**
   * Whether the client logs in by itself, with `wx.login`, when it needs a session; true by default. With false, there
   * are guests. Without a session, `request` is sent without a token, and functions that need one reject with
   * `login_required`.
   * 需要会话时是否静默登录（自行调用 `wx.login`），默认 true。设为 false 即允许游客：没有会话时 `request` 不带 token 照常发出，
   * 必须登录的方法以 `login_required` 失败。
   */
  silent?: boolean
  /**
   * Returns whether a response of your services means that this token is refused, besides status 401, such as
   * `({ data }) => data.errno === 501`. It can be async. If it throws or rejects, the token counts as accepted.
   * 除 401 外，哪些响应表示 token 被拒绝：`({ data }) => data.errno === 501`。可以是 async；抛出异常视为不是。
   */
  isRefused?(answer: Answer): any
  /**
   * An object that behaves like `wx`. By default, it is `wx`, which interceptors of `uni.request` do not affect, or
   * `uni` if there is no `wx`.
   * 与 `wx` 行为一致的对象。默认为 `wx`（不受 `uni.addInterceptor` 影响），没有 `wx` 时为 `uni`。
   */
  platform?: Platform
  /**
   * The storage key of the session, by default `wxauth`.
   * 会话在本地缓存中的 key，默认 `wxauth`。
   */
  storageKey?: string
  /**
   * Returns the time in milliseconds. The default is `Date.now`.
   * 返回当前毫秒数，默认 `Date.now`。
   */
  now?: () => number
}

/**
 * The members of `wx` or `uni` that are used, all with callbacks.
 * 用到的 `wx` 或 `uni` 的成员，均为回调形式。
 */
export interface Platform {
  login(options: {
    provider: 'weixin'
    timeout: number
    success(answer: { code: string }): void
    fail(error: { errMsg: string }): void
  }): any
  request(options: {
    url: string
    method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
    data?: any
    header?: Record<string, string>
    timeout?: number
    redirect: 'manual'
    success(answer: { statusCode: number; data: any; header: any }): void
    fail(error: { errMsg: string }): void
  }): any
  uploadFile(options: {
    url: string
    filePath: string
    name: string
    header?: Record<string, string>
    timeout?: number
    success(answer: { statusCode: number; data: string }): void
    fail(error: { errMsg: string }): void
  }): any
  getStorageSync(key: string): any
  setStorageSync(key: string, value: string): void
  removeStorageSync(key: string): void
  /**
   * Returns the appid, if none is given.
   * 未传 appid 时用来取 appid。
   */
  getAccountInfoSync?(): { miniProgram: { appId: string } }
  /**
   * Identifies the single-page mode of Moments (scene 1154), in which users cannot log in.
   * 用来识别朋友圈打开的单页模式（场景值 1154），其中无法登录。
   */
  getEnterOptionsSync?(): { scene: number }
}

/**
 * A user, in the app of the session. Times are RFC 3339.
 * 当前应用中的用户。时间均为 RFC 3339。
 */
export interface User {
  id: string
  app_id: string
  openid: string
  unionid: string | null
  nickname: string | null
  avatar_url: string | null
  /**
   * The phone number in E.164, such as `+8613800138000`.
   * E.164 格式：`+8613800138000`。
   */
  phone: string | null
  /**
   * Whether WeChat has verified the number. It is false for a number that was only imported, and null without a number.
   * 仅导入、未经微信验证的号码为 false；没有号码为 null。
   */
  phone_verified: boolean | null
  /**
   * The user's id in the system before wxauth.
   * 用户在迁移前系统中的 ID。
   */
  external_id: string | null
  /**
   * The documents that the user has not agreed to yet, if the service requires consents.
   * 服务要求同意、而用户尚未同意的文件。
   */
  consents_due?: { document: string; version: string }[]
  roles: string[]
  status: 'active' | 'disabled'
  created_at: string
  last_login_at: string | null
}

/**
 * A login on one device. Times are RFC 3339.
 * 一台设备上的登录。时间均为 RFC 3339。
 */
export interface Session {
  id: string
  app_id: string
  /**
   * The device, such as `iOS 17.1, WeChat 8.0.44`.
   * 例如 `iOS 17.1, WeChat 8.0.44`。
   */
  device: string | null
  /**
   * The address of its last use.
   * 最近一次使用的 IP。
   */
  ip: string | null
  /**
   * The address and the device from which it was opened.
   * 登录时的 IP 与设备。
   */
  opened: { ip: string | null; device: string | null }
  created_at: string
  last_used_at: string
  expires_at: string
  /**
   * The client that may use a resource, the resource, and its scopes; null for any other login.
   * 可访问资源的客户端、该资源及其权限范围；其他登录为 null。
   */
  client: { title: string; host: string | null } | null
  resource: { resource: string; title: string } | null
  scopes: string[] | null
  /**
   * Whether it is the session of the request.
   * 是否为发起本次请求的会话。
   */
  current: boolean
}

/**
 * The optional parts of a login. Absent or empty parts change nothing.
 * 登录的可选字段。不传或为空则不改变。
 */
export interface LoginFields {
  /**
   * Whether to log in again even if the stored session is still valid, with a new `wx.login` and a new session_key.
   * 本地会话未过期也重新登录：新的 `wx.login`，新的 session_key。
   */
  force?: boolean
  nickname?: string | null
  /**
   * An https URL. For a picture from `chooseAvatar`, call `setAvatar` after the login.
   * https 地址。`chooseAvatar` 选的图片请在登录后调用 `setAvatar`。
   */
  avatarUrl?: string | null
  /**
   * The tap on the phone button, as for `bindPhone`. If it fails, or has no code, the login still succeeds, and
   * `auth.phoneError` is the reason.
   * 同 `bindPhone`。失败或没有 code 时登录仍成功，原因见 `auth.phoneError`。
   */
  phone?: PhoneTap | null
  /**
   * The code of the tap, for a login that only has the code.
   * 同上，只有 code 时使用。
   */
  phoneCode?: string | null
  /**
   * The documents that the user agrees to, such as `{ privacy: '2026-05' }`. Versions that are not in force are
   * ignored, and stay due.
   * 用户同意的文件：`{ privacy: '2026-05' }`。非现行版本会被忽略，仍待同意。
   */
  consents?: Record<string, string>
  /**
   * Whether to cancel the erasure that the user has asked for, after `account_leaving`.
   * 在 `account_leaving` 之后撤销用户申请的注销。
   */
  stay?: boolean
}

/**
 * The options of a request, as for `wx.request`. Other options are passed on; `success`, `fail` and `complete` are not
 * called.
 * 同 `wx.request`。其他参数原样传递；不会调用 `success`、`fail`、`complete`。
 */
export interface RequestOptions {
  /**
   * The URL, at the origin of `baseURL` or one of `origins`. A relative URL is appended to `baseURL`.
   * 须属于 `baseURL` 或 `origins` 的源。相对地址拼在 `baseURL` 之后，即发给 wxauth。
   */
  url: string
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  data?: string | object | ArrayBuffer
  /** The headers, without `Authorization`, which the client sets. 不含 `Authorization`，由客户端填写。 */
  header?: Record<string, any>
  /**
   * The timeout in milliseconds.
   * 毫秒。
   */
  timeout?: number
  dataType?: string
  responseType?: 'text' | 'arraybuffer' | (string & {})
  /**
   * As `silent` in `createAuth`, but for this request.
   * 仅对本次请求生效，含义同 `createAuth` 的 `silent`。
   */
  silent?: boolean
  /**
   * Whether the response arrives in pieces, like that of a language model. A 401 before the first piece is handled as
   * always.
   * 分块接收响应，如大模型的回答。首块之前的 401 照常处理。
   */
  enableChunked?: boolean
  /**
   * Called with each piece, if `enableChunked` is set. A character may be split between two.
   * 设置 `enableChunked` 后，每收到一块调用一次。一个字符可能被分在两块中。
   */
  onChunk?(piece: ArrayBuffer): void
  /**
   * Called with the request's task, and again with the task of the second attempt after a 401. `abort()` of either task
   * rejects with `aborted`.
   * 传入请求任务；401 后重发时再次传入新的任务。任一个的 `abort()` 都使请求以 `aborted` 失败。
   */
  onTask?(task: RequestTask): void
}

/**
 * The return value of `wx.request`, reduced to the member used here.
 * `wx.request` 的返回值，仅列出用到的成员。
 */
export interface RequestTask {
  abort(): void
}

/**
 * A response with any status.
 * 任意状态码的响应。
 */
export interface Answer<Data = any> {
  statusCode: number
  data: Data
  header: Record<string, any>
}

/**
 * A button's event, reduced to the members used here.
 * 按钮事件，仅列出用到的成员。
 */
export interface ButtonEvent<Detail> {
  detail: Detail
}

/**
 * A tap on the phone button: the event of `bindgetphonenumber`, or its code.
 * 点击手机号按钮：`bindgetphonenumber` 的事件，或其中的 code。
 */
export type PhoneTap = string | ButtonEvent<{ code?: string; errMsg?: string; errno?: number; encryptedData?: string }>

/**
 * An error, which never contains a token.
 * 失败信息，不含 token。
 */
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
   * The service's code, or one of the client: `network_error`, `timeout`, `aborted` (through `onTask`, or because no
   * picture was chosen), `wx_login_failed`, `login_required` (a guest), `single_page`, `phone_refused`,
   * `phone_unavailable`, `phone_quota_used_up`, `invalid_argument`, `origin_not_allowed`, `domain_not_allowed` (add the
   * domain in WeChat's console), `no_platform` (the function does not exist here), `http_error` (a response that is not
   * a problem document). `session_revoked` also means that a logout, or another user's login, happened during the
   * request, so that the response, if there was one, was for the previous session. `session_replaced` means that a
   * login on another device replaced this session, and only `login()` opens a new one. docs/reference/errors.md has an
   * entry for each code, with what to do next.
   * 服务返回的 code，或上述客户端自己的 code。`login_required`：游客；`domain_not_allowed`：域名未加入合法域名；`no_platform`：
   * 当前环境没有该函数；`http_error`：响应不是 wxauth 的。`session_revoked` 也表示其间退出了登录或换了人登录，
   * 响应（若有）属于之前的会话；
   * `session_replaced` 表示会话被另一台设备的登录取代，只有 `login()` 会建立新会话。每个 code 的处理见 docs/zh/reference/errors.md。
   */
  code: string
  /**
   * One short sentence for the user, fit for `wx.showToast`. It is Chinese, or English if WeChat is not in Chinese.
   * 给用户看的一句话，可直接用于 `wx.showToast`：中文；微信语言不是中文时为英文。
   */
  title: string
  /**
   * The fields that the service refused, by its names for them. Empty for other errors.
   * 服务拒绝的字段（服务端字段名）。其他错误为空数组。
   */
  errors: { field: string; message: string }[]
  /**
   * The HTTP status; null without a response.
   * HTTP 状态码；没有响应为 null。
   */
  status: number | null
  /**
   * The id of this request in the service's log.
   * 本次请求在服务日志中的 ID。
   */
  requestId: string | null
  /**
   * The number of seconds after which to try again, if the service returns it.
   * 服务要求的重试等待秒数。
   */
  retryAfter: number | null
  /**
   * WeChat's error code, if WeChat refused the service's call.
   * 微信拒绝服务端调用时的微信错误码。
   */
  wechatErrcode: number | null
  /**
   * For `account_disabled`, the time at which the ban ends by itself, as RFC 3339. `title` contains it in the phone's
   * time zone.
   * `account_disabled` 时：自动解封的时间，`title` 中为手机时区的时间。
   */
  until: string | null
  /**
   * For `account_leaving`, the time at which the user will be erased unless they log in with `stay`, as RFC 3339.
   * `account_leaving` 时：注销生效的时间，除非以 `stay` 登录。
   */
  eraseAt: string | null
}

/**
 * A user's session on this phone. Its functions do not need `this`.
 * 用户在本机的会话。各方法不依赖 `this`。
 */
export interface Auth {
  /**
   * The last known user, available immediately, even after a restart; null if no user is logged in.
   * 最近已知的用户，重启后也立即可用；未登录为 null。
   */
  readonly user: User | null
  /**
   * Whether the last login created this user; false before a login.
   * 最近一次登录是否新建了用户；登录前为 false。
   */
  readonly isNewUser: boolean
  /**
   * The error code that explains why the last login did not bind the number of its `phone`; null if it did.
   * 最近一次登录未能绑定手机号的原因（code）；已绑定为 null。
   */
  readonly phoneError: string | null
  /**
   * The fields that the last login ignored, each with its error code, such as `{ nickname: 'invalid_request' }`; or
   * null.
   * 最近一次登录忽略的字段及其原因：`{ nickname: 'invalid_request' }`；没有则为 null。
   */
  readonly ignored: Record<string, string> | null
  /**
   * Calls `listener` with the user after each change. Returns a function that stops this.
   * 用户变化后调用 `listener`。返回取消监听的函数。
   */
  onChange(listener: (user: User | null) => void): () => void
  /**
   * Resolves to the user of the stored session, otherwise logs in with `wx.login`. With `force` or a field, it always
   * logs in again. Simultaneous calls share one login, if they have the same fields or none: one tap makes one login.
   * 返回本地会话的用户，没有会话则用 `wx.login` 登录；带 `force` 或任何字段时必定重新登录。并发调用若不带字段或字段相同，
   * 只登录一次，因此同一次点击只产生一次登录。
   */
  login(fields?: LoginFields): Promise<User>
  /**
   * Resolves to the code of a new `wx.login`, as a proof that the user is present. It works once, and might end the
   * session_key. If `wx.login` fails, it is tried once more here, so never repeat it. Rejects with `wx_login_failed`,
   * or `network_error` without a network.
   * 新的 `wx.login` 的 code，证明本人在场。只能使用一次，可能使 session_key 失效。`wx.login` 失败时这里会再试一次，
   * 调用方不要重复：`wx_login_failed`；没有网络时为 `network_error`。
   */
  loginCode(): Promise<string>
  /**
   * Resolves to an access token that is valid for at least half a minute (or half its lifetime). Refreshes or logs in
   * if necessary.
   * 至少还有半分钟（或一半有效期）的 access token，必要时刷新或登录。
   */
  getToken(): Promise<string>
  /**
   * Calls `wx.request` with the token. After a 401, it refreshes once and sends the request again. Any status resolves,
   * even a redirect, which is not followed. Without a response, it rejects and does not send the request again.
   * 带 token 的 `wx.request`。401 后刷新一次并重发。任何状态码都算成功（重定向不跟随）；没有响应则失败，且不重发。
   */
  request<Data = any>(options: RequestOptions | (RequestOptions & Record<string, any>)): Promise<Answer<Data>>
  /**
   * Changes the given fields. Null or an empty text clears a field.
   * 修改给出的字段；null 或空字符串表示清除。
   */
  updateProfile(changes: { nickname?: string | null; avatarUrl?: string | null; phone?: null }): Promise<User>
  /**
   * Uploads a picture, given by its local path, or by the event of `bindchooseavatar`.
   * 上传头像：本地路径，或 `bindchooseavatar` 的事件。
   */
  setAvatar(picture: string | ButtonEvent<{ avatarUrl?: string; errMsg?: string }>): Promise<User>
  /**
   * Binds the phone number. Rejects with `phone_refused` if the user refused, `phone_quota_used_up` if the account has
   * no quota left, and `phone_unavailable` if WeChat gives no code for another reason.
   * 绑定手机号。用户拒绝为 `phone_refused`，账号额度用完为 `phone_quota_used_up`，微信因其他原因没有给出 code 为 `phone_unavailable`。
   */
  bindPhone(tap: PhoneTap): Promise<User>
  /**
   * Records that the user agrees to these documents, in the versions in force, such as `{ privacy: '2026-05' }`.
   * 记录用户同意这些文件的现行版本：`{ privacy: '2026-05' }`。
   */
  consent(documents: Record<string, string>): Promise<User>
  /**
   * Records that the user withdraws a consent.
   * 记录用户撤回同意。
   */
  withdrawConsent(document: string): Promise<User>
  /**
   * Decrypts WeChat's data. After `session_key_expired`, call `login({ force: true })`, and get the data again.
   * 解密微信的加密数据。遇到 `session_key_expired` 请 `login({ force: true })` 后重新获取。
   */
  decrypt<Data = any>(sealed: { encryptedData: string; iv: string }): Promise<Data>
  /**
   * Resolves to the user's sessions on all devices, the last used first, at most 200.
   * 用户在所有设备上的会话，最近使用的在前，最多 200 个。
   */
  sessions(): Promise<Session[]>
  /**
   * Logs out on one device.
   * 使一台设备退出登录。
   */
  revokeSession(id: string): Promise<void>
  /**
   * Resolves to an id_token for another back end, such as Supabase, with a new `wx.login` as proof. It is valid for
   * five minutes. The client must have been added with `--phone-id-token`.
   * 供 Supabase 等其他后端使用的 id_token，以新的 `wx.login` 为证，有效五分钟。该客户端须以 `--phone-id-token` 添加。
   */
  idToken(clientId: string, options?: { nonce?: string }): Promise<string>
  /**
   * Forgets the session immediately, and ends it in the service, as far as the network allows. With `everywhere`, it
   * ends the sessions on all devices. It never rejects, and takes precedence over a login or a refresh in progress.
   * 立即清除本地会话，并尽量在服务端结束它；`everywhere` 表示所有设备。从不失败，优先于进行中的登录或刷新。
   */
  logout(options?: { everywhere?: boolean }): Promise<void>
  /**
   * Erases the user in the service, with a new `wx.login` as proof, and the session here. If the service has a waiting
   * period, it erases the user after that, and until then, a login fails with `account_leaving`.
   * 注销：在服务端删除该用户（以新的 `wx.login` 为证），并清除本地会话。若服务设有冷静期，则期满才删除，其间登录为 `account_leaving`。
   */
  deleteAccount(): Promise<void>
}

/**
 * Loads the stored session, without the network. Throws an AuthError if `baseURL` or an origin is malformed.
 * 读取本地会话，不访问网络。`baseURL` 或某个源格式错误时抛出 AuthError。
 */
export declare function createAuth(options: AuthOptions): Auth
