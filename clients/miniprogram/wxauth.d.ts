/* eslint-disable */
// Types of wxauth.js, for TypeScript 2.8 and newer. All promises reject with an AuthError. 所有 Promise 失败时都是 AuthError。

/**
 * The options of `createAuth`.
 * `createAuth` 的参数。
 */
export interface AuthOptions {
  /**
   * The URL of the service, including its path if it has a path. An example is `https://auth.example.com`.
   * wxauth 的地址，有路径则带上路径，例如 `https://auth.example.com`。
   */
  baseURL: string
  /**
   * The mini-program's appid. By default, it is the appid of the running mini-program or, in a plugin, of the plugin. If
   * this appid is unknown, it is the first app of the service.
   * 小程序的 appid。默认为当前小程序的，在插件中为插件的；取不到时为服务的第一个应用。
   */
  appId?: string
  /**
   * Other origins to which `request` sends the token, such as `https://api.example.com`.
   * `request` 可携带 token 访问的其他源，例如 `https://api.example.com`。
   */
  origins?: ReadonlyArray<string>
  /**
   * Whether the SDK logs in by itself with `wx.login` when it needs a session. The default is true. Set it to false to
   * allow guests. Without a session, `request` then sends requests without a token, and functions that require a login
   * reject with `login_required`.
   * 需要会话时是否静默登录（自行调用 `wx.login`），默认 true。设为 false 即允许游客：没有会话时 `request` 不带 token 照常发出，
   * 必须登录的方法以 `login_required` 失败。
   */
  silent?: boolean
  /**
   * Returns whether a response of your services with a status other than 401 means that the token was refused. An
   * example is `({ data }) => data.errno === 501`. It can be async. If it throws or rejects, the token counts as
   * accepted.
   * 返回除 401 外的响应是否表示 token 被拒绝，例如 `({ data }) => data.errno === 501`。可以是 async。抛出异常视为未被拒绝。
   */
  isRefused?(answer: Answer): any
  /**
   * An object that behaves like `wx`. By default, it is `wx`, or `uni` if there is no `wx`. Interceptors of
   * `uni.request` do not affect `wx`.
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
 * The members of `wx` or `uni` that the SDK uses. All of them take callbacks.
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
  /**
   * Needed only for `auth.downloadFile`.
   * 仅 `auth.downloadFile` 需要。
   */
  downloadFile?(options: {
    url: string
    header?: Record<string, string>
    timeout?: number
    success(answer: { statusCode: number }): void
    fail(error: { errMsg: string }): void
  }): any
  getStorageSync(key: string): any
  setStorageSync(key: string, value: string): void
  removeStorageSync(key: string): void
  /**
   * Returns the appid, if none is given.
   * 未传 appid 时用来取 appid。
   */
  getAccountInfoSync?(): { miniProgram: { appId: string }; plugin?: { appId: string } }
  /**
   * Identifies the single-page mode of Moments (scene 1154), in which users cannot log in.
   * 用来识别朋友圈打开的单页模式（场景值 1154），其中无法登录。
   */
  getEnterOptionsSync?(): { scene: number }
}

/**
 * A user in the app of the session. Times are in the format of RFC 3339.
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
   * Whether WeChat has verified the number. It is false if the number was only imported, and null if there is no
   * number.
   * 仅导入、未经微信验证的号码为 false；没有号码为 null。
   */
  phone_verified: boolean | null
  /**
   * The user's id in the system that you used before wxauth.
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
 * A login on one device. Times are in the format of RFC 3339.
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
   * The IP address of the last use.
   * 最近一次使用的 IP。
   */
  ip: string | null
  /**
   * The IP address and the device at the time of the login.
   * 登录时的 IP 与设备。
   */
  opened: { ip: string | null; device: string | null }
  created_at: string
  last_used_at: string
  expires_at: string
  /**
   * The client that is allowed to use a resource, the resource, and the scopes. All are null for any other login.
   * 可访问资源的客户端、该资源及其权限范围；其他登录为 null。
   */
  client: { title: string; host: string | null } | null
  resource: { resource: string; title: string } | null
  scopes: string[] | null
  /**
   * Whether this session has sent the request.
   * 是否为发起本次请求的会话。
   */
  current: boolean
}

