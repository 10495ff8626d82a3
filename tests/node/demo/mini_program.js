// A mini-program on a phone: its pages compiled and rendered by WeChat's miniprogram-simulate, and tapped.
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Window } from 'happy-dom'
import { Phone } from '../miniprogram/phone.js'

/** Where things are: see `world` in tests/test_example_miniprogram.py. */
export const { SERVICE_URL, WECHAT_URL, ORDERS_URL, APP_ID } = process.env

const PATIENCE = 60000
/** WeChat's own compiler of pages is a program for these processors; elsewhere the one in JavaScript does. */
const compiler = process.arch === 'x64' ? 'official' : 'simulate'

const window = new Window()
for (const name of ['document', 'CustomEvent', 'Event', 'Element']) globalThis[name] = window[name]
globalThis.window = window
const require = createRequire(import.meta.url) // also of modules, as simulate does it: Node 20.19
const simulate = require('miniprogram-simulate')

/** A mini-program, as one person has it. */
export class MiniProgram {
  /**
   * @param {object} about
   * @param {string} about.folder where it is
   * @param {string} about.person who has the phone
   * @param {() => Record<string, string>} about.changes what is written otherwise in its files, such as where the services are
   */
  constructor({ folder, person, changes }) {
    Object.assign(this, { source: folder, person, changes })
    this.phone = new Phone({ wechat: WECHAT_URL, person, appId: APP_ID })
    /** What was shown for a moment. */
    this.toasts = []
    /** What the person answers to the next questions. */
    this.confirms = []
    this.pullsEnded = 0
    /** What else `wx` has. */
    this.wx = {}
  }

  /** Start it, or end it and start it again. */
  launch() {
    // A folder of its own: each run evaluates the modules anew.
    this.close()
    this.loaded = {}
    this.folder = mkdtempSync(join(tmpdir(), 'demo-'))
    cpSync(this.source, this.folder, { recursive: true })
    writeFileSync(join(this.folder, 'package.json'), '{ "type": "module" }')
    for (const [written, meant] of Object.entries(this.changes())) this.rewrite(written, meant)
    const wx = {
      ...this.phone.restart(),
      ...this.wx,
      showToast: ({ title, icon }) => {
        assert.equal(typeof title, 'string')
        assert.ok(icon === 'none' || title.length <= 7, `${title} does not fit beside an icon`)
        this.toasts.push(title)
      },
      showModal: async ({ confirmText = '' }) => {
        assert.ok(confirmText.length <= 4)
        return { confirm: this.confirms.shift() }
      },
      stopPullDownRefresh: () => (this.pullsEnded += 1),
    }
    Object.assign(globalThis, {
      wx,
      App: (app) => (this.app = app),
      getApp: () => this.app,
      // A page is a component with the methods of a page.
      Page: ({ data, ...methods }) => Component({ data, methods }),
    })
    this.module('app.js')
    this.app.onLaunch()
    return this
  }

  rewrite(written, meant) {
    const files = readdirSync(this.folder).filter((name) => name.endsWith('.js')).map((name) => join(this.folder, name))
    const found = files.filter((file) => readFileSync(file, 'utf8').includes(written))
    assert.ok(found.length, `no file has ${written}`)
    for (const file of found) writeFileSync(file, readFileSync(file, 'utf8').replaceAll(written, meant))
  }

  /** One of its own modules. */
  module(name) {
    return require(join(this.folder, name))
  }

  /** Open a page: its name. */
  open(name) {
    const path = join(this.folder, `pages/${name}/${name}`)
    this.loaded[name] = this.loaded[name] || simulate.load(path, { compiler, rootPath: this.folder })
    const page = new OpenPage(simulate.render(this.loaded[name]))
    page.component.attach(document.body)
    page.call('onLoad')
    page.call('onShow')
    return page
  }

  close() {
    if (this.folder) rmSync(this.folder, { recursive: true })
    this.folder = null
  }
}

/** A page on the screen. */
export class OpenPage {
  constructor(component) {
    this.component = component
  }

  get text() {
    return this.component.dom.textContent
  }

  /** Waits until it shows this. */
  async shows(text) {
    await until(() => this.text.includes(text), () => `waited for ${text}, there was: ${this.text}`)
    return this
  }

  /** The elements of a class. */
  all(name) {
    return this.component.querySelectorAll(`.${name}`)
  }

  /** An attribute of the first element of a class, as the page has set it. */
  attribute(name, attribute) {
    const [element] = this.all(name)
    assert.ok(element, `no .${name} in: ${this.text}`)
    const found = element.toJSON().attrs.find((attr) => attr.name === attribute)
    return found && found.value
  }

  /** What WeChat tells the page of the first element of a class: a tap, unless something else is said. */
  async does(name, event = 'tap', detail = {}) {
    await until(() => !this.attribute(name, 'disabled'), () => `.${name} stays disabled`)
    this.all(name)[0].dispatchEvent(event, { detail })
    await new Promise(setImmediate)
  }

  /** The page's own function, which WeChat calls: onLoad, onShow, onPullDownRefresh, what a tap is bound to. */
  call(name, event = {}) {
    const { instance } = this.component
    return instance[name] && instance[name](event)
  }
}

/** Waits for it to become true. */
export async function until(condition, complaint = () => 'waited in vain') {
  const deadline = Date.now() + PATIENCE
  while (!condition()) {
    assert.ok(Date.now() < deadline, complaint())
    await sleep(5)
  }
}

/** The page of wxauth in a web-view: what it has the mini-program open. */
export async function askedInWebView() {
  const asked = new URLSearchParams({
    client_id: 'wxauth-example',
    redirect_uri: 'http://127.0.0.1/callback',
    response_type: 'code',
    state: 'a state',
    code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
    code_challenge_method: 'S256',
  })
  const headers = { 'user-agent': 'Mozilla/5.0 (iPhone) MicroMessenger/8.0.60 Language/zh_CN miniProgram/wx0' }
  const html = await (await fetch(`${SERVICE_URL}/v1/authorize?${asked}`, { headers })).text()
  const { url } = JSON.parse(/data-page="([^"]+)"/.exec(html)[1].replaceAll('&quot;', '"').replaceAll('&amp;', '&'))
  const [path, query] = url.split('?')
  assert.equal(path, '/pages/authorize/authorize')
  return Object.fromEntries(query.split('&').map((pair) => pair.split('=')))
}
