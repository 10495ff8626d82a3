/* eslint-disable */
// @ts-nocheck
// This module manages a mini-program's session, as wxauth.d.ts documents it.

// The codes of errors after which a second attempt can succeed.
const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/
// The codes of errors that end the session on this phone.
const LOCKED_OUT = /^(account_(disabled|leaving)|session_replaced)$/
// These functions abort the requests of all instances whose session is over. Instances can share a session.
const underWayEverywhere = new Set()
const SINGLE_PAGE_SCENE = 1154 // WeChat's scene number of a page opened from Moments, where users cannot log in
const TITLES = {
	__proto__: null,
	network_error: '网络不可用|No network connection',
	timeout: '网络超时|Timed out',
	aborted: '已取消|Cancelled',
	wx_login_failed: '微信登录失败|WeChat login failed',
	login_required: '请先登录。|Please log in.',
	domain_not_allowed: '暂时无法访问。|Not available right now.',
	single_page: '请点击底部“前往小程序”|Open the mini-program below',
	phone_refused: '未授权手机号|Phone number not shared',
	phone_unavailable: "暂时无法获取手机号|Can't get your phone number",
	phone_quota_used_up: "暂时无法获取手机号|Can't get your phone number",
	session_revoked: '登录已失效|Your login has ended',
	session_replaced: '账号已在其他设备登录|Logged in on another device',
}

// What the developer must do about mistakes that users can't correct.
const MISTAKES = {
	__proto__: null,
	origin_not_allowed: 'Add the origin to `origins` in createAuth, or send this request with wx.request.',
	domain_not_allowed: "Add the domain in WeChat's console: 开发管理 → 开发设置 → 服务器域名.",
	invalid_argument: 'Correct the argument, as wxauth.d.ts describes it.',
}
const warnings = new Set()

export class AuthError extends Error {
	constructor(code, more = Object()) {
		const { title, detail, errors, until } = more
		// The text must never contain a token.
		super(withoutTokens(detail ? `${code}: ${detail}` : code))
		// Needed if the class was compiled to ES5.
		if (!(this instanceof AuthError)) Object.setPrototypeOf(this, AuthError.prototype)
		const titles = TITLES[code] || '出错了，请重试|Please try again'
		this.title = isText(title) ? title : titles.split('|')[languageIndex()]
		const end = isText(until) && attempt(() => minuteOf(until))
		if (end) this.title += ['解封时间：', ' Until '][languageIndex()] + end
		Object.assign(this, { name: 'AuthError', code, errors: Array.isArray(errors) ? errors : [] })
		const names = 'status requestId retryAfter wechatErrcode until eraseAt'.split(' ')
		for (const name of names) this[name] = more[name] === undefined ? null : more[name]
	}
}

