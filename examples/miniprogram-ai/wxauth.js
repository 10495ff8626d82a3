// The session of a mini-program. wxauth.d.ts documents the functions.

const ONCE_MORE = /^(code_used|invalid_code|wechat_unavailable|(wechat_)?timeout|network_error)$/
const SHUT_OUT = /^(account_(disabled|leaving)|session_replaced)$/
const TITLES = {
	__proto__: null,
	network_error: '网络不可用|No network',
	timeout: '网络超时|Timed out',
	aborted: '已取消|Cancelled',
	wx_login_failed: '微信登录失败|WeChat login failed',
	single_page: '请点击底部“前往小程序”|Open the mini-program below',
	phone_refused: '未授权手机号|No phone number',
	phone_unavailable: '暂时无法获取手机号|No phone number at present',
	phone_quota_used_up: '暂时无法获取手机号|No phone number at present',
	session_revoked: '登录已失效|Logged out',
	session_replaced: '账号已在其他设备登录|Logged in elsewhere',
}

export class AuthError extends Error {
	constructor(code, more = /** @type {any} */ ({})) {
		const { title, detail, errors, status = null, requestId = null, retryAfter = null } = more
		const { wechatErrcode = null, until = null, eraseAt = null } = more
		super(detail ? `${code}: ${detail}`.replace(/(eyJ|wxr_)[\w.-]+/g, '$1…') : code) // never a token
		if (!(this instanceof AuthError)) Object.setPrototypeOf(this, AuthError.prototype) // compiled to ES5
		const column = attempt(() => +/^(?!zh)/i.test(wx.getAppBaseInfo().language || 'zh')) || 0
		this.title = isText(title) ? title : (TITLES[code] || '出错了，请重试|Please try again').split('|')[column]
		const end = isText(until) && attempt(() => minuteOf(until))
		if (end) this.title += ['解封时间：', ' Until '][column] + end
		this.errors = Array.isArray(errors) ? errors : []
		Object.assign(this, { name: 'AuthError', code, status, requestId, retryAfter, wechatErrcode, until, eraseAt })
	}
}