/**
 * The optional fields of a login. Missing or empty fields change nothing.
 * 登录的可选字段。不传或为空则不改变。
 */
export interface LoginFields {
  /**
   * Whether to log in again even if the stored session is still valid. The login uses a new `wx.login` and a new
   * session_key.
   * 本地会话未过期时也重新登录，使用新的 `wx.login` 和新的 session_key。
   */
  force?: boolean
  nickname?: string | null
  /**
   * An https URL. For a picture from `chooseAvatar`, call `setAvatar` after the login.
   * https 地址。`chooseAvatar` 选的图片请在登录后调用 `setAvatar`。
   */
  avatarUrl?: string | null
  /**
   * The tap on the phone button, as in `bindPhone`. If it has failed or contains no code, the login still succeeds, and
   * `auth.phoneError` contains the reason.
   * 点击手机号按钮的事件，同 `bindPhone`。失败或没有 code 时登录仍成功，原因见 `auth.phoneError`。
   */
  phone?: PhoneTap | null
  /**
   * The code of the tap. Use it instead of `phone` if you only have the code.
   * 点击手机号按钮得到的 code。只有 code 时用它代替 `phone`。
   */
  phoneCode?: string | null
  /**
   * The documents that the user agrees to, such as `{ privacy: '2026-05' }`. Versions that are not in force are
   * ignored, and the user must still agree to the document.
   * 用户同意的文件，例如 `{ privacy: '2026-05' }`。非现行版本会被忽略，用户仍需同意该文件。
   */
  consents?: Record<string, string>
  /**
   * Whether to cancel the erasure that the user has requested. Set it after `account_leaving`.
   * 在 `account_leaving` 之后撤销用户申请的注销。
   */
  stay?: boolean
}

/**
 * The options of a request, like the options of `wx.request`. Other options are passed on to `wx.request`. `success`,
 * `fail` and `complete` are not called.
 * 请求的参数，同 `wx.request`。其他参数原样传给 `wx.request`，但不会调用 `success`、`fail`、`complete`。
 */
export interface RequestOptions {
  /**
   * The URL. Its origin must be the origin of `baseURL` or one of `origins`. A relative URL is appended to `baseURL`.
   * 请求的地址，须属于 `baseURL` 或 `origins` 的源。相对地址拼在 `baseURL` 之后，即发给 wxauth。
   */
  url: string
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  data?: string | object | ArrayBuffer
  /** The headers without `Authorization`, because the SDK sets it. 请求头，不含 `Authorization`，它由 SDK 填写。 */
  header?: Record<string, any>
  /**
   * The timeout in milliseconds.
   * 超时时间，单位为毫秒。
   */
  timeout?: number
  dataType?: string
  responseType?: 'text' | 'arraybuffer' | (string & {})
  /**
   * Has no effect. The SDK always passes `'manual'`, so that the token is never sent to the target of a redirect. Phones
   * with a base library before 3.2.2 ignore it and follow redirects, so your services must not redirect.
   * 不起作用。SDK 总是传 `'manual'`，以免 token 被发往重定向的目标。基础库低于 3.2.2 的手机会忽略它并跟随重定向，因此你的服务不要重定向。
   */
  redirect?: string
  /**
   * Like `silent` in `createAuth`, but only for this request.
   * 仅对本次请求生效，含义同 `createAuth` 的 `silent`。
   */
  silent?: boolean
  /**
   * Whether the response arrives in pieces, for example from a language model. A 401 before the first piece is handled
   * as usual.
   * 是否分块接收响应，例如大模型的回答。首块之前的 401 照常处理。
   */
  enableChunked?: boolean
  /**
   * Receives each piece if `enableChunked` is set. A character might be split between two pieces.
   * 设置 `enableChunked` 后，每收到一块就调用一次。一个字符可能被分在两块中。
   */
  onChunk?(piece: ArrayBuffer): void
  /**
   * Receives the request's task, and after a 401 also the task of the second attempt. If you call `abort()` of either
   * task, the request rejects with `aborted`.
   * 传入请求任务；401 后重发时再次传入新的任务。任一个的 `abort()` 都使请求以 `aborted` 失败。
   */
  onTask?(task: RequestTask): void
}

