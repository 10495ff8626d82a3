// The phone on the desk. It runs the real client on a `wx` for browsers, and shows all requests and responses.

import { createAgent } from './agent.js'
import { createWx } from './browser_wx.js'
import { clockTime, duration, h, pretty } from './elements.js'
import { beAlone, either, language, showTexts, text, toggleLanguage, withWholeNames } from './texts.js'
import { showTokens, tick, tokensOf } from './tokens.js'
import { createAuth } from './wxauth.js'
import { approve, claim, deny, scanOf } from './wxauth-scan.js'
import { authorize } from './wxauth-site.js'
import { createWires, showExample } from './wires.js'

const MAX_OLD_TOKENS = 5
const TOAST_MS = 4000
const POLL_MS = 1000
const ORDER_REQUESTS = 10 // together with the pause, longer than the 15 s after which a refused notice is repeated
const ORDER_PAUSE_MS = 2000
const DELIVERED = 'xpay_goods_deliver_notify' // WeChat's names of the events in notices about orders
const REFUNDED = 'xpay_refund_notify'
// A retry by the service or by wxauth.js can overcome these errors, so the phone does not show them.
const RETRIED_ERRORS = ['wechat_unavailable', 'wechat_timeout', 'invalid_code', 'code_used']
const QR_CODE_PATH = '/getwxacodeunlimit' // the WeChat API that makes QR codes
const WECHAT_LINK = /^(weixin:\/\/dl\/business\/|https:\/\/wxaurl\.cn\/)/
const BY_SCHEME = 1286 // WeChat's numbers ("scenes") for how a mini-program was opened
const BY_URL_LINK = 1194
const ENTRY_SCENES = [1047, 1011, 1048, 1049, 1012, 1013, BY_SCHEME, BY_URL_LINK, 1167, 1007, 1008]
const BROWSERS = ['web_view', 'wechat', 'phone', 'computer']
const EXAMPLE_LOGIN = [
  { direction: 'phoneToWeChat', what: 'wx.login()', ms: 20 },
  { direction: 'phoneToService', what: 'POST /v1/login', status: 200, ms: 30 },
  { direction: 'serviceToWeChat', what: 'GET /sns/jscode2session', status: 200, ms: 1 },
]
const TOKEN_API = 'stable_token' // requested by the service only if it has no access token, or a refused one

const $ = (id) => document.getElementById(id)
const setup = await (await fetch('setup')).json()
const service = setup.service_url
const wires = createWires($('taps'), service, setup.shop_url)

globalThis.wx = { getAppBaseInfo: () => ({ language: language() }) } // the data that a phone reports about itself

const agentWx = createWx({
  userAgent: () => 'agent/1.0',
  send,
  observe: (exchange) => wires.notePhone(exchange, 'agent'),
})
const agent = createAgent({
  request: (options) => resultOf(agentWx, 'request', options),
  ...setup.agent,
  place: $('agent-state'),
})

// These functions are about the phone. Each pair of a person and an app is a phone, with its own storage.

let shiftMs = Number(localStorage.getItem('desk/shift')) // how much the phone's clock is ahead
let auth, phoneWx, tokens, user // of the current phone; see `usePhone`
let oldRefreshTokens = [] // the newest first
const pageId = crypto.randomUUID()
let revision = 0 // the newest one of the simulator's calls that the page shows

const phoneNow = () => Date.now() + shiftMs
const person = () => $('person').value
const appId = () => $('app').value
const personAndApp = () => ({ person: person(), app_id: appId() })
const prefix = () => `desk/${person()}/${appId()}/`

const userAgent = () =>
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 ' +
  `MicroMessenger/8.0.44(0x18002c2d) NetType/WIFI Language/${language().replace('-', '_')}`

/** Like `fetch`, but through the simulator, because a page cannot set the user agent, or omit `Accept-Language`. */
async function send(url, { headers: { 'User-Agent': sentUserAgent, ...headers }, ...options }) {
  const forSimulator = { 'X-Phone-Url': url, 'X-Phone-User-Agent': sentUserAgent, 'X-Desk-Page': pageId }
  const response = await fetch('request', { ...options, headers: { ...headers, ...forSimulator } })
  if (response.headers.has('X-Phone-Error')) throw new Error(await response.text())
  return response
}

/** Post JSON to the simulator, which plays WeChat, and return its response. Throws: Error, with its reason. */
async function simulated(path, body) {
  const response = await fetch(path, { method: 'POST', body: JSON.stringify(body) })
  const content = await response.json()
  if (!response.ok) throw new Error(content.error)
  return content
}

