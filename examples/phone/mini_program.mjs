// This module runs a mini-program or a mini-game in Node 20.19 or newer, with a phone of phone.mjs as its `wx`. It
// draws nothing.
import { existsSync, readFileSync, statSync } from 'node:fs'
import Module, { createRequire } from 'node:module'
import { dirname, join, resolve, sep } from 'node:path'
import vm from 'node:vm'

/** The functions of `wx` that succeed and do nothing. */
const IDLE =
  'showToast hideToast showModal showLoading hideLoading showActionSheet setNavigationBarTitle setNavigationBarColor ' +
  'showNavigationBarLoading hideNavigationBarLoading ' +
  'startPullDownRefresh stopPullDownRefresh pageScrollTo setTabBarItem setTabBarBadge removeTabBarBadge showTabBar ' +
  'hideTabBar showShareMenu hideShareMenu vibrateShort vibrateLong requestSubscribeMessage previewImage hideHomeButton ' +
  'setClipboardData setKeepScreenOn onShow offShow onHide offHide onError offError onAppShow offAppShow onAppHide ' +
  'offAppHide onPageNotFound onUnhandledRejection onThemeChange onMemoryWarning onWindowResize offWindowResize ' +
  'onNetworkStatusChange offNetworkStatusChange'

/** The path of a custom tab bar in a project. */
const TAB_BAR = 'custom-tab-bar/index'

/** WeChat declares these names of browsers in each module of a mini-program, and leaves them undefined. */
const UNDEFINED =
  'window document frames self location navigator localStorage history Caches screen alert confirm prompt fetch ' +
  'XMLHttpRequest WebSocket Reporter webkit WeixinJSCore'

/** The values that `wx` returns about the phone. */
const SCREEN = { windowWidth: 375, windowHeight: 667, screenWidth: 375, screenHeight: 667, pixelRatio: 2, statusBarHeight: 20 }
const SAFE_AREA = { left: 0, right: 375, top: 20, bottom: 667, width: 375, height: 647 }
const DEVICE = { platform: 'devtools', brand: 'devtools', model: 'iPhone 6/7/8', system: 'iOS 10.0.1' }
const ABOUT = { ...DEVICE, ...SCREEN, safeArea: SAFE_AREA, language: 'zh_CN', version: '8.0.44' }

function idle(options) {
  const answer = { errMsg: 'ok', confirm: true, cancel: false }
  for (const name of ['success', 'complete']) if (options && options[name]) options[name](answer)
  return Promise.resolve(answer)
}

/** Returns a function of `wx` that responds immediately, with a callback and a promise. It fails if `make` throws. */
function answering(make) {
  return (options = {}) => {
    let outcome, result
    try {
      ;[outcome, result] = ['success', { errMsg: 'ok', ...make(options) }]
    } catch ({ message }) {
      ;[outcome, result] = ['fail', { errMsg: message }]
    }
    const given = [outcome, 'complete'].filter((name) => options[name])
    for (const name of given) options[name](result)
    return outcome === 'success' || given.length ? Promise.resolve(result) : Promise.reject(result)
  }
}

/** The built-in components, which `wx.canIUse` knows besides the functions. */
const COMPONENTS =
  /^(ad|ad-custom|audio|button|camera|canvas|channel-(live|video)|checkbox(-group)?|cover-(image|view)|editor|form|icon|image|input|label|live-(player|pusher)|map|match-media|movable-(area|view)|navigation-bar|navigator|official-account|open-data|page-(container|meta)|picker(-view(-column)?)?|progress|radio(-group)?|rich-text|root-portal|scroll-view|share-element|slider|swiper(-item)?|switch|text|textarea|video|view|voip-room|web-view)$/

/** The form of names that WeChat gives its functions. It tells them from most misspelt names. */
const FUNCTIONS =
  /^(add|array|auth|authorize|base|batch|bind|can|cancel|canvas|check|choose|clear|close|compress|connect|create|crop|delete|disable|download|edit|enable|enter|exit|face|get|hide|init|is|issue|join|jump|load|login|make|navigate|next|notify|off|on|open|page|pause|play|plugin|post|pre|preload|preview|re|read|recharge|redirect|remove|report|request|require|reserve|restart|revoke|rewrite|save|scan|seek|select|send|set|share|show|start|stop|subscribe|switch|update|upload|vibrate|write)([A-Z\d]\w*)$/