/**
 * The return value of `wx.request`, with only the member that is used here.
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
  errMsg: string
  cookies?: string[]
  /**
   * WeChat's timings, as other members of its responses, are passed on unchanged.
   * 微信的耗时信息。微信响应中的其他成员也原样返回。
   */
  profile?: any
}

/**
 * The options of an upload, like the options of `wx.uploadFile`. Other options are passed on to `wx.uploadFile`.
 * 上传的参数，同 `wx.uploadFile`。其他参数原样传给 `wx.uploadFile`。
 */
export interface UploadOptions {
  /** Like the `url` of a request. 同 `request` 的 `url`。 */
  url: string
  filePath: string
  name: string
  formData?: Record<string, any>
  /** The headers without `Authorization`, because the SDK sets it. 请求头，不含 `Authorization`，它由 SDK 填写。 */
  header?: Record<string, any>
  /** The timeout in milliseconds. 超时时间，单位为毫秒。 */
  timeout?: number
  /** Like `silent` in `createAuth`, but only for this upload. 仅对本次上传生效，含义同 `createAuth` 的 `silent`。 */
  silent?: boolean
  success?(answer: UploadAnswer): void
  fail?(error: TransferError): void
  complete?(result: UploadAnswer | TransferError): void
}

/**
 * The options of a download, like the options of `wx.downloadFile`. Other options are passed on to `wx.downloadFile`.
 * 下载的参数，同 `wx.downloadFile`。其他参数原样传给 `wx.downloadFile`。
 */
export interface DownloadOptions {
  /** Like the `url` of a request. 同 `request` 的 `url`。 */
  url: string
  filePath?: string
  /** The headers without `Authorization`, because the SDK sets it. 请求头，不含 `Authorization`，它由 SDK 填写。 */
  header?: Record<string, any>
  /** The timeout in milliseconds. 超时时间，单位为毫秒。 */
  timeout?: number
  /** Like `silent` in `createAuth`, but only for this download. 仅对本次下载生效，含义同 `createAuth` 的 `silent`。 */
  silent?: boolean
  success?(answer: DownloadAnswer): void
  fail?(error: TransferError): void
  complete?(result: DownloadAnswer | TransferError): void
}

/** What `wx.uploadFile` returns, with any status. `wx.uploadFile` 的结果，可能是任意状态码。 */
export interface UploadAnswer {
  statusCode: number
  data: string
  errMsg: string
}

/** What `wx.downloadFile` returns, with any status. `wx.downloadFile` 的结果，可能是任意状态码。 */
export interface DownloadAnswer {
  statusCode: number
  tempFilePath: string
  filePath: string
  errMsg: string
}

/** The reason why an upload or a download got no response. 上传或下载没有得到响应的原因。 */
export interface TransferError extends AuthError {
  errMsg: string
}

/**
 * The task of an upload or a download, like WeChat's. It exists before the SDK has sent anything, and follows the second
 * attempt if a 401 makes the SDK send the file again. The progress then starts again.
 * 上传或下载的任务，同微信的任务。SDK 尚未发送时它就已存在；401 后 SDK 重新发送时，它对应第二次发送，进度从头开始。
 */
export interface TransferTask<Progress> {
  /** Ends the upload or the download. `fail` is called with the code `aborted`. 中止传输，`fail` 的 code 为 `aborted`。 */
  abort(): void
  onProgressUpdate(listener: (progress: Progress) => void): void
  offProgressUpdate(listener?: (progress: Progress) => void): void
  onHeadersReceived(listener: (head: { header: Record<string, any> }) => void): void
  offHeadersReceived(listener?: (head: { header: Record<string, any> }) => void): void
}

export interface UploadProgress {
  progress: number
  totalBytesSent: number
  totalBytesExpectedToSend: number
}

export interface DownloadProgress {
  progress: number
  totalBytesWritten: number
  totalBytesExpectedToWrite: number
}

/**
 * A button's event, with only the members that are used here.
 * 按钮事件，仅列出用到的成员。
 */