/** Switch to the phone of the chosen person and app, or restart this phone. */
function usePhone() {
  localStorage.setItem('desk/person', person())
  localStorage.setItem('desk/app', appId())
  const owner = personAndApp()
  const login = () => simulated('/codes', owner)
  const noteTokens = (exchange) => {
    wires.notePhone(exchange)
    const hasEnded = exchange.ms !== null
    if (auth !== phoneAuth || !hasEnded || !/\/v1\/(login|refresh)$/.test(exchange.url)) return
    if (exchange.status === 200) keepTokens(tokensOf(exchange.answer, phoneNow()))
    else if (exchange.status === 400 && exchange.url.endsWith('/refresh')) keepTokens(null)
  }
  const options = { login, prefix: prefix(), userAgent, send }
  phoneWx = createWx({ ...options, observe: wires.notePhone })
  const phoneAuth = createAuth({
    baseURL: service,
    origins: [setup.site_url, setup.shop_url],
    appId: appId(),
    platform: createWx({ ...options, observe: noteTokens }),
    now: phoneNow,
  })
  auth = phoneAuth
  auth.onChange((newUser) => {
    if (auth !== phoneAuth) return // another phone has been chosen since
    if (!newUser) keepTokens(null)
    showUser(newUser)
  })
  oldRefreshTokens = []
  tokens = auth.user && JSON.parse(localStorage.getItem(`${prefix()}tokens`))
  closeSheet()
  $('app-id').textContent = appId()
  $('later').hidden = appId() !== setup.later_app_id
  showUser(auth.user)
  renderTokens()
}

/** Store and show new tokens, or none if they are null. */
function keepTokens(newTokens) {
  if (tokens && newTokens) oldRefreshTokens = [tokens.refresh, ...oldRefreshTokens].slice(0, MAX_OLD_TOKENS)
  tokens = newTokens
  if (newTokens) localStorage.setItem(`${prefix()}tokens`, JSON.stringify(newTokens))
  else localStorage.removeItem(`${prefix()}tokens`)
  renderTokens()
}

function setShift(ms) {
  shiftMs = ms
  localStorage.setItem('desk/shift', String(ms))
  showTimes()
}

/** Move the phone's clock forward to the time at which the access token expires. */
function expire() {
  if (tokens) setShift(shiftMs + Math.max(0, tokens.at + tokens.life - phoneNow()))
}

// These are the actions of the buttons. `index.html` names them in `data-tap` and `data-taps`. An action can return a
// text for the toast.

const getMe = () => auth.request({ url: '/v1/me' })

async function makeCode(path) {
  const { code } = await simulated(path, personAndApp())
  $('made').textContent = code
}

async function bindPhone() {
  await auth.bindPhone({ detail: await simulated('/phone-codes', personAndApp()) })
}

const TAPS = {
  login: () => auth.login(),
  loginAgain: () => auth.login({ force: true }),
  save: () => auth.updateProfile({ nickname: $('nickname').value }),
  avatar: () => auth.setAvatar({ detail: { avatarUrl: URL.createObjectURL($('file').files[0]) } }),
  allow: bindPhone,
  allowNow: bindPhone, // WeChat has checked the number at this tap, but its code is used like any other
  noQuota: () => auth.bindPhone({ detail: { errMsg: 'getRealtimePhoneNumber:fail', errno: 1400001 } }),
  deny: () => auth.bindPhone({ detail: { errMsg: 'getPhoneNumber:fail user deny' } }),
  async decrypt() {
    await auth.getToken() // the phone must be logged in, because WeChat encrypts with the session_key of a login
    const data = { stepInfoList: [{ timestamp: Math.floor(Date.now() / 1000), step: 8848 }] }
    const encrypted = await simulated('/encrypted-data', { ...personAndApp(), data })
    showSheet(await auth.decrypt(encrypted))
  },
  async me() {
    const { statusCode, data } = await getMe()
    showSheet(data)
    if (statusCode === 200) showUser(data)
  },
  async agree() {
    const { data: me } = await getMe()
    const consentsDue = me.consents_due ?? []
    if (consentsDue.length === 0) return text('agreed')
    const versions = Object.fromEntries(consentsDue.map(({ document, version }) => [document, version]))
    const { data } = await auth.request({ url: '/v1/me/consents', method: 'POST', data: versions })
    showSheet(data)
  },
  async takeBack() {
    const getConsents = async () => (await auth.request({ url: '/v1/me/consents' })).data
    const { items } = await getConsents()
    const inForce = items.filter(({ withdrawn_at }) => !withdrawn_at)
    for (const document of new Set(inForce.map((consent) => consent.document)))
      await auth.request({ url: `/v1/me/consents/${document}`, method: 'DELETE' })
    showSheet(await getConsents())
  },
  async myData() {
    const { statusCode, data } = await auth.request({ url: '/v1/me/export' })
    if (statusCode !== 200) return data.title
    showSheet(data)
  },
  buy,
  async buyFailing() {
    await send(`${setup.shop_url}/failures`, { method: 'POST', headers: { 'User-Agent': userAgent() } })
    return buy()
  },
  async count() {
    const output = h('output', { class: 'pieces' })
    const stop = h('button', { type: 'button', class: 'small' }, text('stop'))
    showSheet(output, stop)
    const decoder = new TextDecoder()
    await auth.request({
      url: setup.count_url,
      enableChunked: true,
      onTask: (task) => (stop.onclick = () => task.abort()),
      onChunk: (piece) => output.append(decoder.decode(piece, { stream: true })),
    })
    stop.remove()
  },
  devices: async () => showDevices(await auth.sessions()),
  async signOutOthers() {
    await auth.request({ url: '/v1/me/sessions', method: 'DELETE' })
    showDevices(await auth.sessions())
  },
  signOut: () => auth.logout(),
  signOutEverywhere: () => auth.logout({ everywhere: true }),
  async deleteAccount() {
    if (confirm(text('sureToDelete'))) await auth.deleteAccount()
  },

  async refresh() {
    expire()
    await auth.getToken()
  },
  expire,
  ten: () => Promise.all(Array.from({ length: 10 }, getMe)),
  /** Make the signature of the stored access token invalid, and use the token. */
  async spoil() {
    if (!tokens) return
    const spoilt = tokens.access.slice(0, -8) + 'A'.repeat(8)
    for (const [name, value] of Object.entries(localStorage))
      if (name.startsWith(prefix())) localStorage.setItem(name, value.replaceAll(tokens.access, spoilt))
    usePhone()
    await getMe()
  },

  loginCode: () => makeCode('/codes'),
  phoneCode: () => makeCode('/phone-codes'),

  async codeTwice() {
    const { code } = await resultOf(phoneWx, 'login')
    const logIn = () =>
      resultOf(phoneWx, 'request', { url: `${service}/v1/login`, method: 'POST', data: { code, app_id: appId() } })
    const first = await logIn()
    if (first.data.title) return first.data.title
    const second = await logIn()
    return second.data.title
  },
  async oldRefresh() {
    if (oldRefreshTokens.length === 0) return text('noOldRefresh')
    const data = { refresh_token: oldRefreshTokens.at(-1) }
    const response = await resultOf(phoneWx, 'request', { url: `${service}/v1/refresh`, method: 'POST', data })
    return response.statusCode === 200 ? text('withinGrace') : response.data.title
  },

  async scanIt() {
    replaceableCode = $('code').value
    showQuestion(await claim(auth, scanned(replaceableCode.trim())))
  },

  openPage: () => browse($('address').value),

  connect: agent.connect,
  listOrders: () => agent.call('list_orders'),
  placeOrder: () => agent.call('place_order', { item: text('tea') }),
  expireAgents: agent.expire,

  withdrawName: () => push({ revoke_info: '6' }),
  withdrawPhone: () => push({ revoke_info: '8' }),
  closeAccount: () => push({ event: 'user_authorization_cancellation' }),
}

