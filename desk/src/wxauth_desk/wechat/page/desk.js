// The phone on the desk. It runs the real client on a `wx` for browsers, and shows all requests and responses.

import { createAgent } from './agent.js'
import { createWx } from './browser_wx.js'
import { clockTime, duration, h, pretty } from './elements.js'
import { beAlone, either, language, showTexts, text, toggleLanguage } from './texts.js'
import { showTokens, tick, tokensOf } from './tokens.js'
import { createAuth } from './wxauth.js'
import { approve, claim, deny, scanOf } from './wxauth-scan.js'
import { authorize } from './wxauth-site.js'
import { createWires } from './wires.js'

const OLD_TOKENS = 5
const TOAST_MS = 4000
const POLL_MS = 1000
const ORDER_TRIES = 10
const ORDER_MS = 2000 // a notice that is not accepted is repeated after 15 s
const DELIVERED = 'xpay_goods_deliver_notify'
const REFUNDED = 'xpay_refund_notify'
const TRIED_AGAIN = ['wechat_unavailable', 'wechat_timeout', 'invalid_code', 'code_used']
const MAKES_CODE = '/getwxacodeunlimit'
const LINK = /^(weixin:\/\/dl\/business\/|https:\/\/wxaurl\.cn\/)/
const BY_SCHEME = 1286 // WeChat's numbers for how a mini-program was opened
const BY_URL_LINK = 1194
const ENTRIES = [1047, 1011, 1048, 1049, 1012, 1013, BY_SCHEME, BY_URL_LINK, 1167, 1007, 1008]
const BROWSERS = ['web_view', 'wechat', 'phone', 'computer']
const HELD = 'stable_token' // requested by the service if it has no token, or a refused one

const $ = (id) => document.getElementById(id)
const setup = await (await fetch('setup')).json()
const service = setup.service_url
const wires = createWires($('taps'), service, setup.shop_url)

globalThis.wx = { getAppBaseInfo: () => ({ language: language() }) } // the data that a phone reports about itself

const computer = createWx({ userAgent: () => 'agent/1.0', send, observe: (exchange) => wires.notePhone(exchange, 'agent') })
const agent = createAgent({ request: (options) => asked(computer, 'request', options), ...setup.agent, place: $('agent-state') })

// These functions are about the phone. Each pair of a person and an app is a phone, with its own storage.

let shift = Number(localStorage.getItem('desk/shift')) // the difference of the phone's clock, in milliseconds
let auth, phoneWx, tokens, user
let oldRefreshTokens = []
const begun = Date.now()
let revision = 0

const phoneNow = () => Date.now() + shift
const person = () => $('person').value
const appId = () => $('app').value
const prefix = () => `desk/${person()}/${appId()}/`

const userAgent = () =>
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 ' +
  `MicroMessenger/8.0.44(0x18002c2d) NetType/WIFI Language/${language().replace('-', '_')}`

/** Call `fetch` through the simulator, because a page cannot set the user agent, or omit `Accept-Language`. */
async function send(url, { headers: { 'User-Agent': agent, ...headers }, ...options }) {
  const phone = { 'X-Phone-Url': url, 'X-Phone-User-Agent': agent }
  const response = await fetch('request', { ...options, headers: { ...headers, ...phone } })
  if (response.headers.has('X-Phone-Error')) throw new Error(await response.text())
  return response
}

/** Request a value from the simulator that WeChat gives to a real phone. */
async function simulated(path, wanted) {
  const response = await fetch(path, { method: 'POST', body: JSON.stringify(wanted) })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.error)
  return answer
}

function takePhone() {
  localStorage.setItem('desk/person', person())
  localStorage.setItem('desk/app', appId())
  const whose = { person: person(), app_id: appId() }
  const login = () => simulated('/codes', whose)
  const noteTokens = (exchange) => {
    wires.notePhone(exchange)
    if (auth !== phone || exchange.ms === null || !/\/v1\/(login|refresh)$/.test(exchange.url)) return
    if (exchange.status === 200) keepTokens(tokensOf(exchange.answer, phoneNow()))
    else if (exchange.status === 400 && /refresh$/.test(exchange.url)) keepTokens(null)
  }
  const options = { login, prefix: prefix(), userAgent, send }
  phoneWx = createWx({ ...options, observe: wires.notePhone })
  const watched = createWx({ ...options, observe: noteTokens })
  const phone = createAuth({ baseURL: service, origins: [setup.site_url, setup.shop_url], appId: appId(), platform: watched, now: phoneNow })
  auth = phone
  auth.onChange((changed) => {
    if (auth !== phone) return // the user has chosen another phone since
    if (!changed) keepTokens(null)
    showUser(changed)
  })
  oldRefreshTokens = []
  tokens = auth.user && JSON.parse(localStorage.getItem(`${prefix()}tokens`))
  closeSheet()
  $('later').hidden = appId() !== setup.later_app.app_id
  showUser(auth.user)
  renderTokens()
}