export interface ButtonEvent<Detail> {
  detail: Detail
}

/**
 * A tap on the phone button, which is the event of `bindgetphonenumber` or its code.
 * 对手机号按钮的点击，即 `bindgetphonenumber` 的事件，或其中的 code。
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
   * The error code of the service or of the SDK. docs/reference/errors.md explains each code, and says what to do next.
   * The SDK has the following codes:
   *
   * - `network_error`, `timeout`
   * - `aborted`: `onTask` aborted the request, or the user chose no picture.
   * - `wx_login_failed`
   * - `login_required`: The user is a guest.
   * - `single_page`
   * - `phone_refused`, `phone_unavailable`, `phone_quota_used_up`
   * - `invalid_argument`, `origin_not_allowed`
   * - `domain_not_allowed`: Add the domain in WeChat's console.
   * - `no_platform`: The function does not exist on this platform.
   * - `http_error`: The response is not a problem document.
   * - `session_revoked`: The session has ended. It also means that the user logged out, or another user logged in,
   *   during the request. A response, if there was one, belonged to the previous session.
   * - `session_replaced`: A login on another device replaced this session. Only `login()` opens a new session.
   *
   * 服务返回的 code，或上面列出的 SDK 自己的 code。`login_required` 表示用户是游客，`domain_not_allowed` 表示域名未加入合法域名，
   * `no_platform` 表示当前环境没有该函数，`http_error` 表示响应不是来自 wxauth。`session_revoked` 也表示请求期间用户退出了登录，
   * 或换了人登录，响应（若有）属于之前的会话。`session_replaced` 表示会话被另一台设备的登录取代，只有 `login()` 会建立新会话。
   * 每个 code 的处理办法见 docs/zh/reference/errors.md。
   */
  code: string
  /**
   * One short sentence for the user, fit for `wx.showToast`. It is Chinese, or English if WeChat is not in Chinese.
   * 给用户看的一句话，可直接用于 `wx.showToast`：中文；微信语言不是中文时为英文。
   */
  title: string
  /**
   * The fields that the service refused, with the names that the service uses. The list is empty for other errors.
   * 服务拒绝的字段，使用服务端的字段名。其他错误为空数组。
   */
  errors: { field: string; message: string }[]
  /**
   * The HTTP status, or null if there was no response.
   * HTTP 状态码，没有响应时为 null。
   */
  status: number | null
  /**
   * The id of this request in the service's log.
   * 本次请求在服务日志中的 ID。
   */
  requestId: string | null
  /**
   * The number of seconds to wait before the next attempt, if the service returns it.
   * 服务要求的重试等待秒数。
   */
  retryAfter: number | null
  /**
   * WeChat's error code, if WeChat refused a call of the service.
   * 微信拒绝服务端调用时的微信错误码。
   */
  wechatErrcode: number | null
  /**
   * For `account_disabled`, the time at which the ban ends by itself, in the format of RFC 3339. `title` contains this
   * time in the phone's time zone.
   * `account_disabled` 时，为自动解封的时间。`title` 中是按手机时区显示的同一时间。
   */
  until: string | null
  /**
   * For `account_leaving`, the time at which the user will be erased, in the format of RFC 3339. To prevent this, log
   * in with `stay`.
   * `account_leaving` 时，为注销生效的时间。加 `stay` 登录可撤销注销。
   */
  eraseAt: string | null
}

/**
 * A user's session on this phone. Its functions do not need `this`.
 * 用户在本机的会话。各方法不依赖 `this`。
 */