/**
 * Open a page in a browser, or post a form to its URL. A login page in the web-view opens a page of the mini-program.
 * In this case, do what the demo's pages/authorize does, and open the URL to which it returns. If a redirect leads to
 * WeChat, the browser keeps its page, and the mini-program opens.
 */
async function browse(url, form = null) {
  const visitor = { person: person(), user_agent: userAgent(), browser: $('browser').value, language: language() }
  const response = await simulated('web-view', { ...visitor, url, form })
  if (response.opens) return openMiniProgram(response.opens)
  const hasLeftLogin = !response.url.startsWith(`${service}/`)
  if (hasLeftLogin) closeSheet()
  const html = response.html.replace(/ style="[^"]*"/g, '') // the policy of the desk's page refuses inline styles
  const page = new DOMParser().parseFromString(html, 'text/html')
  const invisible = '[hidden], noscript, main[data-page] details:has(.code)'
  for (const element of page.querySelectorAll(invisible)) element.remove()
  const pageData = JSON.parse(page.querySelector('main[data-page]')?.dataset.page ?? '{}')
  if (!pageData.url) return showPage(response, page)
  const [path, query] = pageData.url.split('?')
  showPage(response, page, h('p', {}, `${text('asksMiniProgram')} `, h('code', {}, path)))
  const siteRequest = Object.fromEntries(query.split('&').map((pair) => pair.split('=')))
  await browse(await authorize(auth, siteRequest))
}

/** Show the texts and the forms of a page as a browser would, followed by `more`, and by its links as buttons. */
function showPage({ url, status }, page, ...more) {
  const parts = [...page.querySelectorAll('h1, p, pre, form[method=post]')].map((element) => {
    const { tagName, textContent } = element
    if (tagName === 'FORM') return formOf(element, url)
    if (element.querySelector('a') || !textContent.trim()) return null
    return h(tagName === 'PRE' ? 'pre' : 'p', {}, withWholeNames(textContent))
  })
  const links = [...page.querySelectorAll('body a[href]')].map((link) => {
    const target = new URL(link.getAttribute('href'), url).href
    return smallButton('openPage', () => browse(target), link.textContent)
  })
  $('web-page').replaceChildren(
    h('p', {}, h('small', {}, `${status} ${url.split('?')[0]}`)),
    ...parts.filter(Boolean),
    ...more,
    h('div', { class: 'buttons' }, links),
  )
  $('web-page').hidden = false
}