/** The unknown functions that return an object. Those that begin with `create` return one, too. */
const RETURNS_OBJECT = /^(get\w+(Manager|Adapter|Performance|System)|getPerformance|connectSocket|preDownloadSubpackage)$/

const CALLBACKS = ['success', 'fail', 'complete']
const hasCallback = (options) => CALLBACKS.some((name) => typeof Object(options)[name] === 'function')

/** Succeeds as an asynchronous function of `wx`: later, with the callbacks or a promise. */
function succeed(name, options) {
  const result = { errMsg: `${name}:ok` }
  if (!hasCallback(options)) return Promise.resolve(result)
  queueMicrotask(() => ['success', 'complete'].forEach((each) => options[each] && options[each](result)))
}

/** Returns an object that has these members. Every other member is a function that does nothing and can be chained. */
function emptyObject(members = {}) {
  const object = new Proxy(members, {
    get(target, name) {
      if (name in target || name === 'then' || typeof name === 'symbol') return target[name]
      return (...values) => {
        const options = values.find(hasCallback)
        if (options) succeed(name, options)
        return /^(load|show)$/.test(name) ? Promise.resolve() : object // an advertisement's functions return promises
      }
    },
  })
  return object
}

/** Returns a query that finds one element without a size by each selector, or none by `selectAll`. */
function selectorQuery() {
  const asked = []
  let isList
  const choose = (toList) => () => ((isList = toList), query)
  const ask = (callback) => (asked.push([callback, isList ? [] : emptyElement()]), query)
  const query = emptyObject({
    ...ofEveryName('select selectViewport', choose(false)),
    selectAll: choose(true),
    ...ofEveryName('boundingClientRect scrollOffset context node', ask),
    fields: (_, callback) => ask(callback),
    exec(done) {
      setImmediate(() => {
        for (const [callback, found] of asked) if (callback) callback(found)
        if (done) done(asked.map(([, found]) => found))
      })
    },
  })
  return query
}

const emptyElement = () => {
  const sizes = ofEveryName('left top right bottom width height scrollLeft scrollTop scrollWidth scrollHeight', 0)
  return { id: '', dataset: {}, ...sizes, node: emptyObject(), context: emptyObject() }
}

/** Does what an unknown function of `wx` does, with an empty result. */
function callUnknown(name, options) {
  if (/^(on|off)[A-Z]/.test(name)) return undefined
  if (/^create(?!BLE)/.test(name) || RETURNS_OBJECT.test(name)) {
    if (hasCallback(options)) succeed(name, options)
    return emptyObject()
  }
  if (/Sync$/.test(name)) return /^get/.test(name) ? {} : undefined
  return succeed(name, options)
}

/** Adds every function that is missing in `known`. Its first call prints a warning with its name. */
function withEveryFunction(known) {
  const added = {}
  const add = (name) => {
    let isCalled = false
    return (...values) => {
      if (!isCalled) {
        console.warn(
          `wx.${name} is not simulated, and succeeds with an empty result. If WeChat has this function, you can pass ` +
            'your own in the third argument of MiniProgram. Otherwise, correct the name.',
        )
      }
      isCalled = true
      return callUnknown(name, ...values)
    }
  }
  // Names such as `then`, `$store` and `_cache` are not WeChat's, so that code can ask whether they are set.
  const isFunction = (name) => typeof name === 'string' && /^(?!then$|toJSON$)[a-z]\w*$/.test(name)
  return new Proxy(known, {
    get: (target, name) => (name in target || !isFunction(name) ? target[name] : (added[name] ||= add(name))),
  })
}

const ofEveryName = (names, make) => Object.fromEntries(names.split(' ').map((name) => [name, make]))
const keysOf = ({ storage }) => ({ keys: [...storage.keys()], currentSize: 1, limitSize: 10240 })