/** @type {typeof import('./wxauth.js').createAuth} */
export function createAuth(options) {
	const { baseURL: url, appId: id, origins = [], platform, storageKey = 'wxauth', now = Date.now } = Object(options)
	const baseURL = `${url}`.replace(/\/+$/, '')
	const trusted = [originGiven('baseURL', baseURL), ...[].concat(origins).map((one) => originGiven('origins', one))]
	// @ts-ignore
	const host = platform || (typeof uni === 'undefined' ? wx : uni)
	const appId = id || attempt(() => host.getAccountInfoSync().miniProgram.appId)

	const place = JSON.stringify([baseURL, appId])
	/** @type {any} */
	let user = null
	let tokens // { access, refresh, at, life, until }: ms, by the phone's clock
	let stored
	let lastTime = 0
	let era = {} // ends with the session, maybe with an error
	let underWay = {} // login, refresh: promises
	let isReplaced // by a login on another device: else both would log each other out for ever
	let listeners = []

	const read = () => attempt(() => host.getStorageSync(storageKey))

	// Loads the stored session, which another instance may have replaced.
	function load() {
		const text = read()
		if (text === stored) return
		stored = text
		return attempt(() => {
			const kept = JSON.parse(text)
			if (kept.place === place) isReplaced = kept.isReplaced
			if (kept.place !== place || !kept.user.id || (kept.tokens && !kept.tokens.refresh)) return
			keep(kept.user, kept.tokens)
			return true
		})
	}

	function keep(newUser, newTokens) {
		const isChanged = JSON.stringify(newUser) !== JSON.stringify(user)
		user = newUser
		tokens = newTokens
		const text = user || isReplaced ? JSON.stringify({ place, user, tokens, isReplaced }) : ''
		if (text !== stored) {
			attempt(() => host.setStorageSync(storageKey, text))
			// Better no session than a used token.
			if (!text || text !== read()) attempt(() => host.removeStorageSync(storageKey))
			stored = read()
		}
		if (isChanged) for (const tell of listeners) tell().catch(() => {})
	}

	function forget(error) {
		era.error = error
		isReplaced = error && error.code === 'session_replaced' ? true : undefined
		era = {}
		underWay = {}
		keep(null, null)
	}

	function begin(name, promise) {
		const end = () => underWay[name] === promise && delete underWay[name]
		promise.then(end, end)
		return (underWay[name] = promise)
	}

	// Work begun before a logout, or for another person, is abandoned.
	function check(asked, owner) {
		if (asked !== era || (owner && owner !== user.openid)) throw asked.error || new AuthError('session_revoked')
	}

	// A phone's clock may be wrong, so only durations count.
	function isFresh({ at, life }) {
		const time = now()
		if (time < Math.max(at, lastTime)) return false
		lastTime = time
		return time <= at + life - Math.min(31000, life / 2 + 1000, life * 0.75) // the server counts in whole seconds
	}

	async function call(name, args, observe) {
		// Opened from Moments: a preview, where nobody can log in.
		if (attempt(() => host.getEnterOptionsSync().scene) === 1154) fail('single_page')
		let timer
		try {
			return await new Promise((resolve, reject) => {
				const wait = () => {
					clearTimeout(timer)
					timer = setTimeout(reject, (args.timeout || 60000) + 5000, { errMsg: 'timeout' }) // some never call back
				}
				wait()
				const success = (answer) => resolve(answer || {})
				const task = host[name]({ ...args, redirect: 'manual', success, fail: reject, complete() {} })
				if (observe) observe(task, wait)
			})
		} catch (e) {
			const detail = e && (e.errMsg || e.message)
			const code = /time.{0,2}out|超时/i.test(detail) ? 'timeout' : 'network_error'
			return fail(name === 'login' ? 'wx_login_failed' : code, detail)
		} finally {
			clearTimeout(timer)
		}
	}

	const to = (path, args) => ({ timeout: /refresh$/.test(path) ? 10000 : 20000, ...args, url: baseURL + path })
	const post = async (path, data, wanted) => bodyOf(await call('request', to(path, POST(data))), wanted)
	const endSession = (refresh_token) => post('/v1/logout', { refresh_token }).catch(() => {})

	function take(answer, at) {
		const { access_token: access, refresh_token: refresh, expires_in, refresh_expires_in } = answer
		lastTime = at
		isReplaced = undefined
		keep(answer.user, { access, refresh, at, life: expires_in * 1000, until: at + refresh_expires_in * 1000 })
	}

	async function logIn(fields, asked, isLast) {
		check(asked)
		try {
			const code = await auth.loginCode()
			check(asked)
			const { nickname, avatarUrl: avatar_url, phoneCode, phone, consents, stay } = fields
			let phone_code = phone || phoneCode
			let phoneError = null
			try {
				if (phone_code) phone_code = codeOf(phone_code)
			} catch (e) {
				phoneError = e.code
				phone_code = null
			}
			const at = now()
			const body = { code, app_id: appId, nickname, avatar_url, phone_code, consents, stay }
			const answer = await post('/v1/login', body, 'refresh_token')
			if (asked !== era) endSession(answer.refresh_token)
			check(asked)
			const { is_new_user: isNewUser, phone_error, ignored = null } = answer
			Object.assign(auth, { isNewUser, phoneError: phone_error || phoneError, ignored })
			take(answer, at)
			return answer.user
		} catch (e) {
			check(asked)
			if (!isLast && ONCE_MORE.test(e.code)) return logIn(fields, asked, true)
			if (SHUT_OUT.test(e.code)) forget(e)
			throw e
		}
	}

	async function login({ force, ...fields } = /** @type {any} */ ({})) {
		if (!Object.keys(fields).length) {
			if (underWay.login) return underWay.login
			load()
			if (!force && tokens && now() < tokens.until) return user
		}
		const asked = era
		const turn = Promise.resolve(underWay.login).catch(() => {})
		return begin('login', turn.then(() => logIn(fields, asked)))
	}

	// Sent again if the answer may be lost: a token has one successor.
	const sendRefresh = (refresh_token, isLast) =>
		post('/v1/refresh', { refresh_token }, 'refresh_token').catch((e) => {
			if (isLast || e.status) throw e
			return sendRefresh(refresh_token, true)
		})

	async function refresh(old) {
		const asked = era
		const at = now()
		try {
			const answer = await sendRefresh(old.refresh)
			if (tokens === old) take(answer, at) // else it was overtaken
		} catch (e) {
			if (tokens === old) {
				if (SHUT_OUT.test(e.code)) forget(e)
				if (e.status !== 400 || isReplaced) throw e
				keep(user, null)
				await login()
			}
		}
		check(asked)
		return tokens
	}

	// Tokens with time left, other than the refused one.
	async function current(refused, asked = era) {
		check(asked)
		if (tokens && tokens.access !== refused && isFresh(tokens)) return tokens
		if (underWay.refresh) return underWay.refresh
		if (load()) return current(refused, asked)
		if (tokens) return begin('refresh', refresh(tokens))
		if (isReplaced) return fail('session_replaced')
		await login()
		check(asked)
		return tokens
	}

	// After a 401, sent again with another token, unless the page has had a piece of the answer.
	async function send(name, args, tokenFor, watch = /** @type {any} */ ({}), refused) {
		const token = await tokenFor(refused)
		const header = { ...args.header }
		for (const key in header) if (/^authorization$/i.test(key)) delete header[key]
		header.Authorization = `Bearer ${token}`
		const answer = await call(name, { ...args, header }, watch.begin)
		const isLast = answer.statusCode !== 401 || refused || watch.hasPiece
		return isLast ? answer : send(name, args, tokenFor, watch, token)
	}

	// Gives the page the tasks and the pieces of a request with its second try.
	function watched(enableChunked, onChunk, onTask) {
		let stop, abort // the latest task
		const watch = { hasPiece: false, isAborted: false, aborted: new Promise((_, reject) => (stop = reject)), begin }
		function begin(task, wait) {
			let status // with the head, on most platforms; the body of a 401 is no piece
			if (enableChunked) {
				if (task.onHeadersReceived) task.onHeadersReceived((head) => (status = head.statusCode))
				task.onChunkReceived(({ data }) => {
					wait()
					if (status === 401 || watch.isAborted) return
					watch.hasPiece = true
					if (onChunk) onChunk(data)
				})
			}
			if (!onTask) return
			abort = task.abort.bind(task)
			task.abort = () => {
				watch.isAborted = true
				stop(new AuthError('aborted'))
				abort()
			}
			Promise.resolve().then(() => onTask(task)) // later, so that its errors are its own
		}
		return watch
	}

	async function guarded(name, { onChunk, onTask, ...args }) {
		const path = given(args.url, 'url')
		const url = /^[\w+.-]+:/.test(path) ? path : baseURL + (/^[/?#]/.test(path) ? '' : '/') + path
		if (!trusted.includes(originOf(url))) {
			fail('origin_not_allowed', `${shown(url)} is not at baseURL, nor in origins: ${trusted.join(', ')}`)
		}
		const asked = era
		let owner = user && user.openid
		const watch = watched(args.enableChunked, onChunk, onTask)
		const tokenFor = async (refused) => {
			const { access } = await current(refused, asked)
			check(asked, owner)
			if (watch.isAborted) fail('aborted')
			owner = user.openid
			return access
		}
		const answer = await Promise.race([watch.aborted, send(name, { ...args, url }, tokenFor, watch)])
		const { statusCode, data, header = {} } = answer
		return { statusCode, data, header }
	}

	const own = async (path, wanted, args, name = 'request') => bodyOf(await guarded(name, to(path, args)), wanted)

	// Proved by a new wx.login, which somebody who has stolen the token cannot make.
	async function proved(path, wanted, data) {
		const ask = async () => own(path, wanted, POST({ ...data, login_code: await auth.loginCode() }))
		return ask().catch((e) => {
			if (!e.status || !ONCE_MORE.test(e.code)) throw e
			return ask()
		})
	}

	const end = async (path, id) => void (await own(path + encodeURIComponent(given(id, 'id')), null, DELETE))

	async function change(path, args, name) {
		const changed = await own(path, 'id', args, name)
		if (user && user.id === changed.id) keep(changed, tokens)
		return changed
	}

	load()
	const auth = {
		get user() {
			return user
		},
		isNewUser: false,
		phoneError: null,
		ignored: null,
		onChange(fn) {
			const tell = async () => fn(user)
			listeners = listeners.concat(tell)
			return () => void (listeners = listeners.filter((one) => one !== tell))
		},
		login,
		loginCode: async () => (await call('login', { provider: 'weixin', timeout: 20000 })).code || fail('wx_login_failed'),
		getToken: async () => (await current()).access,
		request: (options) => guarded('request', options),
		updateProfile: ({ nickname, avatarUrl: avatar_url, phone }) =>
			change('/v1/me', POST({ nickname, avatar_url, phone })),
		setAvatar: (picture) =>
			change('/v1/me/avatar', { filePath: given(picture, 'avatarUrl'), name: 'file', timeout: 60000 }, 'uploadFile'),
		bindPhone: (tap) => change('/v1/me/phone', POST({ code: codeOf(tap) })),
		decrypt: async ({ encryptedData: encrypted_data, iv }) =>
			(await own('/v1/me/decrypt', 'data', POST({ encrypted_data, iv }))).data,
		sessions: async () => (await own('/v1/me/sessions?limit=200', 'items')).items,
		revokeSession: (id) => end('/v1/me/sessions/', id),
		consent: (documents) => own('/v1/me/consents', 'items', POST(documents)).then(() => change('/v1/me')),
		withdrawConsent: (document) => end('/v1/me/consents/', document).then(() => change('/v1/me')),
		async idToken(clientId, options) {
			const data = { client_id: given(clientId, 'clientId'), nonce: Object(options).nonce }
			return (await proved('/v1/me/id-token', 'id_token', data)).id_token
		},
		async logout(options) {
			load()
			const old = tokens
			forget()
			if (!old) return
			if (options && options.everywhere) {
				const tokenFor = async (refused) => (refused ? (await sendRefresh(old.refresh)).access_token : old.access)
				await send('request', to('/v1/me/sessions', DELETE), tokenFor).catch(() => {})
			}
			await endSession(old.refresh)
		},
		async deleteAccount() {
			const asked = era
			await proved('/v1/me/erasure')
			if (asked === era) forget()
		},
	}
	for (const name of Object.keys(auth).slice(5)) {
		const member = auth[name]
		auth[name] = (...args) =>
			(async () => member(...args))().catch((e) => {
				if (e.name === 'AuthError') throw e
				fail('invalid_argument', e.message)
			})
	}
	return auth
}

const POST = (data) => ({ method: 'POST', data: JSON.parse(JSON.stringify(data)) })
const DELETE = { method: 'DELETE' }
const fail = (code, detail) => {
	throw new AuthError(code, { detail })
}
const isText = (value) => typeof value === 'string' && value !== ''

// In the phone's time zone: 2027-01-01 08:00.
function minuteOf(time) {
	const at = new Date(time)
	return new Date(+at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace('T', ' ')
}

function attempt(action) {
	try {
		return action()
	} catch (_) {}
}

// A text, or this member of an event's detail.
function given(value, name) {
	const detail = value && value.detail
	const text = detail ? detail[name] : value
	return isText(text) ? text : fail('invalid_argument', name)
}

// The code of a tap on the phone button: itself, or its event.
function codeOf(tap) {
	const detail = tap && tap.detail
	if (!detail || isText(detail.code)) return given(tap, 'code')
	const { errMsg = 'no code', errno } = detail
	const why = /deny|cancel/i.test(errMsg) ? 'phone_refused' : 'phone_unavailable'
	// WeChat's 1400001: the account must buy more.
	return fail(+errno === 1400001 ? 'phone_quota_used_up' : why, errMsg + (errno ? `, errno ${errno}` : ''))
}

// A URL that could be read in two ways has no origin.
function originOf(url) {
	const match = /^(https?:\/\/([a-z\d._-]+|\[[\da-f:.]+\])(:\d+)?)(?=[/?#]|$)[^\\]*$/i.exec(url)
	return match ? match[1].toLowerCase().replace(/^(http:.*):80$|^(https:.*):443$/, '$1$2') : ''
}

function originGiven(name, url) {
	const must = 'must be http:// or https:// and a host, without a user or a backslash'
	const like = name === 'baseURL' ? "baseURL: 'https://auth.example.com'" : "origins: ['https://api.example.com']"
	const what = `${name} ${must}, not ${shown(url) || 'empty'}; write createAuth({ ${like} })`
	return originOf(url) || fail('invalid_argument', what)
}

// Without the parts that may be secret: query, user and password.
const shown = (url) => `${url}`.replace(/[?#][^]*/, '').replace(/^[^]*@/, '…@')

// The body of a 2xx that has the required member, or at least is not a page.
function bodyOf({ statusCode: status, data, header }, wanted) {
	const body = isText(data) ? attempt(() => JSON.parse(data)) || data : data
	const isGood = /^2/.test(status)
	if (isGood && (wanted ? body && body[wanted] : !isText(body))) return body
	const problem = (!isGood && body) || {}
	const { code, title, detail, errors, request_id: requestId, wechat_errcode: wechatErrcode } = problem
	const { until, erase_at: eraseAt } = problem
	const name = Object.keys(header || {}).find((key) => /^retry-after$/i.test(key))
	const retryAfter = name && /^\d+$/.test(header[name]) ? +header[name] : null
	const more = { title, detail, errors, status, requestId, retryAfter, wechatErrcode, until, eraseAt }
	throw new AuthError(isText(code) ? code : 'http_error', more)
}