/** Return a copy of a form in a browser's page. The simulator posts the copy, with the browser's cookies. */
function formOf(form, url) {
  const inputs = [...form.querySelectorAll('input[name]')]
  const fields = inputs.map(({ name, type, value }) => h('input', { name, type, value }))
  const onsubmit = () => {
    const target = new URL(form.getAttribute('action'), url).href
    const values = Object.fromEntries(fields.map(({ name, value }) => [name, value]))
    return tap('openPage', () => browse(target, values))
  }
  const label = form.querySelector('label')?.textContent
  const content = fields.map((field) => (field.type === 'hidden' ? field : h('label', {}, label ?? field.name, field)))
  const button = h('button', { class: 'small' }, form.querySelector('button').textContent)
  return h('form', { class: 'fields', onsubmit }, content, h('div', { class: 'buttons' }, button))
}

/** Open the mini-program by a link in the phone's browser. The mini-program asks whether the user has used the link. */
async function openMiniProgram(url) {
  const { appid } = partsOf(url)
  if (appid && appid !== appId()) {
    $('app').value = appid
    usePhone()
  }
  showQuestion(await claim(auth, opened(url, appid ? BY_SCHEME : BY_URL_LINK)))
}

let newestScene = '' // the content of the newest QR code
let replaceableCode = '' // the code that the page filled in, or that was scanned, so that a newer scene may replace it

/** Fill in the newest scene, unless the user has typed something or is about to. */
function fillIn() {
  const field = $('code')
  const isReplaceable = ['', replaceableCode].includes(field.value) && document.activeElement !== field
  if (!isReplaceable) return
  field.value = newestScene
  replaceableCode = newestScene
}

/**
 * Return what `claim` needs after a scan: the login code if the user has typed one, otherwise the result of `scanOf`
 * for the mini-program that the QR code or link opens.
 */
function scanned(code) {
  if (/^[a-z]{4}-?[a-z]{4}$/i.test(code)) return { user_code: code }
  const entryScene = Number($('entry').value)
  if (WECHAT_LINK.test(code)) return opened(code, entryScene)
  globalThis.wx = { getEnterOptionsSync: () => ({ scene: entryScene }) }
  const isPlainQrCode = code.startsWith(`${service}/`)
  return scanOf(isPlainQrCode ? { q: encodeURIComponent(code), scancode_time: Date.now() / 1000 } : { scene: code })
}

/** Return what `claim` needs after a link has opened the mini-program. `entryScene` is WeChat's number for the way. */
function opened(url, entryScene) {
  const { appid, query, cq } = partsOf(url)
  const pageQuery = appid ? Object.fromEntries(new URLSearchParams(query)) : { cq }
  globalThis.wx = { getEnterOptionsSync: () => ({ scene: entryScene, query: pageQuery }) }
  return scanOf(pageQuery)
}

const partsOf = (link) => Object.fromEntries(new URL(link).searchParams)

/** Call a function of a `wx` and return its result as a promise. */
const resultOf = (platform, name, options) =>
  new Promise((resolve, reject) =>
    platform[name]({ ...options, success: resolve, fail: ({ errMsg }) => reject(new Error(errMsg)) }),
  )

/** Make the simulator send a message about the person to the service. */
const push = (message) => simulated('/push', { ...personAndApp(), ...message })

/** Run an action, and group its calls below its name. Show the text that it returns, or its error, in the toast. */
async function tap(name, action = TAPS[name]) {
  wires.begin(name)
  try {
    const message = await action()
    if (typeof message === 'string') toast(message)
  } catch (error) {
    // The title is for the user, and the code for the developer.
    toast(error.title ?? error.message, error.code)
  }
  await poll()
}

/** Return a small button for an action. Without `action`, it is the one in TAPS. */
const smallButton = (name, action, label = text(name)) =>
  h('button', { type: 'button', class: 'small', onclick: () => tap(name, action) }, label)

// These functions show the state.

let toastTimer

/** Show a message, and an error's code if there is one, for some seconds. */
function toast(message, code) {
  $('toast').replaceChildren(message, code ? h('code', {}, code) : '')
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => $('toast').replaceChildren(), TOAST_MS)
}

/** Show the user whom the phone is logged in as; null if it is logged out. */
function showUser(newUser) {
  user = newUser
  const picture = user?.avatar_url?.startsWith(`${service}/`) ? user.avatar_url : ''
  $('picture').hidden = !picture
  $('initial').hidden = Boolean(picture)
  if (picture) $('picture').src = picture
  else $('picture').removeAttribute('src')
  const [initial = ''] = user ? (user.nickname ?? person()) : '?' // the first character, which can be two UTF-16 units
  $('initial').textContent = initial
  $('name').textContent = user ? (user.nickname ?? text('noName')) : text('loggedOut')
  $('number').textContent = user ? (user.phone ?? text('noPhone')) : ''
  $('user-id').textContent = user?.id ?? ''
  if (document.activeElement !== $('nickname')) $('nickname').value = user?.nickname ?? ''
}

function closeSheet() {
  document.querySelector('.screen').classList.remove('asking')
  $('sheet').replaceChildren()
  $('sheet').hidden = true
}

