// A simulated phone with WeChat. Its `wx` behaves like the `wx` of WeChat in a mini-program. Tests can make any request
// fail.
import { request as send } from 'node:http'
import { posix } from 'node:path'

const MB = 2 ** 20
const METHODS = ['OPTIONS', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT'] // without PATCH, as in wx
const AT_ONCE = 10 // the number of requests that run at the same time; other requests wait
const USER_AGENT =
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 ' +
  'MicroMessenger/8.0.44(0x18002c2d) NetType/WIFI Language/zh_CN'
const JPEG = 'image/jpeg'
const TYPES = { gif: 'image/gif', jpeg: JPEG, jpg: JPEG, mp4: 'video/mp4', png: 'image/png', webp: 'image/webp' }
const MAX_REDIRECTS = 20
const CLOSED = 'fail errcode:-100 cronet_error_code:-100 error_msg:net::ERR_CONNECTION_CLOSED'

/**
 * The fates that a request can have. Each is a function with the parameter `ask`, and `await ask()` sends the request
 * and returns the response. The function returns the response for the phone, or throws the end of an errMsg.
 */
export const fates = {
  /** The service handles the request, and the response is lost. */
  answerLost: async (ask) => {
    await ask()
    throw CLOSED
  },
  /** The request does not leave the phone. */
  notSent: async () => {
    throw 'fail errcode:-106 cronet_error_code:-106 error_msg:net::ERR_INTERNET_DISCONNECTED'
  },
  /** The request fails, and its errMsg ends with this text. */
  fails: (errMsg) => async () => {
    throw errMsg
  },
  /** The service handles the request, and the response arrives after the timeout. */
  tooLate: async (ask) => {
    await ask()
    throw 'fail timeout'
  },
  /** The request is not sent, and no callback is ever called. */
  silent: () => new Promise(() => {}),
  /** The service handles the request, and no callback is ever called. */
  doneInSilence: async (ask) => {
    await ask()
    return new Promise(() => {})
  },
  /** A gateway or a captive portal returns this response instead of the service. */
  answers: (statusCode, data, header) => async () => ({ statusCode, data, header }),
  /** `wx` itself throws this error immediately. */
  throws: (error) => Object.assign(() => {}, { thrown: [error] }),
}

/**
 * A gate that holds a request. Await `gate.arrived`, which is when the request reaches the gate, then call
 * `gate.open()`.
 */
export class Gate {
  constructor() {
    this.arrived = new Promise((arrive) => (this.arrive = arrive))
    this.opened = new Promise((open) => (this.open = open))
  }

  /** A fate that holds the request before it is sent. */
  get before() {
    return async (ask) => {
      await this.pass()
      return ask()
    }
  }

  /** A fate that holds the response after the service has handled the request. */
  get after() {
    return async (ask) => {
      const answer = await ask()
      await this.pass()
      return answer
    }
  }

  pass() {
    this.arrive()
    return this.opened
  }
}

export class Phone {
  /**
   * @param {object} about
   * @param {string} about.wechat the URL of the simulated WeChat
   * @param {string} about.person the user who is logged in to WeChat
   * @param {string} about.appId the mini-program's appid
   */
  constructor({ wechat, person, appId }) {
    Object.assign(this, { wechat, person, appId })
    /** The phone's clock in milliseconds. The clock stands still until a test sets it. */
    this.time = Date.UTC(2026, 10, 20, 8)
    this.isOnline = true
    /** The version of the base library. Versions before 3.2.2 follow every redirect. */
    this.SDKVersion = '3.9.0'
    /** Returns the name of a header as this phone spells it. */
    this.headerName = (name) => name
    /**
     * Whether the status comes with the head of a response in pieces. In WeChat's developer tools, it does not.
     */
    this.hasStatusInHead = true
    /** The number of times that each callback is called. */
    this.callbacks = 1
    /** All network calls in their order, with their options and kinds. */
    this.calls = []
    this.files = new Map()
    this.storage = new Map()
    this.fates = new Map()
    this.interrupted = []
    this.underWay = 0
    this.waiting = []
    this.restart()
  }

  now = () => this.time

  /**
   * Sets the fates of the next requests of a kind, one fate for each. A kind is, for example, `POST /v1/refresh` or
   * `login`.
   */
  next(kind, ...fates) {
    this.fates.set(kind, [...(this.fates.get(kind) || []), ...fates])
  }

  /**
   * Returns a gate that holds the next request of a kind, `before` it is sent, or `after` the service has handled it.
   */
  hold(kind, moment = 'after') {
    const gate = new Gate()
    this.next(kind, gate[moment])
    return gate
  }

  /** Returns the number of requests of a kind. For kinds, see `next`. */
  count(kind) {
    return this.callsOf(kind).length
  }

  callsOf(kind) {
    return this.calls.filter((call) => call.kind === kind)
  }

  /** Moves the app to the background. The current requests fail, even if the service handles them. */
  hide() {
    for (const interrupt of this.interrupted.splice(0)) interrupt('fail interrupted')
  }

  /** Restarts the app, so that previous callbacks are no longer called. */
  restart() {
    this.wx = makeWx(this)
    return this.wx
  }
}

function makeWx(phone) {
  const isRunning = () => phone.wx === wx

  /**
   * Starts the work, which is followed by the callbacks, never synchronously. Returns a function that aborts it.
   */
  function start(name, options, kind, work) {
    if (!isRunning()) throw new Error('this run of the mini-program has ended')
    const fate = (phone.fates.get(kind) || []).shift() || ((ask) => ask())
    phone.calls.push({ name, kind, time: phone.time, ...options })
    if (fate.thrown) throw fate.thrown[0]
    let interrupt
    const interrupted = new Promise((_, reject) => phone.interrupted.push((interrupt = reject)))
    const controller = new AbortController()
    Promise.race([interrupted, fate(() => work(controller.signal))])
      .then(
        (answer) => ['success', { ...answer, errMsg: `${name}:ok` }],
        (reason) => {
          if (typeof reason !== 'string') throw reason
          return ['fail', { errMsg: `${name}:${reason}` }]
        },
      )
      .then(([outcome, result]) =>
        setImmediate(() => {
          if (!isRunning()) return
          for (let n = 0; n < phone.callbacks; n++) {
            if (options[outcome]) options[outcome](result)
            if (options.complete) options.complete(result)
          }
        }),
      )
    return () => {
      interrupt('fail abort')
      controller.abort()
    }
  }

  async function overNetwork(work, signal) {
    if (phone.underWay >= AT_ONCE) await new Promise((go) => phone.waiting.push(go))
    phone.underWay += 1
    try {
      if (signal?.aborted) throw 'fail abort'
      if (!phone.isOnline) throw 'fail errcode:-106 cronet_error_code:-106 error_msg:net::ERR_INTERNET_DISCONNECTED'
      return await work()
    } finally {
      phone.underWay -= 1
      const go = phone.waiting.shift()
      if (go) go()
    }
  }

  /** Returns what a response's head gives the page. The cookies are also a list. */
  function headOf(statusCode, header) {
    const cookies = header['set-cookie'] || []
    const texts = Object.fromEntries(Object.entries(header).map(([name, value]) => [name, String(value)]))
    return { header: renamed(texts, phone.headerName), cookies, ...(phone.hasStatusInHead && { statusCode }) }
  }

  const wx = {
    login(options) {
      if (arguments.length !== 1) throw new TypeError('login wants one argument')
      start('login', options, 'login', () =>
        overNetwork(async () => {
          const wanted = JSON.stringify({ person: phone.person, app_id: phone.appId })
          const header = { 'content-type': 'application/json' }
          const { statusCode, body } = await exchange(`${phone.wechat}/codes`, 'POST', header, wanted)
          if (statusCode !== 200) throw 'fail system error'
          return { code: JSON.parse(body).code }
        }),
      )
    },

    request(options) {
      const { url, data, timeout = 60000, dataType = 'json', responseType = 'text', redirect = 'follow' } = options
      const method = options.method || 'GET'
      const heard = { head: () => {}, piece: () => {} }
      let isAborted = false
      const onHead = (statusCode, header) => heard.head(headOf(statusCode, header))
      const onPiece = (piece) => isAborted || heard.piece({ data: new Uint8Array(piece).buffer })
      const pieces = options.enableChunked ? { onHead, onPiece } : undefined
      const mode = isOlder(phone.SDKVersion, '3.2.2') ? 'follow' : redirect
      const stop = start('request', options, `${method} ${pathOf(url)}`, async (signal) => {
        if (!/^https?:\/\/[^\s\\]+$/i.test(url)) throw `fail invalid url "${url}"`
        if (!METHODS.includes(method)) throw 'fail method is invalid'
        if (!(timeout > 0)) throw 'fail timeout'
        const header = lowerCased({ 'Content-Type': 'application/json', ...options.header })
        header['user-agent'] = USER_AGENT
        header.referer = `https://servicewechat.com/${phone.appId}/0/page-frame.html`
        const inQuery = method === 'GET' && data !== null && typeof data === 'object'
        const target = inQuery ? url + (url.includes('?') ? '&' : '?') + formOf(data) : url
        const body = inQuery ? undefined : textOf(data, header['content-type'])
        const ask = () => exchange(target, method, header, body, mode, pieces, signal)
        const answer = await overNetwork(ask, signal)
        const text = answer.body.toString()
        return {
          ...headOf(answer.statusCode, answer.header),
          statusCode: answer.statusCode,
          data:
            responseType === 'arraybuffer'
              ? new Uint8Array(answer.body).buffer
              : dataType === 'json'
                ? parsedIfPossible(text)
                : text,
        }
      })
      const abort = () => {
        isAborted = true
        stop()
      }
      return { abort, onHeadersReceived: (fn) => (heard.head = fn), onChunkReceived: (fn) => (heard.piece = fn) }
    },

    uploadFile(options) {
      const { url, filePath, name, formData = {} } = options
      const { task, heard } = transferTask()
      const onSent = (totalBytesSent, totalBytesExpectedToSend) => {
        const progress = percent(totalBytesSent, totalBytesExpectedToSend)
        heard('ProgressUpdate', { progress, totalBytesSent, totalBytesExpectedToSend })
      }
      const watch = { onSent, onHead: (...head) => heard('HeadersReceived', headOf(...head)) }
      const stop = start('uploadFile', options, `UPLOAD ${pathOf(url)}`, async (signal) => {
        if (!phone.files.has(filePath)) throw 'fail file not found'
        const form = new FormData()
        for (const [key, value] of Object.entries(formData)) form.append(key, String(value))
        const type = TYPES[/\.(\w+)$/.exec(filePath)?.[1]] || 'application/octet-stream'
        form.append(name, new Blob([phone.files.get(filePath)], { type }), posix.basename(filePath))
        const { headers, body } = await multipart(form)
        const header = { ...lowerCased(options.header || {}), ...headers, 'user-agent': USER_AGENT }
        const answer = await overNetwork(() => exchange(url, 'POST', header, body, 'manual', watch, signal), signal)
        return { statusCode: answer.statusCode, data: answer.body.toString() } // without header, and not parsed
      })
      return task(stop)
    },

    downloadFile(options) {
      const { url, filePath } = options
      const { task, heard } = transferTask()
      const onReceived = (totalBytesWritten, totalBytesExpectedToWrite) => {
        const progress = percent(totalBytesWritten, totalBytesExpectedToWrite)
        heard('ProgressUpdate', { progress, totalBytesWritten, totalBytesExpectedToWrite })
      }
      const watch = { onReceived, onHead: (...head) => heard('HeadersReceived', headOf(...head)) }
      const stop = start('downloadFile', options, `DOWNLOAD ${pathOf(url)}`, async (signal) => {
        const header = { ...lowerCased(options.header || {}), 'user-agent': USER_AGENT }
        const ask = () => exchange(url, 'GET', header, undefined, 'follow', watch, signal)
        const { statusCode, body } = await overNetwork(ask, signal)
        const place = filePath || `http://tmp/${phone.files.size + 1}`
        phone.files.set(place, body) // whatever the status is
        return { statusCode, [filePath ? 'filePath' : 'tempFilePath']: place }
      })
      return task(stop)
    },

    getStorageSync(key) {
      const text = phone.storage.get(key)
      return text === undefined ? '' : JSON.parse(text)
    },

    setStorageSync(key, value) {
      const text = JSON.stringify(value)
      if (text === undefined) throw new Error('setStorageSync:fail parameter error')
      const others = [...phone.storage]
        .filter(([name]) => name !== key)
        .map(([name, kept]) => name.length + kept.length)
      const size = key.length + text.length
      if (size > MB) throw new Error('setStorageSync:fail entry size limit reached')
      if (others.reduce((sum, part) => sum + part, size) > 10 * MB)
        throw new Error('setStorageSync:fail exceed storage max size 10Mb')
      phone.storage.set(key, text)
    },

    removeStorageSync(key) {
      phone.storage.delete(key)
    },
  }
  return wx
}

/**
 * Returns the events of an upload or a download: `heard` tells the listeners, and `task` makes the page's task of the
 * function that stops the work.
 */
function transferTask() {
  const listeners = { ProgressUpdate: [], HeadersReceived: [] }
  let isAborted = false
  const heard = (event, value) => isAborted || listeners[event].forEach((listener) => listener(value))
  function task(stop) {
    const abort = () => ((isAborted = true), stop())
    const made = { abort }
    for (const event of Object.keys(listeners)) {
      made[`on${event}`] = (listener) => void listeners[event].push(listener)
      made[`off${event}`] = (listener) => {
        listeners[event] = listener ? listeners[event].filter((other) => other !== listener) : []
      }
    }
    return made
  }
  return { task, heard }
}

const percent = (part, total) => (total ? Math.floor((part / total) * 100) : 0)

function isOlder(version, than) {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number))
  const n = b.findIndex((part, i) => part !== (a[i] || 0))
  return n >= 0 && (a[n] || 0) < b[n]
}

