// The few members of WeChat's `wx` that wxauth.js uses, for browsers: H5 previews, tests, the phone on the desk.
//
//   import { createWx } from './browser_wx.js'
//   const wx = createWx({ login: async () => ({ code: await aCodeFromSomewhere() }) })
//   const auth = createAuth({ baseURL: 'https://auth.example.com', platform: wx })
//
// Callbacks, answers and failures have WeChat's form. Three things differ in a browser. A redirect fails, because a
// browser does not reveal its target. Answers from another origin can be read only if CORS allows it. And a `filePath`
// is a blob: or data: URL.

const TIMEOUT = 60000

/**
 * @param {object} options
 * @param {() => Promise<{ code: string }>} options.login Answers `wx.login`. A rejection becomes its failure.
 * @param {Storage} [options.storage] Where items are stored.
 * @param {string} [options.prefix] The prefix of the items' names in that storage.
 * @param {() => string} [options.userAgent] The phone's user agent, for a `send` that can set it; a browser cannot.
 * @param {typeof fetch} [options.send] Sends requests.
 * @param {(exchange: Exchange) => void} [options.observe] Called when a call starts, and again when it ends.
 *
 * @typedef {object} Exchange The same object both times.
 * @property {'login' | 'request' | 'uploadFile'} api
 * @property {string} method
 * @property {string} url
 * @property {Record<string, string>} header The request's header; `body` is its body.
 * @property {number} at When it began, in ms since the epoch.
 * @property {number | null} ms How long it took; null until it has ended.
 * @property {number | null} status Null without an answer. `answerHeader` and `answer` belong to it.
 * @property {string} [error] The reason why there was no answer.
 */
export function createWx({ login, storage = localStorage, prefix = '', userAgent, send: fetched = fetch, observe = () => {} }) {
  const watched = async (exchange, work, { success, fail, complete }) => {
    Object.assign(exchange, { at: Date.now(), ms: null, status: null })
    observe(exchange)
    const started = performance.now()
    let tell
    try {
      const answer = await work()
      exchange.answer = answer.data ?? answer
      exchange.answerHeader = answer.header
      exchange.status = answer.statusCode ?? null
      tell = () => (success?.({ ...answer, errMsg: `${exchange.api}:ok` }), complete?.(answer))
    } catch (error) {
      exchange.error = { TimeoutError: 'timeout', AbortError: 'abort' }[error.name] ?? error.message
      const failure = { errMsg: `${exchange.api}:fail ${exchange.error}` }
      tell = () => (fail?.(failure), complete?.(failure))
    }
    exchange.ms = performance.now() - started
    observe(exchange)
    tell()
  }

  const send = async (exchange, body, { timeout = TIMEOUT, redirect = 'follow' }, aborted, heard = {}) => {
    const { method, url, header: headers } = exchange
    const signal = AbortSignal.any([AbortSignal.timeout(timeout), ...(aborted ? [aborted] : [])])
    const response = await fetched(url, {
      method,
      headers,
      body,
      redirect,
      signal,
      credentials: 'omit',
      cache: 'no-store',
    })
    if (response.type === 'opaqueredirect') throw new Error('a redirect')
    const [statusCode, header] = [response.status, Object.fromEntries(response.headers)]
    heard.head?.({ statusCode, header })
    if (!heard.piece) return { statusCode, header, data: await response.text() }
    const decoder = new TextDecoder()
    let data = ''
    const reader = response.body.getReader()
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      data += decoder.decode(part.value, { stream: true })
      heard.piece({ data: part.value.slice().buffer })
    }
    return { statusCode, header, data }
  }

  const phoneHeader = () => (userAgent ? { 'User-Agent': userAgent() } : {})

  return {
    login: (options) => void watched({ api: 'login', method: '', url: '', header: {} }, login, options),

    request(options) {
      const { url, method = 'GET', data, header, dataType = 'json' } = options
      const headers = { ...phoneHeader(), ...header }
      const isInUrl = method === 'GET' || method === 'HEAD'
      const target = new URL(url)
      if (isInUrl) for (const [name, value] of Object.entries(data ?? {})) target.searchParams.append(name, value)
      const exchange = { api: 'request', method, url: target.href, header: headers, body: isInUrl ? undefined : data }
      const work = async () => {
        await null // listeners are added to the task after the call
        const sent = isInUrl ? undefined : bodyOf(data, headers)
        const answer = await send(exchange, sent, options, controller.signal, heard)
        return dataType === 'json' ? { ...answer, data: parsed(answer.data) } : answer
      }
      const controller = new AbortController()
      const heard = {}
      watched(exchange, work, options)
      return {
        abort: () => controller.abort(),
        onHeadersReceived: (listener) => (heard.head = listener),
        onChunkReceived: (listener) => (heard.piece = listener),
      }
    },

    uploadFile(options) {
      const { url, filePath, name, formData } = options
      const header = { ...phoneHeader(), ...options.header }
      const work = async () => {
        const form = new FormData()
        for (const [field, value] of Object.entries(formData ?? {})) form.append(field, value)
        form.append(name, await (await fetch(filePath)).blob(), 'picture')
        return send(exchange, form, options)
      }
      const exchange = { api: 'uploadFile', method: 'POST', url, header, body: `${name}: ${filePath}` }
      watched(exchange, work, options)
    },

    getStorageSync: (key) => parsed(storage.getItem(prefix + key) ?? '""'),
    setStorageSync: (key, data) => storage.setItem(prefix + key, JSON.stringify(data)),
    removeStorageSync: (key) => storage.removeItem(prefix + key),
  }
}

/** Return the body as `wx.request` writes it, in JSON unless the header names a form. */
function bodyOf(data, headers) {
  const name = Object.keys(headers).find((name) => /^content-type$/i.test(name)) ?? 'content-type'
  headers[name] ??= 'application/json'
  if (data === undefined || typeof data === 'string') return data
  return headers[name].includes('urlencoded') ? new URLSearchParams(data) : JSON.stringify(data)
}

/** Return a response as `wx.request` reads it, as JSON if that is valid, otherwise as text. */
function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