/** Show elements, or other values as JSON, in the sheet on the phone. A button closes the sheet. */
function showSheet(...content) {
  closeSheet()
  const close = h('button', { type: 'button', class: 'small', onclick: closeSheet }, text('close'))
  const children = content.map((child) =>
    child instanceof Node ? child : h('pre', { tabIndex: 0 }, JSON.stringify(child, null, 2)),
  )
  $('sheet').replaceChildren(...children, close)
  $('sheet').hidden = false
  $('sheet').scrollIntoView({ block: 'nearest' })
}

function showDevices(sessions) {
  const revoke = (id) =>
    tap('signOut', async () => {
      await auth.revokeSession(id)
      showDevices(await auth.sessions())
    })
  const items = sessions.map((session) => {
    const { id, ip, last_used_at, current } = session
    const button = h('button', { type: 'button', onclick: () => revoke(id) }, text('signOut'))
    return h(
      'li',
      {},
      h('span', {}, nameOfSession(session), h('small', {}, `${ip ?? ''} · ${clockTime(Date.parse(last_used_at))}`)),
      current ? h('em', {}, text('thisDevice')) : button,
    )
  })
  const others = items.length > 1 ? [smallButton('signOutOthers')] : []
  showSheet(h('ul', { class: 'devices' }, items), ...others)
}

/** Return the device of a session, after the site or the program that the session belongs to, if there is one. */
function nameOfSession({ device, client_id, client, resource }) {
  const deviceName = device || text('unknownDevice')
  if (resource) return `${client.host ?? client.title} → ${resource.title} · ${deviceName}`
  if (client_id) return `${text('website')} ${client_id} · ${deviceName}`
  return deviceName
}

/** Show the question whether to allow a login, which a scan, a link or a typed code has claimed for the user. */
function showQuestion(claimed) {
  const { client, browser, requested_ip, resource } = claimed
  const logo = client.logo ? h('img', { class: 'site-logo', src: client.logo, alt: '' }) : null
  const origin = client.origin ? h('p', { class: 'quiet' }, client.origin) : null
  const [title, ...details] = resource ? questionOfProgram(claimed) : questionOfSite(claimed)
  const from = [browser?.device, browser?.ip].filter(Boolean).join(' · ')
  const content = [
    logo,
    title,
    origin,
    ...details,
    from ? h('p', { class: 'asker' }, h('small', {}, text('askedFrom')), from) : null,
    requested_ip && requested_ip !== browser?.ip ? h('p', { class: 'asker' }, h('small', {}, text('startedFrom')), requested_ip) : null,
    claimed.typed ? h('p', {}, text('typedCode')) : null,
    claimed.link ? h('p', {}, text('didYouPress')) : null,
    decisionsOn(claimed),
  ]
  showSheet(...content.filter(Boolean))
  $('sheet').lastChild.remove() // without the button to close, the user must decide
  document.querySelector('.screen').classList.add('asking')
}

const questionOfSite = ({ client }) => [h('p', { class: 'asked' }, text('logInTo'), h('strong', {}, client.title))]

/** Return the question whether a program may use a resource. An unregistered program chooses its own title. */
function questionOfProgram({ client, resource }) {
  const isTitleUnverified = client.local || client.host
  const introduction = text(client.local ? 'localProgram' : 'callsItself')
  return [
    h('p', { class: 'asked' }, text('allow'), h('strong', {}, client.host ?? client.title)),
    isTitleUnverified ? h('p', {}, h('small', {}, `${introduction} ${client.title}`)) : null,
    h('p', {}, h('strong', {}, resource.title), ' ', h('small', {}, resource.host)),
    h('ul', {}, resource.scopes.map(({ title }) => h('li', {}, title))),
  ]
}

/** Return the buttons to deny and to approve. Both are equally easy to reach. */
function decisionsOn(claimed) {
  const button = (name, decide, doneText, kind) => {
    const onclick = () =>
      tap(name, async () => {
        const numberToType = await decide(auth, claimed)
        if (numberToType) return showNumber(numberToType)
        closeSheet()
        return text(doneText)
      })
    return h('button', { type: 'button', class: kind, onclick }, text(name))
  }
  const denyButton = button('denyIt', deny, 'refusedThere', 'plain')
  const approveButton = claimed.resource
    ? button('allowIt', approve, 'allowedThere', 'primary')
    : button('approveIt', approve, 'loggedInThere', 'primary')
  return h('div', { class: 'buttons' }, denyButton, approveButton)
}

/** Order a membership from the shop, pay, and show the order. Return the reason if the shop or the payment refuses. */
async function buy() {
  const order = () => auth.request({ url: `${setup.shop_url}/orders`, method: 'POST' })
  let response = await order()
  if (response.data.code === 'session_key_expired') {
    await auth.login({ force: true })
    response = await order()
  }
  if (response.statusCode !== 200) return response.data.title
  const { number, signData, paySig, signature } = response.data
  const { errCode, errMsg } = await simulated('/pay', { ...personAndApp(), signData, paySig, signature })
  if (errCode) return `${errMsg} (${errCode})`
  await showOrder(number, JSON.parse(signData))
}