export interface Auth {
  /**
   * The last known user, which is available immediately, even after a restart. It is null if no user is logged in.
   * 最近已知的用户，重启后也立即可用。未登录时为 null。
   */
  readonly user: User | null
  /**
   * Whether the last login created this user. It is false before a login.
   * 最近一次登录是否新建了用户。登录前为 false。
   */
  readonly isNewUser: boolean
  /**
   * The error code that explains why the last login did not bind the number of its `phone`. It is null if the number
   * was bound, or if the login had no `phone` or `phoneCode`.
   * 最近一次登录未能绑定手机号的原因（code）。已绑定、或登录时未传 `phone` 或 `phoneCode` 时为 null。
   */
  readonly phoneError: string | null
  /**
   * The fields that the last login ignored, each with its error code, such as `{ nickname: 'invalid_request' }`. It is
   * null if no field was ignored.
   * 最近一次登录忽略的字段及其原因，例如 `{ nickname: 'invalid_request' }`。没有则为 null。
   */
  readonly ignored: Record<string, string> | null
  /**
   * The error code that explains why the last session ended, such as `account_disabled` or `session_revoked`. It is
   * `signed_out` after `logout()` or `deleteAccount()`. It is null before a session has ended, and after the next login.
   * 最近一次会话结束的原因（code），例如 `account_disabled`、`session_revoked`。`logout()` 或 `deleteAccount()` 之后为 `signed_out`。
   * 没有会话结束过、或再次登录之后为 null。
   */
  readonly endedBy: string | null
  /**
   * Calls `listener` with the user and `endedBy` after each change of the user. Returns a function that removes the
   * listener.
   * 用户变化后，以用户与 `endedBy` 调用 `listener`。返回取消监听的函数。
   */
  onChange(listener: (user: User | null, endedBy: string | null) => void): () => void
  /**
   * Resolves to the user of the stored session. If there is no session, it logs in with `wx.login`. With `force` or a
   * field, it always logs in again. Simultaneous calls share one login if they have the same fields or no fields, so
   * one tap causes one login.
   * 返回本地会话的用户，没有会话则用 `wx.login` 登录。带 `force` 或任何字段时必定重新登录。并发调用若不带字段或字段相同，
   * 只登录一次，因此同一次点击只产生一次登录。
   */
  login(fields?: LoginFields): Promise<User>
  /**
   * Resolves to the code of a new `wx.login`, which proves that the user is present. The code works once, and might
   * invalidate the session_key. If `wx.login` fails or does not call back, this function tries once more, so do not
   * repeat the call. Rejects with `wx_login_failed`, or with `network_error` if there is no network.
   * 返回新的 `wx.login` 的 code，用来证明本人在场。code 只能使用一次，且可能使 session_key 失效。`wx.login` 失败或没有回调时，
   * 本方法会再试一次，调用方不要重复。失败时报 `wx_login_failed`，没有网络时报 `network_error`。
   */
  loginCode(): Promise<string>
  /**
   * Resolves to an access token that is valid for at least another half a minute, or half its lifetime if that is
   * shorter. Refreshes the token or logs in if necessary.
   * 返回至少还有半分钟（或一半有效期）的 access token，必要时刷新或登录。
   */
  getToken(): Promise<string>
  /**
   * Calls `wx.request` with the token. After a 401, it refreshes the token and sends the request once more. It resolves
   * for any status. A redirect also resolves, because it is not followed. If there is no response, it rejects and does
   * not send the request again.
   * 带 token 调用 `wx.request`。遇到 401 时刷新 token，并重发一次。任何状态码都算成功，包括重定向（不会跟随）。没有响应则失败，
   * 且不重发。
   */
  request<Data = any>(options: RequestOptions | (RequestOptions & Record<string, any>)): Promise<Answer<Data>>
  /**
   * Calls `wx.uploadFile` with the token. Guests, refreshes, a 401 and a logout are handled as for `request`. Returns the
   * task immediately, and calls the callbacks as `wx.uploadFile` does. `fail` gets an AuthError that also has an `errMsg`.
   * 带 token 调用 `wx.uploadFile`。游客、刷新、401 与退出登录的处理同 `request`。立即返回任务，并像 `wx.uploadFile` 一样调用回调。
   * `fail` 收到带 `errMsg` 的 AuthError。
   */
  uploadFile(options: UploadOptions | (UploadOptions & Record<string, any>)): TransferTask<UploadProgress>
  /**
   * Calls `wx.downloadFile` with the token, as `uploadFile` does for uploads. WeChat writes the file for any status, so
   * check `statusCode`.
   * 带 token 调用 `wx.downloadFile`，规则同 `uploadFile`。无论状态码是什么，微信都会写入文件，因此请检查 `statusCode`。
   */
  downloadFile(options: DownloadOptions | (DownloadOptions & Record<string, any>)): TransferTask<DownloadProgress>
  /**
   * Changes the given fields. Use null or an empty text to clear a field.
   * 修改给出的字段。null 或空字符串表示清除。
   */
  updateProfile(changes: { nickname?: string | null; avatarUrl?: string | null; phone?: null }): Promise<User>
  /**
   * Uploads the user's picture. `picture` is its local path, or the event of `bindchooseavatar`.
   * 上传头像。`picture` 是本地路径，或 `bindchooseavatar` 的事件。
   */
  setAvatar(picture: string | ButtonEvent<{ avatarUrl?: string; errMsg?: string }>): Promise<User>
  /**
   * Binds the phone number. Rejects with `phone_refused` if the user refused, with `phone_quota_used_up` if your WeChat
   * account has no quota left, and with `phone_unavailable` if WeChat returned no code for another reason.
   * 绑定手机号。用户拒绝时报 `phone_refused`，小程序账号的额度用完时报 `phone_quota_used_up`，微信因其他原因没有给出 code 时报
   * `phone_unavailable`。
   */
  bindPhone(tap: PhoneTap): Promise<User>
  /**
   * Records that the user agrees to these documents, such as `{ privacy: '2026-05' }`. The versions must be in force.
   * 记录用户同意这些文件的现行版本，例如 `{ privacy: '2026-05' }`。
   */
  consent(documents: Record<string, string>): Promise<User>
  /**
   * Records that the user withdraws a consent.
   * 记录用户撤回同意。
   */
  withdrawConsent(document: string): Promise<User>
  /**
   * Decrypts data from WeChat. After `session_key_expired`, call `login({ force: true })`, and get the data from WeChat
   * again.
   * 解密微信的加密数据。遇到 `session_key_expired` 时，请调用 `login({ force: true })`，再重新获取加密数据。
   */
  decrypt<Data = any>(sealed: { encryptedData: string; iv: string }): Promise<Data>
  /**
   * Resolves to the user's sessions on all devices, at most 200. The session that was used last comes first.
   * 返回用户在所有设备上的会话，最近使用的在前，最多 200 个。
   */
  sessions(): Promise<Session[]>
  /**
   * Logs out on one device.
   * 使一台设备退出登录。
   */
  revokeSession(id: string): Promise<void>
  /**
   * Resolves to an id_token for another back end, such as Supabase. As proof that the user is present, this function
   * calls `wx.login`. The id_token is valid for five minutes. Add the client with `--phone-id-token`.
   * 返回供 Supabase 等其他后端使用的 id_token。本方法会调用 `wx.login`，证明本人在场。id_token 有效五分钟。添加该客户端时需要加
   * `--phone-id-token`。
   */
  idToken(clientId: string, options?: { nonce?: string }): Promise<string>
  /**
   * Deletes the local session immediately, and ends it in the service if the network allows this. With `everywhere`, it
   * ends the sessions on all devices. It never rejects, takes precedence over a login or a refresh in progress, and aborts
   * the session's pending requests, uploads and streams.
   * 立即清除本地会话，并在网络可用时在服务端结束它。`everywhere` 表示结束所有设备上的会话。本方法从不失败，优先于进行中的登录或刷新，
   * 并中止该会话尚未完成的请求、上传与流式响应。
   */
  logout(options?: { everywhere?: boolean }): Promise<void>
  /**
   * Erases the user in the service and deletes the local session. As proof that the user is present, this function
   * calls `wx.login`. If the service has a waiting period, it erases the user after this period. Until then, a login
   * fails with `account_leaving`.
   * 注销用户：在服务端删除该用户，并清除本地会话。本方法会调用 `wx.login`，证明本人在场。如果服务设有冷静期，期满才会删除，
   * 其间登录报 `account_leaving`。
   */
  deleteAccount(): Promise<void>
}

/**
 * Creates the object that manages the session, and loads the stored session without the network. Throws an AuthError if
 * `baseURL` or an origin is malformed.
 * 创建管理会话的对象，并读取本地会话，不访问网络。`baseURL` 或某个源格式错误时抛出 AuthError。
 */
export declare function createAuth(options: AuthOptions): Auth