/** @type {typeof import('./wxauth.js').createAuth} */
export function createAuth(options) {
	const { baseURL: url, appId: id, origins = [], silent = true, isRefused } = Object(options)
	const { platform, storageKey = 'wxauth', now = Date.now } = Object(options)
	const baseURL = `${url}`.replace(/\/+$/, '')
	const trusted = [checkedOrigin('baseURL', baseURL)]
	for (const origin of [].concat(origins)) trusted.push(checkedOrigin('origins', origin))
	// Interceptors might have changed the functions of uni.
	// @ts-ignore
	const host = platform || attempt(() => wx.login && wx.request && wx) || attempt(() => uni)
	const appId = id || attempt(() => appIdOf(host.getAccountInfoSync()))

	const serviceAndApp = JSON.stringify([baseURL, appId])
	/** @type {any} */
	let user = null
	let tokens // { access, refresh, at, life, until }, in ms by the phone's clock
	let storedText
	let lastTime = 0
	// An era lasts until a logout. Its id is random and stored with the session, so that every instance with this storage
	// knows whether its session continues. `error` says why the session has ended, `owner` is the openid of the last user,
	// and `turn` counts the changes of the user.
	/** @type {any} */
	let era = { turn: 0 }
	let underWay = {} // the promises of a login and of a refresh
	let isReplaced // by a login on another device; without it, the two devices would log each other out forever
	let listeners = []
	let endedBy = null // the code of the error that ended the last session

	// This item contains the id of the era that ended, and why. Without it, the app might only have cleared the storage.
	const endedKey = storageKey + '.ended'
	const read = (key = storageKey) => attempt(() => host.getStorageSync(key))

	// Takes over a refresh, a login or a logout of another instance with this storage.
	function load() {
		const text = read()
		if (text === storedText) return
		storedText = text
		const [endedEra, code = 'signed_out'] = `${read(endedKey)}`.split(' ')
		if (!text && era.id && endedEra === era.id) dropSession(code)
		attempt(() => {
			const content = JSON.parse(text)
			if (content.place !== serviceAndApp) return
			if (content.isReplaced) return dropSession('session_replaced', new AuthError('session_replaced'))
			if (!isText(content.user.id) || (content.tokens && !content.tokens.refresh)) return
			if (era.id && era.id !== content.era) endEra()
			era.id = content.era
			isReplaced = undefined
			endedBy = content.endedBy || endedBy
			setUser(content.tokens || silent ? content.user : null, content.tokens)
		})
	}

	function store(newUser, newTokens, id = era.id) {
		if (newUser && !id) id = era.id = Math.random().toString(36).slice(2)
		const content = { place: serviceAndApp, era: id, user: newUser, tokens: newTokens, isReplaced }
		if (!newTokens && endedBy) content.endedBy = endedBy
		const text = newUser || isReplaced ? JSON.stringify(content) : ''
		if (text !== storedText) {
			attempt(() => host.setStorageSync(storageKey, text))
			// If the write failed, the old token is removed, because a used token is worse than no session.
			if (!text || text !== read()) attempt(() => host.removeStorageSync(storageKey))
			if (text && !storedText) attempt(() => host.removeStorageSync(endedKey))
			storedText = read()
		}
		// Without a reason, it is the id alone, which older copies of this file understand.
		const ended = !endedBy || endedBy === 'signed_out' ? id : `${id} ${endedBy}`
		if (!text && id) attempt(() => host.setStorageSync(endedKey, ended))
		setUser(newUser, newTokens)
	}

	function setUser(newUser, newTokens) {
		const isChanged = JSON.stringify(newUser) !== JSON.stringify(user)
		if (newUser && era.owner && era.owner !== newUser.openid) era.turn += 1
		if (newUser) era.owner = newUser.openid
		user = newUser
		tokens = newTokens
		if (tokens) endedBy = null
		if (tokens) era.error = undefined
		underWayEverywhere.forEach((abortIfOver) => abortIfOver())
		if (isChanged) for (const tell of listeners) tell()
	}

	function endEra(error) {
		era.error = error
		isReplaced = (error && error.code === 'session_replaced') || undefined
		era = { turn: 0 }
		underWay = {}
	}

	// Ends the session in memory only, because another instance has ended it in the storage.
	function dropSession(code, error) {
		if (user) endedBy = code
		endEra(error)
		setUser(null, null)
	}

	// Ends the session in memory and in the storage.
	function deleteSession(error) {
		const { id } = era
		if (user) endedBy = error ? error.code : 'signed_out'
		endEra(error)
		store(null, null, id)
	}

	// Lets other calls wait for the same promise until it has settled.
	function share(name, promise) {
		const end = () => underWay[name] === promise && delete underWay[name]
		promise.then(end, end)
		return (underWay[name] = promise)
	}

	// Returns whether the user has logged out, or another user has logged in, since a call began. `call` is the call's
	// era and turn, and the token that it has sent.
	function isOver(call) {
		load()
		return call.era !== era || (call.turn !== undefined && call.turn !== era.turn)
	}

	function checkSession(call) {
		if (isOver(call)) throw (call.era !== era && call.era.error) || new AuthError('session_revoked')
	}

	// A phone's clock can be wrong, so only durations count. The token must be valid for half a minute, or half its life.
	function isFresh({ access, at, life }) {
		const time = now()
		if (!access || time < Math.max(at, lastTime)) return false
		lastTime = time
		return time <= at + life - Math.min(31000, life / 2 + 1000, life * 0.75)
	}

	// If a request contains a token, `call` is its call. It is aborted when the call's session ends, because the phone
	// might not have sent it yet.
	async function callWx(name, args, observe, isGuest, call) {
		if (!isGuest && attempt(() => host.getEnterOptionsSync().scene) === SINGLE_PAGE_SCENE) fail('single_page')
		if (!attempt(() => host[name].call)) fail('no_platform', name)
		let timer
		let abortIfOver
		try {
			return await new Promise((resolve, reject) => {
				const wait = () => {
					clearTimeout(timer)
					// Some platforms never call back.
					timer = setTimeout(reject, (args.timeout || 60000) + 5000, { errMsg: 'timeout' })
				}
				wait()
				const success = (answer) => {
					const statusCode = +Object(answer).statusCode || undefined
					if (/^30[12378]$/.test(`${statusCode}`)) warnOfRedirect(args, name, answer)
					resolve({ ...answer, statusCode })
				}
				const task = host[name]({ ...args, redirect: 'manual', success, fail: reject, complete() {} })
				if (observe) attempt(() => observe(task, wait))
				abortIfOver = () => {
					if (!isOver(call)) return
					useTask(task, (real) => attempt(() => real.abort()))
					reject()
				}
				if (call) underWayEverywhere.add(abortIfOver)
			})
		} catch (e) {
			const why = e && (e.errMsg || e.message)
			const { url } = args
			if (!url) fail(codeOfLoginFailure(why), why)
			const detail = `${why || 'no response'} (${redacted(url)})`
			fail(codeOfFailure(why), detail.replace(/(\/\/[^\s"?#]*)[?#][^\s")]*/g, '$1')) // WeChat's text can contain the query
		} finally {
			clearTimeout(timer)
			underWayEverywhere.delete(abortIfOver)
		}
	}

	const header = { 'Accept-Language': ['zh-CN', 'en'][languageIndex()] }
	const timeoutOf = (path) => (/refresh$/.test(path) ? 10000 : 20000)
	const requestTo = (path, args) => ({ timeout: timeoutOf(path), header, ...args, url: baseURL + path })
	const post = async (path, data, wanted, call) =>
		bodyOf(await callWx('request', requestTo(path, POST(data)), null, false, call), wanted)
	const endSession = (refresh_token) => post('/v1/logout', { refresh_token }).catch(() => {})

	function storeLogin(answer, at) {
		const { access_token: access, refresh_token: refresh, expires_in, refresh_expires_in } = answer
		lastTime = at
		isReplaced = undefined
		store(answer.user, { access, refresh, at, life: expires_in * 1000, until: at + refresh_expires_in * 1000 })
	}

	const loginCode = () =>
		twice(
			async () => (await callWx('login', { provider: 'weixin', timeout: 10000 })).code || fail('wx_login_failed'),
			(e) => /^(wx_login_failed|network_error)$/.test(e.code),
		)

	// A code works once, so a second attempt needs another code.
	async function withCode(ask, mayRepeat) {
		const code = await loginCode()
		return ask(code).catch(async (e) => {
			if (!mayRepeat(e)) throw e
			return ask(await loginCode())
		})
	}

	async function logIn(fields, call) {
		checkSession(call)
		try {
			const { nickname, avatarUrl: avatar_url, phoneCode, phone, consents, stay } = fields
			const tap = phone || phoneCode
			let phoneError = null
			let at
			const ask = async (code) => {
				checkSession(call)
				const phone_code = tap && attempt(() => codeOf(tap), (e) => (phoneError = e.code))
				at = now()
				const body = { code, app_id: appId, nickname, avatar_url, phone_code, consents, stay }
				return post('/v1/login', body, 'refresh_token')
			}
			const answer = await withCode(ask, (e) => isPassing(e) && !isOver(call))
			if (isOver(call)) endSession(answer.refresh_token)
			checkSession(call)
			const { is_new_user: isNewUser, phone_error, ignored = null } = answer
			Object.assign(auth, { isNewUser, phoneError: phone_error || phoneError, ignored })
			storeLogin(answer, at)
			return answer.user
		} catch (e) {
			checkSession(call)
			if (LOCKED_OUT.test(e.code)) deleteSession(e)
			throw e
		}
	}

	async function login({ force, ...fields } = Object()) {
		const isPlain = !Object.keys(fields).length
		// Two calls for one tap share a login, because a phone code works once. Of the tap's event, only `detail` counts.
		const wanted = JSON.stringify(fields, (name, value) => (/^phone/.test(name) && value && value.detail) || value)
		if (underWay.login && (isPlain || wanted === underWay.wanted)) return underWay.login
		load()
		if (isPlain && !force && tokens && now() < tokens.until) return user
		const call = { era } // without a turn, because a login can change the user
		const previous = Promise.resolve(underWay.login).catch(() => {})
		underWay.wanted = wanted
		return share('login', previous.then(() => logIn(fields, call)))
	}

	// Sends the token again if the response might be lost, because a token always has the same successor.
	const sendRefresh = (refresh_token, isWanted = () => true, call) =>
		twice(() => post('/v1/refresh', { refresh_token }, 'refresh_token', call), (e) => !e.status && isWanted())

	async function refresh(old) {
		const at = now()
		const isWanted = () => (load(), tokens === old) // otherwise, another refresh was faster, or the session has ended
		try {
			const answer = await sendRefresh(old.refresh, isWanted, { era, turn: era.turn })
			if (isWanted()) storeLogin(answer, at)
		} catch (e) {
			if (!isWanted()) return
			if (LOCKED_OUT.test(e.code)) return deleteSession(e)
			if (e.status !== 400) throw e
			endedBy = e.code
			store(user, null)
			era.error = e
		}
	}

	async function currentToken(call, refused, mayLogIn = silent) {
		checkSession(call)
		if (!tokens || tokens.access === refused || !isFresh(tokens)) {
			const refreshing = underWay.refresh || (tokens && share('refresh', refresh(tokens)))
			if (refreshing) {
				await refreshing
				checkSession(call)
				if (!tokens && !mayLogIn) store(null, null)
			}
			if (!tokens && !mayLogIn) throw ((refused || refreshing) && era.error) || new AuthError('login_required')
			if (!tokens && isReplaced) fail('session_replaced')
			if (!tokens) await login()
			checkSession(call)
		}
		return tokens.access
	}

	// The request is sent again after a refusal, unless the page has already received a piece of the response.
	async function send(name, args, tokenFor, watch = Object(), refused) {
		const token = await tokenFor(refused)
		const header = { ...args.header }
		for (const key in header) if (/^authorization$/i.test(key)) delete header[key]
		if (token) header.Authorization = `Bearer ${token}`
		if (watch.check) watch.check(token)
		watch.mayRepeat = token && !refused
		const answer = await callWx(name, { ...args, header }, watch.begin, !token, token && watch.call)
		if (!token || refused || watch.hasPiece) return answer
		const isRefusal = answer.statusCode === 401 || (await callBack(watch.isRefused, answer))
		return isRefusal ? send(name, args, tokenFor, watch, token) : answer
	}

	// `tell` passes the events of the tasks of an upload or a download on.
	function createWatch(enableChunked, onChunk, onTask, tell) {
		let stop
		let abort = () => {} // aborts the latest task
		const watch = Object({ aborted: new Promise((_, reject) => (stop = reject)), begin, cancel })
		function cancel() {
			watch.isAborted = true
			stop(new AuthError('aborted'))
			abort()
		}
		function begin(task, wait) {
			let status // known from the head on most platforms; the body of a 401 is not passed on
			const listen = (real) => {
				abort = () => attempt(() => real.abort())
				if (watch.isAborted) abort()
				for (const event of tell ? TASK_EVENTS : []) {
					const pass = (value) => {
						wait()
						// A refusal that is followed by a second attempt is not passed on.
						const isRefusal = +Object(value).statusCode === 401 && watch.mayRepeat
						if (!isRefusal && !watch.isAborted) tell(event, value)
					}
					attempt(() => real['on' + event](pass))
				}
				if (!enableChunked) return
				attempt(() => real.onHeadersReceived((head) => (status = +head.statusCode)))
				attempt(() =>
					real.onChunkReceived(({ data }) => {
						wait()
						if (status === 401 || watch.isAborted) return
						watch.hasPiece = true
						callBack(onChunk, data)
					}),
				)
			}
			useTask(task, listen)
			// `then` is removed, so that the task is not taken for a promise.
			callBack(onTask, Object.create(Object(task), { abort: { value: cancel }, then: {} }))
		}
		return watch
	}

	async function sendInSession(call, name, { onChunk, onTask, silent: mayLogIn = silent, ...args }, isOpen, transfer) {
		const path = textOf(args.url, 'url')
		const url = /^[\w+.-]+:/.test(path) ? path : baseURL + (/^[/?#]/.test(path) ? '' : '/') + path
		if (!trusted.includes(originOf(url))) {
			fail('origin_not_allowed', `${redacted(url)} is not at baseURL, nor in origins: ${trusted.join(', ')}`)
		}
		const inSession = (tell) => (...values) => (call.token && isOver(call)) || tell(...values)
		const passOn = inSession((piece) => callBack(onChunk, piece))
		const watch = createWatch(args.enableChunked, passOn, onTask, transfer && inSession(transfer.tell))
		watch.call = call
		if (transfer) transfer.begin(watch)
		if (isOpen) watch.isRefused = transfer ? (answer) => callBack(isRefused, withJson(answer)) : isRefused
		// The check comes at the last moment before the request is sent.
		watch.check = (token) => {
			call.token = token
			if (token) checkSession(call)
			if (watch.isAborted) fail('aborted')
		}
		const tokenFor = (refused) =>
			currentToken(call, refused, mayLogIn).catch((e) => {
				// The session has ended, or wxauth is unavailable or limits the rate.
				const hasEnded = e === call.era.error || e.status > 428 || isPassing(e)
				const isGuest = hasEnded ? /^(get|head)$/i.test(methodOf(args, name)) : e.code === 'login_required' && !refused
				if (!isOpen || mayLogIn || !isGuest) throw e
			})
		return Promise.race([watch.aborted, send(name, { ...args, url }, tokenFor, watch)])
	}

	const requestMe = async (call, path, wanted, args, name = 'request') =>
		bodyOf(await sendInSession(call, name, requestTo('/v1/me' + path, args)), wanted)

	// A new wx.login is the proof, because a thief of the access token cannot make one.
	const requestWithProof = (call, path, wanted, data) =>
		withCode(
			async (login_code) => requestMe(call, path, wanted, POST({ ...data, login_code })),
			(e) => (e.status || data) && isPassing(e), // an erasure without a response might have happened
		)

	const removeMine = async (call, path, id) =>
		void (await requestMe(call, path + encodeURIComponent(textOf(id, 'id')), null, DELETE))

	async function changeUser(call, path, args, name) {
		const changed = await requestMe(call, path, 'id', args, name)
		if (!isOver(call) && user && user.id === changed.id) store(changed, tokens)
		return changed
	}

	load()
	/** @type {any} */
	const auth = {
		get user() {
			load() // a user who has logged out in another instance is logged out here, too
			return user
		},
		get endedBy() {
			load()
			return endedBy
		},
		isNewUser: false,
		phoneError: null,
		ignored: null,
		onChange(listener) {
			const tell = () => callBack(listener, user, endedBy)
			listeners = listeners.concat(tell)
			return () => void (listeners = listeners.filter((other) => other !== tell))
		},
	}
	const forGuests = {
		login: (_, fields) => login(fields),
		loginCode,
		async request(call, options) {
			const answer = await sendInSession(call, 'request', options, true)
			return { ...answer, header: answer.header || {} }
		},
		uploadFile: (call, ...args) => sendInSession(call, 'uploadFile', ...args),
		downloadFile: (call, ...args) => sendInSession(call, 'downloadFile', ...args),
		async logout(_, options) {
			const old = tokens
			deleteSession()
			if (!old) return
			if (Object(options).everywhere) {
				const tokenFor = async (refused) => (refused ? (await sendRefresh(old.refresh)).access_token : old.access)
				await send('request', requestTo('/v1/me/sessions', DELETE), tokenFor).catch(() => {})
			}
			await endSession(old.refresh)
		},
	}
	const forUsers = {
		getToken: async (call) => (call.token = await currentToken(call)),
		updateProfile: (call, { avatarUrl: avatar_url, ...fields }) =>
			changeUser(call, '', POST({ avatar_url, ...fields })),
		setAvatar(call, picture) {
			const args = { filePath: textOf(picture, 'avatarUrl'), name: 'file', timeout: 60000 }
			return changeUser(call, '/avatar', args, 'uploadFile')
		},
		bindPhone: (call, tap) => changeUser(call, '/phone', POST({ code: codeOf(tap) })),
		decrypt: async (call, { encryptedData: encrypted_data, iv }) =>
			(await requestMe(call, '/decrypt', 'data', POST({ encrypted_data, iv }))).data,
		sessions: async (call) => (await requestMe(call, '/sessions?limit=200', 'items')).items,
		revokeSession: (call, id) => removeMine(call, '/sessions/', id),
		consent: (call, documents) =>
			requestMe(call, '/consents', 'items', POST(documents)).then(() => changeUser(call, '')),
		withdrawConsent: (call, document) =>
			removeMine(call, '/consents/', document).then(() => changeUser(call, '')),
		async idToken(call, clientId, options) {
			const data = { client_id: textOf(clientId, 'clientId'), nonce: Object(options).nonce }
			return (await requestWithProof(call, '/id-token', 'id_token', data)).id_token
		},
		async deleteAccount(call) {
			await requestWithProof(call, '/erasure')
			checkSession(call)
			deleteSession()
			call.token = null // because the end of its own session is not a failure
		},
	}
	// Each call belongs to the session that exists when the call begins. A request that was sent with a token of that
	// session fails if the session ends before the page learns of the response.
	Object.keys({ ...forGuests, ...forUsers }).forEach((name) => {
		auth[name] = (...args) => {
			load()
			const call = { era, turn: era.turn, token: null }
			const checkSent = () => call.token && checkSession(call)
			const promise = (async () => {
				if (!silent && forUsers[name] && !tokens) fail('login_required')
				return (forGuests[name] || forUsers[name])(call, ...args)
			})().then(
				(value) => (checkSent(), value),
				(e) => {
					if (isOver(call)) promise.catch(() => {}) // pages may ignore it, so it is no unhandled rejection
					checkSent()
					if (e.name === 'AuthError') throw e
					fail('invalid_argument', e.message)
				},
			)
			return promise
		}
	})
	for (const name of ['uploadFile', 'downloadFile']) {
		const inSession = auth[name]
		auth[name] = (options) => {
			const { success, fail, complete, ...args } = Object(options)
			const { task, ...transfer } = createTransfer()
			const callBoth = (outcome) => (value) => [outcome, complete].forEach((fn) => callBack(fn, value))
			inSession(args, true, transfer).then(callBoth(success), (e) => {
				const { message } = e
				const errMsg = `${name}:fail ${e.code === 'aborted' ? 'abort' : message}`
				callBoth(fail)(Object.assign(new AuthError(e.code), e, { message, errMsg })) // other calls might share `e`
			})
			return task
		}
	}
	return auth
}

// Returns the task that a page gets at once, and what connects it with the tasks of both attempts.
function createTransfer() {
	let cancel = () => {}
	const listeners = {}
	const task = { abort: () => cancel() }
	for (const event of TASK_EVENTS) {
		listeners[event] = []
		task['on' + event] = (listener) => void (listeners[event] = listeners[event].concat(listener))
		task['off' + event] = (listener) =>
			void (listeners[event] = listener ? listeners[event].filter((other) => other !== listener) : [])
	}
	const tell = (event, value) => listeners[event].forEach((listener) => callBack(listener, value))
	return { task, tell, begin: (watch) => (cancel = watch.cancel) }
}

const TASK_EVENTS = ['ProgressUpdate', 'HeadersReceived']
const redirects = new Set()

// Older phones follow redirects, so a service that redirects works on some phones only.
function warnOfRedirect(args, name, { header }) {
	const what = `${methodOf(args, name)} ${redacted(args.url)}`
	if (redirects.has(what) || redirects.size >= 100) return
	redirects.add(what)
	const target = withoutTokens(redacted(headerOf(header, 'location') || 'another address'))
	attempt(() =>
		console.warn(`wxauth: ${what} redirects to ${target}. Call the target itself, because redirects are not followed.`),
	)
}

const methodOf = (args, name) =>
	({ uploadFile: 'POST', downloadFile: 'GET' }[name] || `${args.method || 'GET'}`.toUpperCase())

function headerOf(header, wanted) {
	const name = Object.keys(Object(header)).find((key) => key.toLowerCase() === wanted)
	return name && header[name]
}

// Uploads have JSON as text, and downloads have no data.
const withJson = ({ data = '', ...answer }) => ({
	...answer,
	data: (isText(data) && attempt(() => JSON.parse(data))) || data,
})

// WeChat's codes belong to the plugin if the code runs in one.
const appIdOf = ({ plugin, miniProgram }) => (plugin && plugin.appId) || miniProgram.appId

const POST = (data) => ({ method: 'POST', data: JSON.parse(JSON.stringify(data)) })
const DELETE = { method: 'DELETE' }
const fail = (code, detail) => {
	const error = new AuthError(code, { detail })
	const mistake = error.message.replace(/(:\/\/[^/ )]+)[^ )]*/g, '$1') // one warning for all paths of an origin
	if (MISTAKES[code] && !warnings.has(mistake) && warnings.size < 50) {
		warnings.add(mistake)
		attempt(() => console.warn(`wxauth: ${error.message}. ${MISTAKES[code]}`))
	}
	throw error
}
// Returns 0 for Chinese, and 1 for English.
const languageIndex = () => attempt(() => +/^(?!zh)/i.test(wx.getAppBaseInfo().language || 'zh')) || 0
const isPassing = (e) => ONCE_MORE.test(e.code)
const twice = (ask, mayRepeat) =>
	ask().catch((e) => {
		if (!mayRepeat(e)) throw e
		return ask()
	})