/**
 * Show an order, and ask the shop for some seconds whether it has received WeChat's notice of `event`. The buttons make
 * WeChat send a notice of the payment again, or of a refund.
 */
async function showOrder(number, { goodsPrice }, event = DELIVERED) {
  let isReplaced = false // by the order after another notice
  const noticeButton = (name, nextEvent) => {
    const notice = { ...personAndApp(), outTradeNo: number, event: nextEvent }
    return smallButton(name, async () => {
      isReplaced = true // the next notice has a tap of its own, which shows its calls
      await simulated('/notices', notice)
      await showOrder(number, { goodsPrice }, nextEvent)
    })
  }
  const state = h('strong')
  const buttons = [noticeButton('notifyAgain', DELIVERED), noticeButton('refund', REFUNDED)]
  const price = `¥${goodsPrice / 100}` // WeChat's prices are in hundredths of a yuan
  showSheet(h('p', {}, `${text('membership')} · ${price}`), state, h('div', { class: 'buttons' }, buttons))
  const isShown = () => !isReplaced && state.isConnected
  for (let i = 0; i < ORDER_REQUESTS && isShown(); i++) {
    const askedAt = Date.now() - 1 // the notice came before this request, so it is shown before it
    const { data: order } = await auth.request({ url: `${setup.shop_url}/orders/${number}` })
    if (!isShown()) return
    const orderState = stateOfOrder(order, event)
    state.textContent = text(orderState)
    if (orderState === 'paid' || orderState === 'refunded')
      return wires.noteInferred('serviceToShop', 'POST /wechat', { Event: event, '…': '…' }, askedAt)
    await new Promise((resolve) => setTimeout(resolve, ORDER_PAUSE_MS))
  }
}

/** Return the name of the text for an order after a notice of `event`, which the shop might not have received yet. */
function stateOfOrder({ is_paid, is_refunded }, event) {
  const isRefund = event === REFUNDED
  const isRefunded = is_refunded ?? (isRefund && !is_paid) // some shops only take back `is_paid`
  if (isRefunded) return 'refunded'
  if (isRefund) return 'refundUnknown'
  return is_paid ? 'paid' : 'paidUnknown'
}

/** Show the number that the user types on the page of the login. */
function showNumber({ number, expiresIn }) {
  showSheet(
    h('p', {}, text('typeThere')),
    h('output', { class: 'login-number' }, `${number.slice(0, 3)} ${number.slice(3)}`),
    h('p', {}, h('small', {}, text('left').replace('…', duration(expiresIn * 1000)))),
  )
}

function renderTokens() {
  showTokens($('tokens'), tokens)
  showTimes()
}

/** Show the phone's time, and the remaining times of the tokens. */
function showTimes() {
  $('phone-clock').textContent = clockTime(phoneNow())
  $('shift').textContent = shiftMs ? `+${duration(shiftMs)}` : ''
  tick($('tokens'), tokens, phoneNow())
}

/** Offer the faults of the chosen API. The fault that was chosen before stays chosen if this API has it, too. */
function showChoices() {
  const previousChoice = $('what').value
  const offered = setup.faults[$('api').value]
  const isErrcode = ({ fault }) => 'errcode' in fault
  $('what').replaceChildren(
    groupOfFaults('errcodes', offered.filter(isErrcode)),
    groupOfFaults('onTheWay', offered.filter((choice) => !isErrcode(choice))),
  )
  $('what').value = previousChoice
  if (!$('what').value) $('what').value = JSON.stringify((seenByPhone(offered) ?? offered[0]).fault)
  showMeaning()
}

function groupOfFaults(name, choices) {
  const options = choices.map(({ fault, meaning }) => {
    const label = [fault.errcode, either(meaning)].filter(Boolean).join(' ')
    return h('option', { value: JSON.stringify(fault) }, label)
  })
  return h('optgroup', { label: text(name) }, options)
}

/** Return the first choice whose fault neither the service nor the client overcomes by retrying. */
const seenByPhone = (choices) => choices.find(({ failure }) => failure && !RETRIED_ERRORS.includes(failure.code))

/** Show what the chosen fault makes of the phone's request. */
function showMeaning() {
  const { value, selectedOptions } = $('what')
  $('what').title = selectedOptions[0].text // shows a text that is too long for the field
  const { fault, failure } = setup.faults[$('api').value].find((choice) => JSON.stringify(choice.fault) === value)
  const meaning = failure
    ? [
        h('span', {}, `${text('becomes')} `, h('code', {}, `${failure.status} ${failure.code}`)),
        h('q', {}, either(failure.title)),
        h('small', {}, text(`advice.${failure.code}`)),
      ]
    : [text('errcode' in fault ? 'mended' : 'inTime')]
  $('meaning').replaceChildren(...meaning, $('api').value === TOKEN_API ? h('small', {}, text('heldToken')) : '')
}