function keepTokens(fresh) {
  if (tokens && fresh) oldRefreshTokens = [tokens.refresh, ...oldRefreshTokens].slice(0, OLD_TOKENS)
  tokens = fresh
  if (fresh) localStorage.setItem(`${prefix()}tokens`, JSON.stringify(fresh))
  else localStorage.removeItem(`${prefix()}tokens`)
  renderTokens()
}

function setShift(ms) {
  shift = ms
  localStorage.setItem('desk/shift', String(ms))
  everySecond()
}

function expire() {
  if (tokens) setShift(shift + Math.max(0, tokens.at + tokens.life - phoneNow()))
}

// These are the actions of the buttons. Each has the name of its text, and can return a text for the toast.

const getMe = () => auth.request({ url: '/v1/me' })

async function makeCode(path) {
  $('made').textContent = (await simulated(path, { person: person(), app_id: appId() })).code
}

async function bindPhone() {
  await auth.bindPhone({ detail: await simulated('/phone-codes', { person: person(), app_id: appId() }) })
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
    await auth.getToken() // WeChat seals with the session_key of a login
    const data = { stepInfoList: [{ timestamp: Math.floor(Date.now() / 1000), step: 8848 }] }
    showSheet(await auth.decrypt(await simulated('/encrypted-data', { person: person(), app_id: appId(), data })))
  },
  async me() {
    const { statusCode, data } = await getMe()
    showSheet(data)
    if (statusCode === 200) showUser(data)
  },
  async agree() {
    const { data: me } = await getMe()
    const due = Object.fromEntries((me.consents_due ?? []).map(({ document, version }) => [document, version]))
    if (Object.keys(due).length === 0) return text('agreed')
    const { data } = await auth.request({ url: '/v1/me/consents', method: 'POST', data: due })
    showSheet(data)
  },
  async takeBack() {
    const { data: given } = await auth.request({ url: '/v1/me/consents' })
    const held = given.items.filter(({ withdrawn_at }) => !withdrawn_at)
    for (const document of new Set(held.map((each) => each.document)))
      await auth.request({ url: `/v1/me/consents/${document}`, method: 'DELETE' })
    showSheet((await auth.request({ url: '/v1/me/consents' })).data)
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
    const shown = h('output', { class: 'pieces' })
    const stop = h('button', { type: 'button', class: 'small' }, text('stop'))
    showSheet(shown, stop)
    const decoder = new TextDecoder()
    await auth.request({
      url: setup.count_url,
      enableChunked: true,
      onTask: (task) => (stop.onclick = () => task.abort()),
      onChunk: (piece) => shown.append(decoder.decode(piece, { stream: true })),
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
  deleteAccount: () => confirm(text('sureToDelete')) && auth.deleteAccount(),

  async refresh() {
    expire()
    await auth.getToken()
  },
  expire,
  ten: () => Promise.all(Array.from({ length: 10 }, getMe)),
  async spoil() {
    if (!tokens) return
    const spoilt = tokens.access.slice(0, -8) + 'A'.repeat(8)
    for (const [name, kept] of Object.entries(localStorage))
      if (name.startsWith(prefix())) localStorage.setItem(name, kept.replaceAll(tokens.access, spoilt))
    takePhone()
    await getMe()
  },

  loginCode: () => makeCode('/codes'),
  phoneCode: () => makeCode('/phone-codes'),

  async codeTwice() {
    const { code } = await asked(phoneWx, 'login')
    for (const _ of [1, 2]) {
      const { data } = await asked(phoneWx, 'request', {
        url: `${service}/v1/login`,
        method: 'POST',
        data: { code, app_id: appId() },
      })
      if (data.title) return data.title
    }
  },
  async oldRefresh() {
    if (oldRefreshTokens.length === 0) return text('noOldRefresh')
    const data = { refresh_token: oldRefreshTokens.at(-1) }
    const answer = await asked(phoneWx, 'request', { url: `${service}/v1/refresh`, method: 'POST', data })
    return answer.statusCode === 200 ? text('withinGrace') : answer.data.title
  },

  async scanIt() {
    filledIn = $('code').value
    const claimed = await claim(auth, scanned(filledIn.trim()))
    showClaimed(claimed)
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
 * Open a page in a browser, or post a form. If a page in the web-view calls the mini-program, it gets the response of
 * the demo's pages/authorize. If a browser is redirected to WeChat, it keeps its page, and the mini-program opens.
 */
async function browse(url, form = null) {
  const asker = { person: person(), user_agent: userAgent(), browser: $('browser').value, language: language() }
  const seen = await simulated('web-view', { ...asker, url, form })
  if (seen.opens) return openMiniProgram(seen.opens)
  if (!seen.url.startsWith(`${service}/`)) closeSheet() // the browser has left the login
  const plain = seen.html.replace(/ style="[^"]*"/g, '') // this page's policy refuses inline styles
  const page = new DOMParser().parseFromString(plain, 'text/html')
  page.querySelectorAll('[hidden], noscript, main[data-page] details:has(.code)').forEach((each) => each.remove())
  const asked = JSON.parse(page.querySelector('main[data-page]')?.dataset.page ?? '{}').url
  if (!asked) return showPage(seen, page)
  const [path, query] = asked.split('?')
  showPage(seen, page, h('p', {}, `${text('asksMiniProgram')} `, h('code', {}, path)))
  await browse(await authorize(auth, Object.fromEntries(query.split('&').map((pair) => pair.split('=')))))
}

/** Show the texts and the forms of a page as a browser would, with its links as buttons. */
function showPage({ url, status }, page, ...more) {
  const isForm = (each) => each.tagName === 'FORM'
  const parts = [...page.querySelectorAll('h1, p, pre, form[method=post]')].filter(
    (each) => isForm(each) || (!each.querySelector('a') && each.textContent.trim()),
  )
  const links = [...page.querySelectorAll('body a[href]')].map((link) => {
    const target = new URL(link.getAttribute('href'), url).href
    return small('openPage', () => browse(target), link.textContent)
  })
  $('web-page').replaceChildren(
    h('p', {}, h('small', {}, `${status} ${url.split('?')[0]}`)),
    ...parts.map((each) => (isForm(each) ? formOf(each, url) : h(each.tagName === 'PRE' ? 'pre' : 'p', {}, each.textContent))),
    ...more,
    h('div', { class: 'buttons' }, links),
  )
  $('web-page').hidden = false
}

/** Return a form of a browser's page. The simulator posts it, with the browser's cookies. */
function formOf(form, url) {
  const fields = [...form.querySelectorAll('input[name]')].map(({ name, type, value }) => h('input', { name, type, value }))
  const onsubmit = () => {
    const values = Object.fromEntries(fields.map(({ name, value }) => [name, value]))
    return tap('openPage', () => browse(new URL(form.getAttribute('action'), url).href, values))
  }
  const seen = fields.filter(({ type }) => type !== 'hidden')
  const labelled = seen.map((field) => h('label', {}, form.querySelector('label')?.textContent ?? field.name, field))
  const hidden = fields.filter(({ type }) => type === 'hidden')
  const button = h('button', { class: 'small' }, form.querySelector('button').textContent)
  return h('form', { class: 'trouble', onsubmit }, labelled, hidden, h('div', { class: 'buttons' }, button))
}

/** Open the mini-program by a link in the phone's browser. It asks whether the user has used the link. */
async function openMiniProgram(url) {
  const { appid } = partsOf(url)
  if (appid && appid !== appId()) {
    $('app').value = appid
    takePhone()
  }
  showClaimed(await claim(auth, opened(url, appid ? BY_SCHEME : BY_URL_LINK)))
}

let newestScene = ''
let filledIn = '' // the last scene, or a scanned one, which a newer scene may replace

/** Fill in the newest scene, unless the user has typed something or is about to. */
function fillIn() {
  const isFree = ['', filledIn].includes($('code').value) && document.activeElement !== $('code')
  if (isFree) $('code').value = filledIn = newestScene
}

/** Return the result of a scan. It is a user code if it looks like one, otherwise a page opened with it. */
function scanned(code) {
  if (/^[a-z]{4}-?[a-z]{4}$/i.test(code)) return { user_code: code }
  globalThis.wx = { getEnterOptionsSync: () => ({ scene: Number($('entry').value) }) }
  if (LINK.test(code)) return opened(code, Number($('entry').value))
  const link = code.startsWith(`${service}/`)
  return scanOf(link ? { q: encodeURIComponent(code), scancode_time: Date.now() / 1000 } : { scene: code })
}

/** Return the options of the mini-program that a link to WeChat has opened, with WeChat's number for the way. */
function opened(url, entry) {
  const { appid, query, cq } = partsOf(url)
  const given = appid ? Object.fromEntries(new URLSearchParams(query)) : { cq }
  globalThis.wx = { getEnterOptionsSync: () => ({ scene: entry, query: given }) }
  return scanOf(given)
}

const partsOf = (link) => Object.fromEntries(new URL(link).searchParams)

const asked = (platform, name, options) =>
  new Promise((resolve, reject) =>
    platform[name]({ ...options, success: resolve, fail: ({ errMsg }) => reject(new Error(errMsg)) }),
  )

const push = (wanted) => simulated('/push', { person: person(), app_id: appId(), ...wanted })

async function tap(name, action = TAPS[name]) {
  wires.begin(name)
  try {
    const said = await action()
    if (typeof said === 'string') toast(said)
  } catch (error) {
    // The title is for the user, and the code for the developer.
    toast(error.title ?? error.message, error.code)
  }
  await poll()
}

/** Return a small button for an action. */
const small = (name, act, said = text(name)) => h('button', { type: 'button', class: 'small', onclick: () => tap(name, act) }, said)

// These functions show the state.

let toastTimer
function toast(message, code) {
  $('toast').replaceChildren(message, code ? h('code', {}, code) : '')
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => $('toast').replaceChildren(), TOAST_MS)
}

function showUser(shown) {
  user = shown
  const picture = user?.avatar_url?.startsWith(`${service}/`) ? user.avatar_url : ''
  $('picture').hidden = !picture
  $('initial').hidden = Boolean(picture)
  if (picture) $('picture').src = picture
  else $('picture').removeAttribute('src')
  $('initial').textContent = [...(user ? (user.nickname ?? person()) : '?')][0] ?? ''
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
  const revoke = (id) => tap('signOut', async () => (await auth.revokeSession(id), showDevices(await auth.sessions())))
  const items = sessions.map(({ id, device, ip, last_used_at, current, client_id, client, resource }) =>
    h(
      'li',
      {},
      h(
        'span',
        {},
        [resource ? `${client.host ?? client.title} → ${resource.title}` : client_id && `${text('website')} ${client_id}`, device || text('unknownDevice')].filter(Boolean).join(' · '),
        h('small', {}, `${ip ?? ''} · ${clockTime(Date.parse(last_used_at))}`),
      ),
      current
        ? h('em', {}, text('thisDevice'))
        : h('button', { type: 'button', onclick: () => revoke(id) }, text('signOut')),
    ),
  )
  showSheet(h('ul', { class: 'devices' }, items), ...(items.length > 1 ? [small('signOutOthers')] : []))
}

/**
 * Show the question to the user, with "refuse" as easy to reach as "log in", and the number to type, if there is one.
 */
function showClaimed(claimed) {
  const { client, browser, resource } = claimed
  const who = client.local ? text('localProgram') : client.host ? text('callsItself') : null
  const asks = resource
    ? [
        h('p', { class: 'asked' }, text('allow'), h('strong', {}, client.host ?? client.title)),
        ...(who ? [h('p', {}, h('small', {}, `${who} ${client.title}`))] : []),
        h('p', {}, h('strong', {}, resource.title), ' ', h('small', {}, resource.host)),
        h('ul', {}, resource.scopes.map(({ title }) => h('li', {}, title))),
      ]
    : [h('p', { class: 'asked' }, text('logInTo'), h('strong', {}, client.title))]
  const say = (name, decide, said, kind) => {
    const onclick = () =>
      tap(name, async () => {
        const shown = await decide(auth, claimed)
        if (shown) return showNumber(shown)
        closeSheet()
        return text(said)
      })
    return h('button', { type: 'button', class: kind, onclick }, text(name))
  }
  const origin = client.origin && h('p', { class: 'quiet' }, client.origin)
  const seen = [browser?.device, browser?.ip].filter(Boolean).join(' · ')
  const logo = client.logo && h('img', { class: 'site-logo', src: client.logo, alt: '' })
  showSheet(
    ...(logo ? [logo] : []),
    ...asks.toSpliced(1, 0, ...(origin ? [origin] : [])),
    ...(seen ? [h('p', { class: 'asker' }, h('small', {}, text('askedFrom')), seen)] : []),
    ...(claimed.typed ? [h('p', {}, text('typedCode'))] : []),
    ...(claimed.link ? [h('p', {}, text('didYouPress'))] : []),
    h('div', { class: 'buttons' }, say('denyIt', deny, 'refusedThere', 'plain'), resource ? say('allowIt', approve, 'allowedThere', 'primary') : say('approveIt', approve, 'loggedInThere', 'primary')),
  )
  $('sheet').lastChild.remove() // the question has been answered, not closed
  document.querySelector('.screen').classList.add('asking')
}

async function buy() {
  const order = () => auth.request({ url: `${setup.shop_url}/orders`, method: 'POST' })
  let ordered = await order()
  if (ordered.data.code === 'session_key_expired') {
    await auth.login({ force: true })
    ordered = await order()
  }
  if (ordered.statusCode !== 200) return ordered.data.title
  const { number, signData, paySig, signature } = ordered.data
  wires.noteInferred('shopToService', `POST /v1/apps/${appId()}/signatures`, { openid: '…', data: signData }, Date.now())
  const { errCode, errMsg } = await simulated('/pay', { person: person(), app_id: appId(), signData, paySig, signature })
  if (errCode) return `${errMsg} (${errCode})`
  await showOrder(number, JSON.parse(signData))
}

/** Show an order for some seconds, until the shop has received the notice of this event. */
async function showOrder(number, { goodsPrice }, event = DELIVERED) {
  const isRefund = event === REFUNDED
  let isCurrent = true
  const notify = (name, wanted) => {
    const whose = { person: person(), app_id: appId(), outTradeNo: number }
    return small(name, async () => {
      isCurrent = false // the next notice has a tap of its own, which shows its calls
      await simulated('/notices', { ...whose, event: wanted })
      await showOrder(number, { goodsPrice }, wanted)
    })
  }
  const state = h('strong')
  const acts = h('div', { class: 'buttons' }, notify('notifyAgain', DELIVERED), notify('refund', REFUNDED))
  showSheet(h('p', {}, `${text('membership')} · ¥${goodsPrice / 100}`), state, acts)
  for (let i = 0; i < ORDER_TRIES && isCurrent && state.isConnected; i++) {
    const asked = Date.now() - 1
    const { data } = await auth.request({ url: `${setup.shop_url}/orders/${number}` })
    if (!isCurrent || !state.isConnected) return
    const isRefunded = data.is_refunded ?? (isRefund && !data.is_paid)
    const isTold = isRefunded || (data.is_paid && !isRefund)
    state.textContent = text(isRefunded ? 'refunded' : isTold ? 'paid' : isRefund ? 'refundUnknown' : 'paidUnknown')
    if (isTold) return wires.noteInferred('serviceToShop', 'POST /wechat', { Event: event, '…': '…' }, asked)
    await new Promise((later) => setTimeout(later, ORDER_MS))
  }
}

function showNumber({ number, expiresIn }) {
  showSheet(
    h('p', {}, text('typeThere')),
    h('output', { class: 'login-number' }, `${number.slice(0, 3)} ${number.slice(3)}`),
    h('p', {}, h('small', {}, text('left').replace('…', duration(expiresIn * 1000)))),
  )
}

function renderTokens() {
  showTokens($('tokens'), tokens)
  everySecond()
}

function everySecond() {
  $('phone-clock').textContent = clockTime(phoneNow())
  $('shift').textContent = shift ? `+${duration(shift)}` : ''
  tick($('tokens'), tokens, phoneNow())
}

function showChoices() {
  const chosen = $('what').value
  const known = setup.faults[$('api').value]
  const group = (label, members) =>
    h(
      'optgroup',
      { label: text(label) },
      members.map(({ fault, meaning }) =>
        h('option', { value: JSON.stringify(fault) }, [fault.errcode, either(meaning)].filter(Boolean).join(' ')),
      ),
    )
  const isErrcode = ({ fault }) => 'errcode' in fault
  $('what').replaceChildren(
    group('errcodes', known.filter(isErrcode)),
    group(
      'onTheWay',
      known.filter((each) => !isErrcode(each)),
    ),
  )
  $('what').value = chosen
  if (!$('what').value) $('what').value = JSON.stringify((seenByPhone(known) ?? known[0]).fault)
  showMeaning()
}

/** Return the first fault that neither the service nor the client overcomes by retrying. */
const seenByPhone = (known) => known.find(({ failure }) => failure && !TRIED_AGAIN.includes(failure.code))

function showMeaning() {
  $('what').title = $('what').selectedOptions[0].text // shows a text that is too long for the field
  const { fault, failure } = setup.faults[$('api').value].find((each) => JSON.stringify(each.fault) === $('what').value)
  const told = failure
    ? [
        h('span', {}, `${text('becomes')} `, h('code', {}, `${failure.status} ${failure.code}`)),
        h('q', {}, either(failure.title)),
        h('small', {}, text(`advice.${failure.code}`)),
      ]
    : [text('errcode' in fault ? 'mended' : 'inTime')]
  $('meaning').replaceChildren(...told, $('api').value === HELD ? h('small', {}, text('heldToken')) : '')
}

function showArmed(faults) {
  const said = faults.map(({ api, times, app_id, work_is_done, ...fault }) => {
    const [[kind, value]] = Object.entries(fault)
    return h('code', {}, `${api}: ${value === true ? kind : `${kind} ${value}`}${times ? ` × ${times}` : ''}`)
  })
  $('armed').replaceChildren(...(said.length ? [text('armed'), ...said] : []))
}

function showAll() {
  showTexts()
  showUser(user)
  renderTokens()
  showChoices()
  agent.showAll()
  wires.showAll()
}

let polled = Promise.resolve()
/** Ask the simulator repeatedly for the service's requests. */
const poll = () => (polled = polled.then(askSimulator))

async function askSimulator() {
  try {
    const { revision: newest, calls, faults } = await (await fetch(`wires/${revision}`)).json()
    calls.filter(({ at }) => at >= begun).forEach(wires.noteService) // only the calls since this page was opened
    newestScene = calls.findLast(({ path, body }) => path.endsWith(MAKES_CODE) && body?.scene)?.body.scene ?? newestScene
    fillIn()
    revision = newest
    showArmed(faults)
    await askReceiver()
  } catch {
    // The simulator does not respond, and its terminal shows why, so the page tries again.
  }
}

let received = ''
/** Show the messages that the webhook receiver has received, newest first. */
async function askReceiver() {
  const { messages } = await (await fetch('/webhook/messages')).json()
  const newest = JSON.stringify(messages) + text('webhooks')
  if (newest === received) return
  received = newest
  $('no-webhooks').hidden = messages.length > 0
  $('webhook-messages').replaceChildren(
    ...messages.map(({ at, signature, message, answer }) =>
      h(
        'li',
        {},
        h(
          'details',
          {},
          h(
            'summary',
            {},
            `${clockTime(at * 1000)} `,
            h('code', {}, message?.type ?? '?'),
            ` ${text(`signature.${signature}`)}, ${answer}`,
          ),
          h('pre', {}, pretty(message)),
        ),
      ),
    ),
  )
}

async function greet() {
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
 * Show the buttons of an element. Its `data-taps` names their actions, each with its text if that has another name.
 */
function showTaps(place) {
  const { about, taps } = place.dataset
  const described = about && `about-${about}`
  const buttons = taps.split(' ').map((each) => {
    const [name, said = name] = each.split(':')
    return h('button', { type: 'button', 'data-tap': name, 'data-text': said, 'aria-describedby': described })
  })
  place.append(...(about ? [h('span', { id: described, 'data-text': about })] : []), ...buttons)
}

/** Show one of the tabs. If there is room, the requests and responses are always next to it. */
function showTab(name) {
  document.querySelector('main').dataset.tab = name
  for (const button of document.querySelectorAll('.tabs button')) button.ariaPressed = button.value === name
  localStorage.setItem('desk/tab', name)
}

function start() {
  if (setup.is_alone) beAlone()
  $('service').textContent = service
  $('address').value = `${setup.site_url}/`
  $('docs').href = `${service}/docs`
  const { app_id: laterApp, app_secret, push_token } = setup.later_app
  $('app').append(...[...setup.apps, laterApp].map((id) => h('option', { value: id }, id)))
  $('later-command').textContent = `printf '${app_secret}\\n${push_token}\\n' | wxauth apps add ${laterApp} --push-token`
  $('app').value = localStorage.getItem('desk/app') || setup.apps[0]
  if (!$('app').value) $('app').value = setup.apps[0]
  $('person').value = localStorage.getItem('desk/person') || 'alice'
  const option = (value, name) => h('option', { value, 'data-text': name })
  $('api').append(...Object.keys(setup.faults).map((api) => option(api, api)))
  $('entry').append(...ENTRIES.map((entry) => option(entry, `entry.${entry}`)))
  $('browser').append(...BROWSERS.map((browser) => option(browser, `browser.${browser}`)))

  for (const place of document.querySelectorAll('[data-taps]')) showTaps(place)
  for (const button of document.querySelectorAll('[data-tap]'))
    button.addEventListener('click', () => tap(button.dataset.tap))
  for (const button of document.querySelectorAll('[data-shift]'))
    button.addEventListener('click', () => setShift(shift + Number(button.dataset.shift)))
  const submitted = (id, action) =>
    $(id).addEventListener('submit', (event) => {
      event.preventDefault()
      action()
    })
  submitted('rename', () => tap('save'))
  submitted('holder', () => {})
  submitted('scan', () => tap('scanIt'))
  submitted('web-view', () => tap('openPage'))
  submitted('trouble', async () => {
    const fault = JSON.parse($('what').value)
    const api = $('api').value
    await simulated('/faults', { api, times: Number($('times').value) || null, ...fault })
    if (api === HELD && !setup.is_alone) await simulated('/faults', { api: 'getuserphonenumber', errcode: 42001 })
    poll()
  })
  $('webhook-command').textContent = `.wxauth/wxauth webhooks add desk ${location.origin}/webhook`
  submitted('receiver', async () => {
    const answer = $('webhook-answer').value
    const secret = $('webhook-secret').value.trim()
    await simulated('/webhook/behaviour', {
      answer: answer === 'hang' ? answer : Number(answer),
      ...(secret && { secret }),
    })
    poll()
  })
  $('clear').addEventListener('click', async () => {
    await fetch('/faults', { method: 'DELETE' })
    poll()
  })
  $('agent').hidden = !setup.agent
  // Another shop fails by itself.
  document.querySelector('[data-tap=buyFailing]').hidden = !setup.shop_url.startsWith(setup.site_url)
  new BroadcastChannel('agent').onmessage = ({ data }) => tap('connected', () => agent.finish(data))
  $('choose').addEventListener('click', () => $('file').click())
  $('file').addEventListener('change', async () => {
    if ($('file').files.length) await tap('avatar')
    $('file').value = ''
  })
  $('holder').addEventListener('change', () => $('holder').reportValidity() && takePhone())
  for (const button of document.querySelectorAll('.tabs button')) button.addEventListener('click', () => showTab(button.value))
  showTab((!setup.is_alone && localStorage.getItem('desk/tab')) || (setup.is_alone ? 'faults' : 'use'))
  $('right-time').addEventListener('click', () => setShift(0))
  $('restart').addEventListener('click', takePhone)
  $('api').addEventListener('change', showChoices)
  $('what').addEventListener('change', showMeaning)
  $('empty').addEventListener('click', wires.empty)
  $('language').addEventListener('click', () => toggleLanguage().then(showAll))

  takePhone()
  showAll()
  greet()
  poll()
  setInterval(everySecond, 1000)
  setInterval(() => document.hidden || poll(), POLL_MS)
}

start()