/** One run of the code in a folder. For another run, for example after a restart, start another process. */
export class MiniProgram {
  /**
   * @param {string} folder the folder that contains app.json or game.json
   * @param {import('./phone.mjs').Phone} phone
   * @param {object} wx members of `wx` that the phone lacks, or that replace functions that do nothing, for example
   *   `{ showToast: console.log }`
   */
  constructor(folder, phone, wx = {}) {
    this.root = resolve(folder)
    /** The open pages. The last page is visible. */
    this.pages = []
    this.definitions = {}
    const define = (definition) => (this.defined = definition)
    const go = (closed) => ({ url, ...options }) => {
      const [path, query] = url.split('?')
      const from = this.pages.length ? dirname(this.pages[this.pages.length - 1].route) : ''
      this.pages.splice(-closed || this.pages.length)
      this.open(path.startsWith('/') ? path : join(from, path), Object.fromEntries(new URLSearchParams(query)))
      return idle(options)
    }
    const about = () => ({ ...ABOUT, SDKVersion: phone.SDKVersion })
    Object.assign(globalThis, {
      App: (app) => (this.app = app),
      Page: define,
      Component: ({ properties = {}, methods, lifetimes, pageLifetimes = {}, ...rest }) => {
        const values = Object.entries(properties).map(([name, property]) => [name, Object(property).value])
        const data = { ...Object.fromEntries(values), ...rest.data }
        define({ onShow: pageLifetimes.show, ...rest, ...lifetimes, ...methods, data, properties })
      },
      getApp: () => this.app,
      getCurrentPages: () => [...this.pages],
      wx: withEveryFunction({
        ...ofEveryName(IDLE, idle),
        authorize: (options) => succeed('authorize', options),
        env: { USER_DATA_PATH: 'http://usr' },
        ...ofEveryName('cloud router worklet', emptyObject()),
        createSelectorQuery: selectorQuery,
        createAnimation: () => emptyObject({ export: () => ({ actions: [] }) }),
        ...ofEveryName('getSystemSetting getAppAuthorizeSetting', () => ({})),
        ...ofEveryName('isVKSupport checkIsPictureInPictureActive', () => false),
        arrayBufferToBase64: (buffer) => Buffer.from(buffer).toString('base64'),
        base64ToArrayBuffer: (text) => new Uint8Array(Buffer.from(text, 'base64')).buffer,
        ...{ navigateTo: go(0), redirectTo: go(1), switchTab: go(99), reLaunch: go(99) },
        navigateBack: ({ delta = 1, ...options } = {}) => {
          this.pages.splice(Math.max(1, this.pages.length - delta))
          return idle(options)
        },
        getAccountInfoSync: () => ({ miniProgram: { appId: phone.appId, envVersion: 'develop' } }),
        getEnterOptionsSync: () => ({ scene: 1001, query: {} }),
        getLaunchOptionsSync: () => ({ scene: 1001, query: {} }),
        ...ofEveryName('getSystemInfoSync getAppBaseInfo getDeviceInfo getWindowInfo', about),
        getSystemInfo: answering(about),
        getNetworkType: answering(() => ({ networkType: phone.isOnline ? 'wifi' : 'none' })),
        getMenuButtonBoundingClientRect: () => ({ top: 24, right: 365, bottom: 56, left: 278, width: 87, height: 32 }),
        getUpdateManager: () => ofEveryName('onCheckForUpdate onUpdateReady onUpdateFailed applyUpdate', () => {}),
        canIUse: (schema) => {
          const [name] = schema.split('.')
          return Object.hasOwn(globalThis.wx, name) || FUNCTIONS.test(name) || COMPONENTS.test(name)
        },
        nextTick: (work) => void setImmediate(work),
        clearStorageSync: () => phone.storage.clear(),
        getStorageInfoSync: () => keysOf(phone),
        clearStorage: answering(() => phone.storage.clear()),
        getStorageInfo: answering(() => keysOf(phone)),
        setStorage: answering(({ key, data }) => phone.wx.setStorageSync(key, data)),
        removeStorage: answering(({ key }) => phone.wx.removeStorageSync(key)),
        getStorage: answering(({ key }) => {
          if (!phone.storage.has(key)) throw new Error('getStorage:fail data not found')
          return { data: phone.wx.getStorageSync(key) }
        }),
        ...phone.wx,
        ...wx,
      }),
    })
    if (existsSync(join(this.root, 'game.json'))) globalThis.window = globalThis.GameGlobal = globalThis
    // What Node itself has stays, because a test might need it.
    else for (const name of UNDEFINED.split(' ')) if (!(name in globalThis)) globalThis[name] = undefined
    findModulesAsWeChat(this.root)
  }