/**
 * Sends one request over HTTP. It returns redirects, or follows them with all headers, as WeChat does. The functions of
 * `watch` are optional. `onHead` receives the status and the headers, `onPiece` the body in pieces, and `onSent` and
 * `onReceived` the bytes so far and in total. The total is 0 if it is unknown. Schemes other than http fail, because
 * the simulation does not support TLS.
 */
export function exchange(url, method, header, body, redirect = 'manual', watch = {}, signal = undefined, hops = 0) {
  return new Promise((resolve, reject) => {
    if (new URL(url).protocol !== 'http:') return reject('fail only http is simulated here')
    const isFollowed = ({ statusCode, headers }) =>
      redirect === 'follow' && /^30[12378]$/.test(statusCode) && headers.location
    const sent = send(new URL(url), { method, headers: header, agent: false, signal }, (answer) => {
      const chunks = []
      const { statusCode, headers } = answer
      const { onHead, onPiece, onReceived } = isFollowed(answer) ? {} : watch
      if (onHead) onHead(statusCode, headers)
      let received = 0
      answer.on('data', (chunk) => {
        received += chunk.length
        if (onReceived) onReceived(received, Number(headers['content-length']) || 0)
        if (onPiece) onPiece(chunk)
        else chunks.push(chunk)
      })
      answer.on('error', () => reject(CLOSED))
      answer.on('end', () => {
        if (!isFollowed(answer)) return resolve({ statusCode, header: headers, body: Buffer.concat(chunks) })
        if (hops === MAX_REDIRECTS) return reject('fail too many redirects')
        const isSame = statusCode > 303 || /^(GET|HEAD)$/.test(method)
        const next = new URL(headers.location, url).href
        const again = isSame ? [method, header, body] : ['GET', withoutBody(header), undefined]
        resolve(exchange(next, ...again, redirect, watch, signal, hops + 1))
      })
    })
    sent.on('error', () => reject(CLOSED))
    if (!watch.onSent) return sent.end(body)
    sent.setHeader('content-length', body.length)
    sendInPieces(sent, body, watch.onSent)
  })
}