/** Show the faults that the simulator still has in store, each with the number of calls that it fails. */
function showArmed(faults) {
  const lines = faults.map(({ api, times, app_id, work_is_done, ...fault }) => {
    const [[kind, value]] = Object.entries(fault)
    const name = value === true ? kind : `${kind} ${value}`
    const count = times ? ` × ${times}` : ''
    return h('code', {}, `${api}: ${name}${count}`)
  })
  $('armed').replaceChildren(...(lines.length ? [text('armed'), ...lines] : []))
}

function showAll() {
  showTexts()
  $('guides').hidden = !setup.guides
  if (setup.guides) $('guides').href = either(setup.guides)
  for (const option of $('app').options) option.text = either(appOf(option.value).titles)
  if (setup.is_alone) showExample($('example'), 'elsewhere', EXAMPLE_LOGIN.slice(-1))
  else showExample($('example'), 'login', EXAMPLE_LOGIN)
  showUser(user)
  renderTokens()
  showChoices()
  agent.showAll()
  wires.showAll()
}

let lastPoll = Promise.resolve()

/** Ask the simulator for new calls and messages. A poll waits for the previous one, so that none shows older values. */
function poll() {
  lastPoll = lastPoll.then(showNews)
  return lastPoll
}

async function showNews() {
  try {
    await showCalls()
    await showWebhookMessages()
  } catch {
    // The simulator does not respond. Its terminal shows why, and the next poll tries again.
  }
}

/** Show the new calls between the service and WeChat, and the faults. Fill in the scene of the newest QR code. */
async function showCalls() {
  const response = await fetch(`wires/${revision}`)
  const { revision: newestRevision, calls, faults } = await response.json()
  for (const call of calls) if (call.page !== pageId) wires.noteService(call)
  $('first').hidden = false // from now on, it is shown as long as there are no calls
  const newestCode = calls.findLast(({ path, body }) => path.endsWith(QR_CODE_PATH) && body?.scene)
  if (newestCode) newestScene = newestCode.body.scene
  fillIn()
  revision = newestRevision
  showArmed(faults)
}

let shownMessages = '' // the messages in the list, as JSON, with a text, which is another one in another language

/** Show the messages that the webhook receiver has received, newest first. */
async function showWebhookMessages() {
  const response = await fetch('/webhook/messages')
  const { messages } = await response.json()
  const newMessages = JSON.stringify(messages) + text('webhooks')
  if (newMessages === shownMessages) return // a list that is replaced would close its open messages
  shownMessages = newMessages
  $('no-webhooks').hidden = messages.length > 0
  const items = messages.map(({ at, signature, message, answer }) => {
    const type = h('code', {}, message?.type ?? '?')
    const summary = h('summary', {}, `${clockTime(at * 1000)} `, type, ` ${text(`signature.${signature}`)}, ${answer}`)
    return h('li', {}, h('details', {}, summary, h('pre', {}, pretty(message))))
  })
  $('webhook-messages').replaceChildren(...items)
}

/** Say so if the phone cannot reach the service. */
async function showWhetherReachable() {
  if (setup.is_alone) return
  const banner = $('banner')
  try {
    await send(`${service}/livez`, { headers: { 'User-Agent': userAgent() } })
    banner.hidden = true
  } catch {
    banner.textContent = `${text('away')} ${service}`
    banner.hidden = false
  }
}

// These functions start the page.

/**
 * Add the buttons of an element. Its `data-taps` names their actions, such as `agree takeBack`. An action whose text
 * has another name is followed by this name, such as `me:open`. `data-about` names a text that describes the buttons.
 */
function showTaps(place) {
  const { about, taps } = place.dataset
  const descriptionId = about && `about-${about}`
  if (about) place.append(h('span', { id: descriptionId, 'data-text': about }))
  for (const tapAndText of taps.split(' ')) {
    const [name, textName = name] = tapAndText.split(':')
    const attributes = { 'data-tap': name, 'data-text': textName, 'aria-describedby': descriptionId }
    place.append(h('button', { type: 'button', ...attributes }))
  }
}

/** Show one of the tabs. If there is room, the requests and responses are always next to it. */
function showTab(name) {
  document.querySelector('main').dataset.tab = name
  for (const button of document.querySelectorAll('.tabs button')) button.ariaPressed = button.value === name
  localStorage.setItem('desk/tab', name)
}

function onClick(id, action) {
  $(id).addEventListener('click', action)
}

function onChange(id, action) {
  $(id).addEventListener('change', action)
}

function onSubmit(id, action) {
  $(id).addEventListener('submit', (event) => {
    event.preventDefault()
    action()
  })
}

