// What the page says, in two languages. An element with `data-text="name"` shows that text.

const TEXTS = {
  title: ['The phone on the desk', '网页版模拟手机'],
  lead: ['A phone, WeChat simulated, and the real wxauth at', '模拟的手机与微信，真实的 wxauth：'],
  docs: ['API docs', '接口文档'],
  help: ['The simulator', '模拟微信说明'],
  language: ['中文', 'English'],
  refused: [
    'wxauth does not let this page in. Add its address to WXAUTH_CORS_ORIGINS, or leave that unset, and start again:',
    'wxauth 不允许此页面访问。请把本页地址加入 WXAUTH_CORS_ORIGINS，或不设置该项，然后重新启动：',
  ],
  away: ['wxauth does not answer at', 'wxauth 没有响应：'],

  phone: ['Phone', '手机'],
  person: ['Person', '用户'],
  app: ['App', '小程序'],
  later: ['wxauth does not know this app until somebody adds it:', '需先添加该小程序，wxauth 才认识它：'],
  login: ['Log in with WeChat', '微信登录'],
  loginAgain: ['Log in again', '重新登录'],
  loggedOut: ['Not logged in', '未登录'],
  noName: ['No nickname', '未设置昵称'],
  noPhone: ['no phone number', '未绑定手机号'],
  nickname: ['Nickname', '昵称'],
  save: ['Save', '保存'],
  avatar: ['Picture', '头像'],
  choose: ['Choose', '选择'],
  phoneNumber: ['Phone number', '手机号'],
  allow: ['Allow', '允许'],
  deny: ['Refuse', '拒绝'],
  steps: ['WeChat steps', '微信步数'],
  decrypt: ['Share', '授权'],
  me: ['My account', '我的账号'],
  open: ['GET /v1/me', 'GET /v1/me'],
  devices: ['Devices', '登录设备'],
  show: ['Show', '查看'],
  unknownDevice: ['Unknown device', '未知设备'],
  thisDevice: ['this one', '本机'],
  signOutOthers: ['Sign out all others', '下线其他设备'],
  signOut: ['Sign out', '退出登录'],
  signOutEverywhere: ['Sign out everywhere', '退出所有设备'],
  deleteAccount: ['Delete the account', '注销账号'],
  sureToDelete: ['Erase this user and all sessions?', '确定删除该用户及其所有会话？'],
  close: ['Close', '关闭'],

  tokens: ['Tokens', '令牌'],
  noTokens: ['None. They come with a login.', '暂无，登录后出现。'],
  accessToken: ['Access token', '访问令牌'],
  refreshToken: ['Refresh token', '刷新令牌'],
  header: ['Header', '头部'],
  claims: ['Claims', '声明'],
  left: ['… left', '剩余 …'],
  days: ['d', '天'],
  hours: ['h', '小时'],
  minutes: ['min', '分钟'],
  expired: ['expired by the phone’s clock', '按手机时钟已过期'],
  refresh: ['Refresh now', '立即刷新'],
  expire: ['Let it expire', '使其过期'],
  ten: ['Ten requests at once', '同时发十个请求'],
  spoil: ['Spoil it', '篡改'],
  copy: ['Copy', '复制'],
  copied: ['Copied', '已复制'],
  clock: ['Phone’s clock', '手机时钟'],
  tenMinutes: ['+10 min', '+10 分钟'],
  oneDay: ['+1 day', '+1 天'],
  rightTime: ['Set right', '校准'],
  restart: ['Restart the app', '重启小程序'],

  trouble: ['Make WeChat fail', '让微信出错'],
  api: ['Call', '接口'],
  code2session: ['login (code2session)', '登录（code2session）'],
  getuserphonenumber: ['phone number (getuserphonenumber)', '手机号（getuserphonenumber）'],
  stable_token: ['access token (stable_token)', '接口凭证（stable_token）'],
  what: ['What', '故障'],
  errcodes: ['errcode', '错误码'],
  onTheWay: ['on the way', '网络与网关'],
  times: ['How often', '次数'],
  once: ['once', '一次'],
  thrice: ['three times', '三次'],
  always: ['until all is right again', '直到恢复正常'],
  arm: ['Arm', '设置故障'],
  clear: ['All right again', '恢复正常'],
  armed: ['To come:', '待触发：'],
  becomes: ['The phone gets', '手机收到'],
  inTime: ['Nothing goes wrong, unless WECHAT_TIMEOUT is shorter.', '仍会成功，除非 WECHAT_TIMEOUT 更短。'],
  heldToken: [
    'wxauth holds one for two hours. So that it asks, the next phone number call gets 42001.',
    'wxauth 会持有约两小时；为使其重新请求，下一次手机号调用先返回 42001。',
  ],
  mended: ['wxauth renews the access token and asks again.', 'wxauth 更新接口凭证后重试。'],
  'advice.wechat_unavailable': [
    'After errcode -1 wxauth asks twice more by itself. A login is tried once more, with a fresh code.',
    '错误码 -1 时 wxauth 先自行重试两次；登录再由客户端用新 code 重试一次。',
  ],
  'advice.wechat_timeout': [
    'wxauth waits for WECHAT_TIMEOUT. A login is tried once more, with a fresh code.',
    'wxauth 最多等待 WECHAT_TIMEOUT；登录再由客户端用新 code 重试一次。',
  ],
  'advice.invalid_code': ['A login is tried once more, with a fresh code.', '登录由客户端用新 code 重试一次。'],
  'advice.code_used': ['A login is tried once more, with a fresh code.', '登录由客户端用新 code 重试一次。'],
  'advice.wechat_rate_limited': [
    'Retry-After says when to try again; wxauth itself asks for no access token before.',
    '请按 Retry-After 稍后再试；在此之前 wxauth 自己也不会再请求接口凭证。',
  ],
  'advice.wechat_user_blocked': ['Nothing helps: WeChat refuses this person.', '微信拒绝该用户，重试无用。'],
  'advice.wechat_misconfigured': [
    'The operator must mend the configuration; the log says what.',
    '需运维修正配置，日志中有说明。',
  ],
  'advice.wechat_bad_response': ['wxauth does not take it; nothing is tried again.', 'wxauth 不接受，也不会重试。'],

  misuse: ['Misuse', '误用'],
  codeTwice: ['Use one code twice', '同一 code 用两次'],
  oldRefresh: ['Send an old refresh token', '重发旧的刷新令牌'],
  withinGrace: [
    'It was used a moment ago: within REFRESH_REUSE_GRACE it gets the same successor again, as after a lost answer.',
    '该令牌刚刚用过：在 REFRESH_REUSE_GRACE 秒内重发会得到同一个新令牌，如同上次的响应丢失。',
  ],
  noOldRefresh: ['There is no old one yet: refresh first.', '还没有旧令牌，请先刷新。'],

  pushes: ['Message push', '消息推送'],
  told: ['WeChat tells wxauth that the person', '微信通知 wxauth：该用户'],
  withdrawName: ['withdraws name and picture', '撤回昵称头像'],
  withdrawPhone: ['withdraws the phone number', '撤回手机号'],
  closeAccount: ['closes the WeChat account', '注销微信账号'],

  wires: ['On the wires', '请求与响应'],
  noWires: ['Nothing yet. Tap something.', '暂无，请点一下手机。'],
  noCall: ['no request', '无请求'],
  empty: ['Clear', '清空'],
  elsewhere: ['Not from this page', '非本页触发'],
  phoneToWeChat: ['phone → WeChat', '手机 → 微信'],
  phoneToService: ['phone → wxauth', '手机 → wxauth'],
  serviceToWeChat: ['wxauth → WeChat', 'wxauth → 微信'],
  weChatToService: ['WeChat → wxauth', '微信 → wxauth'],
  request: ['Request', '请求'],
  answer: ['Answer', '响应'],
  nothing: ['no answer', '无响应'],
  underWay: ['under way', '进行中'],

  'claim.iss': ['who issued it', '签发者'],
  'claim.sub': ['the user', '用户 id'],
  'claim.aud': ['whom it is for', '接收方'],
  'claim.exp': ['good until', '有效至'],
  'claim.iat': ['issued at', '签发于'],
  'claim.jti': ['its own id', '令牌 id'],
  'claim.client_id': ['the app', '小程序'],
  'claim.sid': ['the session', '会话'],
  'claim.openid': ['the person in that app', '该小程序中的用户'],
  'claim.roles': ['roles', '角色'],
}

let column = /^zh/i.test(navigator.language) ? 1 : 0

/** The phone's language, as WeChat names it in Accept-Language. */
export const language = () => (column ? 'zh-CN' : 'en')

export const text = (name) => TEXTS[name]?.[column] ?? name

/** Of `{ en, zh }`, the one of now. */
export const either = ({ en, zh }) => (column ? zh : en)

export function toggleLanguage() {
  column = 1 - column
  showTexts()
}

export function showTexts() {
  document.documentElement.lang = language()
  document.title = `wxauth · ${text('title')}`
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = text(element.dataset.text)
}