  /** Returns a module of the mini-program, by its path in the folder. */
  require(name) {
    return createRequire(join(this.root, 'app.js'))(join(this.root, name))
  }

  /** Runs a script that is not a module, such as the script of an engine. Its declarations are global. */
  script(name) {
    return vm.runInThisContext(readFileSync(join(this.root, name), 'utf8'), { filename: join(this.root, name) })
  }

  /** Starts the app and returns it. */
  launch(options = { scene: 1001, query: {} }) {
    this.require('app.js')
    for (const name of ['onLaunch', 'onShow']) if (this.app[name]) this.app[name](options)
    return this.app
  }

  /**
   * Opens a page and returns it, for example `open('pages/cart/cart', { id: '1' })`. Its functions are its handlers.
   */
  open(path, query = {}) {
    const page = this.#attached(path, query)
    this.pages.push(page)
    for (const name of ['onLoad', 'onShow', 'ready', 'onReady']) if (page[name]) page[name](query)
    return page
  }

  /**
   * Creates a component with these properties and returns it. Its member `triggered` contains the events it triggers.
   */
  component(path, properties = {}) {
    const made = this.#attached(path, properties)
    if (made.ready) made.ready()
    return made
  }

  /**
   * Fires an event on the element that has this id (`#pay`) or class (`.pay`) in the markup of a page or a component.
   * For example, `fire(page.selectComponent('#price'), '.buy')` taps it. The handler is the one that the markup names,
   * or that the data names, as `bindtap="{{f}}"` of `<script setup>` in uni-app. Returns what the handler returns.
   */
  fire(place, selector, type = 'tap', detail = {}) {
    const tag = this.#tag(place.route, selector)
    if (!tag) throw new Error(`${place.route}.wxml has no element ${selector}`)
    const written = ['bind', 'bind:', 'catch', 'catch:'].map((how) => attributeOf(tag, how + type)).find(Boolean)
    const [, path] = /^\{\{\s*([\w.]+)\s*\}\}$/.exec(written || '') || []
    const name = path ? path.split('.').reduce((at, key) => Object(at)[key], place.data) : written
    if (!place[name]) throw new Error(`${selector} of ${place.route}.wxml has no handler for ${type}: ${written}`)
    const target = { id: attributeOf(tag, 'id'), dataset: {} }
    return place[name]({ type, detail, target, currentTarget: target })
  }

  /**
   * Returns a component or a page that is in the tree, but not ready yet. WeChat calls `ready` of a page after its
   * `onLoad`.
   */
  #attached(path, properties) {
    const route = path.replace(/^\//, '')
    const definition = (this.definitions[route] ||= (this.require(route), this.defined))
    const given = Object.entries(properties).filter(([name]) => name in Object(definition.properties))
    const data = { ...copied(definition.data || {}), ...Object.fromEntries(given) }
    const triggered = []
    const triggerEvent = (name, detail) => triggered.push({ name, detail })
    const { createSelectorQuery, createIntersectionObserver } = globalThis.wx
    const made = {
      ...{ createSelectorQuery, createIntersectionObserver, animate() {}, clearAnimation() {} },
      ...{ ...definition, data, properties: data, route, options: properties, setData, triggerEvent, triggered },
    }
    const selected = {}
    const selectComponent = (selector) => (selected[selector] ||= this.#selected(route, selector))
    const getTabBar = () => this.#has(TAB_BAR) && (selected.tabBar ||= this.component(TAB_BAR))
    Object.assign(made, { selectComponent, getTabBar })
    for (const name of ['created', 'attached']) if (made[name]) made[name]()
    return made
  }

  #has(name) {
    return existsSync(join(this.root, `${name}.js`))
  }

