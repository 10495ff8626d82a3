// The few members of WeChat's `wx` that wxauth.js uses, for browsers: H5 previews, tests, the phone on the desk.
//
//   import { createWx } from './browser_wx.js'
//   const wx = createWx({ login: async () => ({ code: await aCodeFromSomewhere() }) })
//   const auth = createAuth({ baseURL: 'https://auth.example.com', platform: wx })
//
// Callbacks, responses and failures have WeChat's form. Three things differ in a browser. A redirect fails, because a
// browser does not reveal its target. Responses from another origin can be read only if CORS allows it. A `filePath` is
// a blob: or data: URL.

const DEFAULT_TIMEOUT_MS = 60_000

/**
 * Return an object with these members of `wx`.
 *
 * @param {object} options
 * @param {() => Promise<{ code: string }>} options.login Returns what `wx.login` returns, or fails.
 * @param {Storage} [options.storage] Where items are stored.
 * @param {string} [options.prefix] The prefix of the items' names in that storage.
 * @param {() => string} [options.userAgent] The phone's user agent, for a `send` that can set it; a browser cannot.
 * @param {typeof fetch} [options.send] Sends requests.
 * @param {(exchange: Exchange) => void} [options.observe] Called when a call starts, and again when it ends.
 *
 * @typedef {object} Exchange A call and its outcome. `observe` gets the same object both times.
 * @property {'login' | 'request' | 'uploadFile'} api
 * @property {string} method
 * @property {string} url
 * @property {Record<string, string>} header The request's header.
 * @property {any} [body] The request's body.
 * @property {number} at When the call began, in ms since the epoch.
 * @property {number | null} ms How long the call took, in ms; null until it has ended.
 * @property {number | null} status The HTTP status; null without a response, and for `login`.
 * @property {Record<string, string>} [answerHeader] The response's header.
 * @property {any} [answer] The response's body, or the result of `login`.
 * @property {string} [error] The reason why there was no response.
 */
export function createWx({
  login,
  storage = localStorage,
  prefix = '',
  userAgent,
  send: sendRequest = fetch,
  observe = () => {},
}) {
  /** Run the call `work`, report it to `observe`, and then call the caller's callbacks. */
  async function observed(exchange, work, { success, fail, complete }) {
    Object.assign(exchange, { at: Date.now(), ms: null, status: null })
    observe(exchange)
    const started = performance.now()
    let callBack
    try {
      const result = await work()
      exchange.answer = result.data ?? result
      exchange.answerHeader = result.header
      exchange.status = result.statusCode ?? null
      callBack = () => {
        success?.({ ...result, errMsg: `${exchange.api}:ok` })
        complete?.(result)
      }
    } catch (error) {
      exchange.error = { TimeoutError: 'timeout', AbortError: 'abort' }[error.name] ?? error.message
      const failure = { errMsg: `${exchange.api}:fail ${exchange.error}` }
      callBack = () => {
        fail?.(failure)
        complete?.(failure)
      }
    }
    exchange.ms = performance.now() - started
    observe(exchange)
    callBack()
  }

  /**
   * Send a request, and return its response with its body as text. `listeners.onHeaders` gets the status and the
   * header, and `listeners.onChunk` gets each piece of the body. Throws: Error, if there is no response, or a redirect
   * that the options do not follow.
   */
  async function send({ method, url, header: headers }, body, options, aborted = null, listeners = {}) {
    const { timeout = DEFAULT_TIMEOUT_MS, redirect = 'follow' } = options
    const signals = [AbortSignal.timeout(timeout)]
    if (aborted) signals.push(aborted)
    const response = await sendRequest(url, {
      method,
      headers,
      body,
      redirect,
      signal: AbortSignal.any(signals),
      credentials: 'omit',
      cache: 'no-store',
    })
    if (response.type === 'opaqueredirect') throw new Error('a redirect')
    const statusCode = response.status
    const header = Object.fromEntries(response.headers)
    listeners.onHeaders?.({ statusCode, header })
    if (!listeners.onChunk) return { statusCode, header, data: await response.text() }
    const decoder = new TextDecoder()
    let data = ''
    for await (const chunk of chunksOf(response.body)) {
      data += decoder.decode(chunk, { stream: true })
      listeners.onChunk({ data: chunk.slice().buffer })
    }
    return { statusCode, header, data }
  }

  const phoneHeader = () => (userAgent ? { 'User-Agent': userAgent() } : {})

  return {
    login(options) {
      observed({ api: 'login', method: '', url: '', header: {} }, login, options)
    },

    request(options) {
      const { url, method = 'GET', data, dataType = 'json' } = options
      const header = { ...phoneHeader(), ...options.header }
      const isInUrl = method === 'GET' || method === 'HEAD'
      const target = new URL(url)
      if (isInUrl) for (const [name, value] of Object.entries(data ?? {})) target.searchParams.append(name, value)
      const exchange = { api: 'request', method, url: target.href, header, body: isInUrl ? undefined : data }
      const controller = new AbortController()
      const listeners = {}
      const work = async () => {
        await null // the caller adds listeners to the returned task after this call
        const body = isInUrl ? undefined : bodyOf(data, header)
        const response = await send(exchange, body, options, controller.signal, listeners)
        return dataType === 'json' ? { ...response, data: parsed(response.data) } : response
      }
      observed(exchange, work, options)
      return {
        abort: () => controller.abort(),
        onHeadersReceived: (listener) => (listeners.onHeaders = listener),
        onChunkReceived: (listener) => (listeners.onChunk = listener),
      }
    },

    uploadFile(options) {
      const { url, filePath, name, formData } = options
      const header = { ...phoneHeader(), ...options.header }
      const exchange = { api: 'uploadFile', method: 'POST', url, header, body: `${name}: ${filePath}` }
      const work = async () => {
        const form = new FormData()
        for (const [field, value] of Object.entries(formData ?? {})) form.append(field, value)
        const file = await fetch(filePath)
        form.append(name, await file.blob(), 'picture')
        return send(exchange, form, options)
      }
      observed(exchange, work, options)
    },

    getStorageSync: (key) => parsed(storage.getItem(prefix + key) ?? '""'), // a missing item is '', as in WeChat
    setStorageSync: (key, data) => storage.setItem(prefix + key, JSON.stringify(data)),
    removeStorageSync: (key) => storage.removeItem(prefix + key),
  }
}

/** Return the pieces of a body as they arrive. Not all browsers can iterate over a stream. */
async function* chunksOf(stream) {
  const reader = stream.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield value
  }
}

/**
 * Return the body as `wx.request` sends it. Without a content type in the header, the body is JSON, and its content
 * type is added to the header.
 */
function bodyOf(data, header) {
  const name = Object.keys(header).find((name) => /^content-type$/i.test(name)) ?? 'content-type'
  header[name] ??= 'application/json'
  if (data === undefined || typeof data === 'string') return data
  return header[name].includes('urlencoded') ? new URLSearchParams(data) : JSON.stringify(data)
}

/** Return a response as `wx.request` does: as a value if the text is JSON, otherwise as text. */
function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