/** Fill in the page's fields with the setup, and with the last choices. */
function fillFields() {
  $('service').textContent = service
  $('address').value = `${setup.site_url}/`
  for (const link of document.querySelectorAll('[data-link]')) {
    const url = setup.links[link.dataset.link]
    link.hidden = !url
    if (url) link.href = url
  }
  $('app').append(...setup.apps.map(({ app_id }) => h('option', { value: app_id })))
  const later = appOf(setup.later_app_id)
  const addLaterApp = `wxauth apps add ${later.app_id} --push-token`
  $('later-command').textContent = `printf '${later.app_secret}\\n${later.push_token}\\n' | ${addLaterApp}`
  const command = setup.is_alone ? codeExchange(setup.apps[0]) : loginByCurl()
  const pieces = command.split(/(?<= )(-\w+)/) // no line ends inside an option
  $('first-command').append(...pieces.map((piece) => h('span', piece.startsWith('-') ? { class: 'whole' } : {}, piece)))
  const firstApp = setup.apps[0].app_id
  $('app').value = localStorage.getItem('desk/app') || firstApp
  if (!$('app').value) $('app').value = firstApp // the app of the last choice does not exist any more
  $('person').value = localStorage.getItem('desk/person') || 'alice'
  const option = (value, textName) => h('option', { value, 'data-text': textName })
  $('api').append(...Object.keys(setup.faults).map((api) => option(api, api)))
  $('entry').append(...ENTRY_SCENES.map((scene) => option(scene, `entry.${scene}`)))
  $('browser').append(...BROWSERS.map((browser) => option(browser, `browser.${browser}`)))
  $('webhook-command').textContent = `.wxauth/wxauth webhooks add desk ${location.origin}/webhook`
  $('agent').hidden = !setup.agent
  const isOurShop = setup.shop_url.startsWith(setup.site_url)
  document.querySelector('[data-tap=buyFailing]').hidden = !isOurShop // another shop fails by itself
}

const appOf = (id) => setup.apps.find(({ app_id }) => app_id === id)

/** Return the command that logs in as alice. */
const loginByCurl = () => `curl -sS ${service}/v1/login -H 'Content-Type: application/json' -d '{"code":"alice"}'`

/** Return the command that a back end's request for the openid of alice corresponds to. */
function codeExchange({ app_id: appid, app_secret: secret }) {
  const query = new URLSearchParams({ appid, secret, js_code: 'alice', grant_type: 'authorization_code' })
  return `curl -sS '${location.origin}/sns/jscode2session?${query}'`
}

async function armFault() {
  const fault = JSON.parse($('what').value)
  const api = $('api').value
  await simulated('/faults', { api, times: Number($('times').value) || null, ...fault })
  // The service requests a token only after WeChat has refused the old one, so make WeChat refuse it once.
  if (api === TOKEN_API && !setup.is_alone) await simulated('/faults', { api: 'getuserphonenumber', errcode: 42001 })
  poll()
}

async function setWebhookAnswer() {
  const answer = $('webhook-answer').value
  const secret = $('webhook-secret').value.trim()
  await simulated('/webhook/behaviour', {
    answer: answer === 'hang' ? answer : Number(answer),
    ...(secret && { secret }),
  })
  poll()
}

/** Connect the page's buttons and forms with their actions. */
function addListeners() {
  for (const button of document.querySelectorAll('[data-tap]'))
    button.addEventListener('click', () => tap(button.dataset.tap))
  for (const button of document.querySelectorAll('[data-shift]'))
    button.addEventListener('click', () => setShift(shiftMs + Number(button.dataset.shift)))
  for (const button of document.querySelectorAll('.tabs button'))
    button.addEventListener('click', () => showTab(button.value))
  onSubmit('rename', () => tap('save'))
  onSubmit('holder', () => {}) // a change of its fields switches the phone
  onSubmit('scan', () => tap('scanIt'))
  onSubmit('web-view', () => tap('openPage'))
  onSubmit('trouble', armFault)
  onSubmit('receiver', setWebhookAnswer)
  onClick('clear', async () => {
    await fetch('/faults', { method: 'DELETE' })
    poll()
  })
  onClick('copy-command', async () => {
    await navigator.clipboard.writeText($('first-command').textContent)
    toast(text('copied'))
  })
  onClick('choose', () => $('file').click())
  onClick('right-time', () => setShift(0))
  onClick('restart', usePhone)
  onClick('empty', wires.empty)
  onClick('language', () => toggleLanguage().then(showAll))
  onChange('file', async () => {
    if ($('file').files.length) await tap('avatar')
    $('file').value = ''
  })
  onChange('holder', () => {
    if ($('holder').reportValidity()) usePhone()
  })
  onChange('api', showChoices)
  onChange('what', showMeaning)
  new BroadcastChannel('agent').onmessage = ({ data: query }) => tap('connected', () => agent.finish(query))
}

function start() {
  if (setup.is_alone) beAlone()
  for (const place of document.querySelectorAll('[data-taps]')) showTaps(place)
  fillFields()
  addListeners()
  showTab(setup.is_alone ? 'faults' : (localStorage.getItem('desk/tab') ?? 'use'))
  usePhone()
  showAll()
  showWhetherReachable()
  poll()
  setInterval(showTimes, 1000)
  setInterval(() => {
    if (!document.hidden) poll()
  }, POLL_MS)
}

start()