// Calls a callback of the page. An error in it is only logged, and the result is then undefined.
const callBack = (fn, ...args) => (async () => fn && fn(...args))().catch((e) => attempt(() => void console.error(e)))
// The task is a promise if an interceptor wraps it.
const useTask = (task, use) => (Object(task).then ? task.then(use, () => {}) : use(task))
const isText = (value) => typeof value === 'string' && value !== ''

// Formats a time in the phone's time zone, such as 2027-01-01 08:00.
function minuteOf(time) {
	const at = new Date(time)
	return new Date(+at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace('T', ' ')
}

function attempt(action, otherwise = (_) => {}) {
	try {
		return action()
	} catch (e) {
		otherwise(e)
	}
}

// Returns a text, or the text in this member of an event's detail.
function textOf(value, name) {
	const detail = value && value.detail
	const text = detail ? detail[name] : value
	const why = /cancel/i.test(detail && detail.errMsg) ? 'aborted' : 'invalid_argument'
	return isText(text) ? text : fail(why, name)
}

// Returns the code of a tap, from the tap itself or its event.
function codeOf(tap) {
	const detail = tap && tap.detail
	if (!detail || isText(detail.code)) return textOf(tap, 'code')
	const { errMsg = 'no code', errno, encryptedData } = detail
	const why = encryptedData ? '; the base library is older than 2.21.2' : ''
	fail(codeOfTap(+errno, errMsg), errMsg + (errno ? `, errno ${errno}` : '') + why)
}

const BY_THE_USER = /\b(user|auth)[ :_-]*(deny|denied|cancel)|privacy permission is not authorized/i

function codeOfTap(errno, errMsg) {
	if (errno === 103 || errno === 104) return 'phone_refused'
	// 1400001 of WeChat means that the account must buy more quota.
	if (errno === 1400001 || /no enough quota/i.test(errMsg)) return 'phone_quota_used_up'
	return BY_THE_USER.test(errMsg) ? 'phone_refused' : 'phone_unavailable'
}

const codeOfLoginFailure = (detail) =>
	/net::ERR|errcode:-1|time.{0,2}out|超时|network|offline|网络|断开/i.test(detail) ? 'network_error' : 'wx_login_failed'

function codeOfFailure(detail) {
	if (/time.{0,2}out|超时/i.test(detail)) return 'timeout'
	if (/not in domain list/i.test(detail)) return 'domain_not_allowed'
	const isOurs = /invalid url|no such file|file (not|does)/i.test(detail)
	return isOurs ? 'invalid_argument' : 'network_error'
}

// Returns the origin of a URL, or an empty text if the URL is malformed or ambiguous.
function originOf(url) {
	const match = /^(https?:\/\/([a-z\d._-]+|\[[\da-f:.]+\])(:\d+)?)(?=[/?#]|$)[^\\]*$/i.exec(url)
	return match ? match[1].toLowerCase().replace(/^(http:.*):80$|^(https:.*):443$/, '$1$2') : ''
}

function checkedOrigin(name, url) {
	const must = 'must be http:// or https:// and a host, without a user or a backslash'
	const like = name === 'baseURL' ? "'https://auth.example.com'" : "['https://api.example.com']"
	const what = `${name} ${must}, not ${redacted(url) || 'empty'}; write createAuth({ ${name}: ${like} })`
	return originOf(url) || fail('invalid_argument', what)
}

const withoutTokens = (text) => text.replace(/(eyJ|wxr_)[\w.-]+/g, '$1…')
// Returns a URL without query, user and password.
const redacted = (url) => `${url}`.replace(/[?#][^]*/, '').replace(/^[^]*@/, '…@')

// Returns the body of a 2xx response that contains the required member, or at least is not a web page.
function bodyOf({ statusCode: status, data, header }, wanted) {
	const body = isText(data) ? attempt(() => JSON.parse(data)) || data : data
	const isGood = /^2/.test(status)
	if (isGood && (wanted ? body && body[wanted] : !isText(body))) return body
	const problem = (!isGood && body) || {}
	const { code, request_id: requestId, wechat_errcode: wechatErrcode, erase_at: eraseAt } = problem
	const seconds = headerOf(header, 'retry-after')
	const retryAfter = /^\d+$/.test(seconds) ? +seconds : null
	const more = { ...problem, status, requestId, retryAfter, wechatErrcode, eraseAt }
	throw new AuthError(isText(code) ? code : 'http_error', more)
}
