// A mini-program or a mini-game in Node 20.19 or newer, with a phone of phone.mjs as its `wx`. Nothing is drawn.
import { existsSync, readFileSync, statSync } from 'node:fs'
import Module, { createRequire } from 'node:module'
import { dirname, join, resolve, sep } from 'node:path'
import vm from 'node:vm'

/** Functions of `wx` that succeed, and do nothing. */
const IDLE =
  'showToast hideToast showModal showLoading hideLoading showActionSheet setNavigationBarTitle setNavigationBarColor ' +
  'startPullDownRefresh stopPullDownRefresh pageScrollTo setTabBarItem setTabBarBadge removeTabBarBadge showTabBar ' +
  'hideTabBar showShareMenu hideShareMenu vibrateShort vibrateLong requestSubscribeMessage onShow onHide onError'

function idle(options) {
  const answer = { errMsg: 'ok', confirm: true, cancel: false }
  for (const name of ['success', 'complete']) if (options && options[name]) options[name](answer)
  return Promise.resolve(answer)
}

/** One run of the code in a folder. For another run, as after a restart, start another process. */
export class MiniProgram {
  /**
   * @param {string} folder with app.json or game.json
   * @param {import('./phone.mjs').Phone} phone
   * @param {object} wx members of `wx` that the phone lacks, or in place of what does nothing: `{ showToast: console.log }`
   */
  constructor(folder, phone, wx = {}) {
    this.root = resolve(folder)
    /** The open pages, the shown one last. */
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
      wx: {
        ...Object.fromEntries(IDLE.split(' ').map((name) => [name, idle])),
        ...{ navigateTo: go(0), redirectTo: go(1), switchTab: go(99), reLaunch: go(99) },
        navigateBack: ({ delta = 1, ...options } = {}) => {
          this.pages.splice(Math.max(1, this.pages.length - delta))
          return idle(options)
        },
        getAccountInfoSync: () => ({ miniProgram: { appId: phone.appId, envVersion: 'develop' } }),
        getEnterOptionsSync: () => ({ scene: 1001, query: {} }),
        getLaunchOptionsSync: () => ({ scene: 1001, query: {} }),
        getSystemInfoSync: () => ({ platform: 'devtools', language: 'zh_CN' }),
        clearStorageSync: () => phone.storage.clear(),
        ...phone.wx,
        ...wx,
      },
    })
    if (existsSync(join(this.root, 'game.json'))) globalThis.window = globalThis.GameGlobal = globalThis
    findModulesAsWeChat(this.root)
  }

  /** One of its modules, by the path from the folder. */
  require(name) {
    return createRequire(join(this.root, 'app.js'))(join(this.root, name))
  }

  /** Run a script that is no module, such as an engine's: what it declares is global. */
  script(name) {
    return vm.runInThisContext(readFileSync(join(this.root, name), 'utf8'), { filename: join(this.root, name) })
  }

  /** Start the app, and return it. */
  launch(options = { scene: 1001, query: {} }) {
    this.require('app.js')
    for (const name of ['onLaunch', 'onShow']) if (this.app[name]) this.app[name](options)
    return this.app
  }

  /** Open a page, and return it: `open('pages/cart/cart', { id: '1' })`. Its handlers are its functions. */
  open(path, query = {}) {
    const page = this.#attached(path, query)
    this.pages.push(page)
    for (const name of ['onLoad', 'onShow', 'ready', 'onReady']) if (page[name]) page[name](query)
    return page
  }

  /** Make a component with these properties, and return it. What it triggers is in `triggered`. */
  component(path, properties = {}) {
    const made = this.#attached(path, properties)
    if (made.ready) made.ready()
    return made
  }

  /** A component, or a page, that is in the tree and not yet ready. WeChat says `ready` of a page after its `onLoad`. */
  #attached(path, properties) {
    const route = path.replace(/^\//, '')
    const definition = (this.definitions[route] ||= (this.require(route), this.defined))
    const given = Object.entries(properties).filter(([name]) => name in Object(definition.properties))
    const data = { ...copied(definition.data || {}), ...Object.fromEntries(given) }
    const triggered = []
    const triggerEvent = (name, detail) => triggered.push({ name, detail })
    const made = { ...definition, data, properties: data, route, options: properties, setData, triggerEvent, triggered }
    for (const name of ['created', 'attached']) if (made[name]) made[name]()
    return made
  }
}

/** Lists and objects anew, for each page its own; functions and instances of classes, such as dates, as they are. */
function copied(value) {
  if (Array.isArray(value)) return value.map(copied)
  if (!value || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, copied(each)]))
}

/** Names may be paths: `'goods[0].count'`. */
function setData(changes, done) {
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split(/[.[\]]+/).filter(Boolean)
    const last = names.pop()
    names.reduce((at, name) => (at[name] ??= {}), this.data)[last] = value
  }
  if (done) done.call(this)
}

/** `require('x.js')` and `require('x')` are beside the file, `/x` is in the folder, and packages are in miniprogram_npm. */
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