  #read(name) {
    return existsSync(join(this.root, name)) ? readFileSync(join(this.root, name), 'utf8') : ''
  }

  /** Returns the first tag with this id (`#price`) or class (`.price`) in the markup. */
  #tag(route, selector) {
    const by = selector.startsWith('#') ? 'id' : 'class'
    const tags = this.#read(`${route}.wxml`).match(/<[\w-]+(?:"[^"]*"|'[^']*'|[^>"'])*/g) || []
    return tags.find((one) => attributeOf(one, by).split(/\s+/).includes(selector.slice(1)))
  }

  /** Returns the component with this id or class in the markup, or null for any other tag. */
  #selected(route, selector) {
    const tag = this.#tag(route, selector)
    const used = ['app', route].map((name) => JSON.parse(this.#read(`${name}.json`) || '{}').usingComponents)
    const path = tag && Object.assign({}, ...used)[/[\w-]+/.exec(tag)[0]]
    if (!path) return null
    const places = [path.startsWith('/') ? path.slice(1) : join(dirname(route), path), join('miniprogram_npm', path)]
    return this.component(places.find((place) => this.#has(place)) || places[0])
  }
}

const attributeOf = (tag, name) => (new RegExp(`\\s${name}=(["'])(.*?)\\1`).exec(tag) || [])[2] || ''

/** Functions for a page of Taro, which shows the tree in `data.root`, and passes all events to `eh`. */
export const taro = {
  /** Returns the texts that the page shows, in their order. */
  texts: ({ data }) => textsOf(data.root),

  /**
   * Fires an event on the first element that has this class or this text. For example, `taro.fire(page, 'pay')` taps
   * it. Other events need a type and a detail, as in `taro.fire(page, 'name', 'input', { value: 'Tom' })`.
   */
  fire(page, name, type = 'tap', detail = {}) {
    const has = ({ cl = '', cn = [] }) => cl.split(' ').includes(name) || cn.some(({ v }) => v === name)
    const path = pathTo(page.data.root, has)
    if (!path) throw new Error(`no element has the class or the text ${name}`)
    const [target, ...above] = path.filter(({ sid }) => sid).map(({ sid, uid }) => ({ id: uid || sid, dataset: { sid } }))
    const bubbles = /^(tap|long(press|tap)|touch\w+)$/.test(type)
    for (const currentTarget of bubbles ? [target, ...above] : [target]) page.eh({ type, detail, target, currentTarget })
  },
}

const textsOf = ({ v, cn = [] }) => [...(v ? [v] : []), ...cn.flatMap(textsOf)]

/** Returns the innermost matching node below this node, and all nodes above it. */
function pathTo(node, isIt) {
  for (const child of node.cn || []) {
    const path = pathTo(child, isIt)
    if (path) return [...path, node]
  }
  return isIt(node) ? [node] : undefined
}

/**
 * Returns a copy of lists and objects, so that each page has its own. Functions and instances of classes, such as
 * dates, are not copied.
 */
function copied(value) {
  if (Array.isArray(value)) return value.map(copied)
  if (!value || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, copied(each)]))
}

/** Sets data of a page. A name can be a path, such as `'goods[0].count'`. */
function setData(changes, done) {
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split(/[.[\]]+/).filter(Boolean)
    const last = names.pop()
    names.reduce((at, name) => (at[name] ??= {}), this.data)[last] = value
  }
  if (done) done.call(this)
}

/**
 * Makes `require` find modules as WeChat does. `x.js` and `x` are next to the file, `/x` is in the mini-program's
 * folder, and packages are in miniprogram_npm.
 */
function findModulesAsWeChat(root) {
  const find = Module._resolveFilename
  Module._resolveFilename = function (name, parent, ...more) {
    const from = parent && parent.filename ? dirname(parent.filename) : ''
    if (!`${from}${sep}`.startsWith(root + sep)) return find.call(this, name, parent, ...more)
    const places = [name.startsWith(root) ? name : name.startsWith('/') ? join(root, name) : join(from, name)]
    for (let folder = from; folder.startsWith(root); folder = dirname(folder)) {
      places.push(join(folder, 'miniprogram_npm', name))
    }
    const files = places.flatMap((place) => [place, `${place}.js`, join(place, 'index.js')])
    const isFile = (file) => statSync(file, { throwIfNoEntry: false })?.isFile()
    return files.find(isFile) || find.call(this, name, parent, ...more)
  }
}