/** Sends the body piece by piece, so that a large upload reports its progress several times. */
function sendInPieces(sent, body, onSent, from = 0) {
  const piece = body.subarray(from, from + 2 ** 16)
  sent.write(piece, (error) => {
    const until = from + piece.length
    if (error) return
    onSent(until, body.length)
    if (until < body.length) sendInPieces(sent, body, onSent, until)
    else sent.end()
  })
}

const withoutBody = (header) =>
  Object.fromEntries(Object.entries(header).filter(([name]) => !/^content-/i.test(name)))

function pathOf(url) {
  return String(url)
    .replace(/^[a-z]+:\/\/[^/?#]*/i, '')
    .replace(/[?#].*$/, '')
}

function formOf(data) {
  return Object.entries(data)
    .map((pair) => pair.map(encodeURIComponent).join('='))
    .join('&')
}

function textOf(data, type) {
  if (data === undefined || data === null || typeof data === 'string') return data || undefined
  if (data instanceof ArrayBuffer) return Buffer.from(data)
  return /json/.test(type) ? JSON.stringify(data) : formOf(data)
}

function parsedIfPossible(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function lowerCased(header) {
  return renamed(header, (name) => name.toLowerCase())
}

function renamed(header, rename) {
  return Object.fromEntries(Object.entries(header).map(([name, value]) => [rename(name), value]))
}

async function multipart(form) {
  const made = new Response(form)
  return { headers: { 'content-type': made.headers.get('content-type') }, body: Buffer.from(await made.arrayBuffer()) }
}
