// Runs a mini-program on a phone. WeChat's miniprogram-simulate compiles and renders its pages, and tests tap them.
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Window } from 'happy-dom'
import { Phone } from '../../../examples/phone/phone.mjs'

/** The URLs and ids. They come from `world` in tests/miniprogram/test_example.py. */
export const { SERVICE_URL, WECHAT_URL, ORDERS_URL, APP_ID } = process.env

const PATIENCE = 60000
/** WeChat's own page compiler runs only on x64. Elsewhere, the compiler in JavaScript is used. */
const compiler = process.arch === 'x64' ? 'official' : 'simulate'

const window = new Window()
for (const name of ['document', 'CustomEvent', 'Event', 'Element']) globalThis[name] = window[name]
globalThis.window = window
const require = createRequire(import.meta.url) // can also load ES modules from Node 20.19 on, which simulate needs
const simulate = require('miniprogram-simulate')

/** A mini-program on the phone of one user. */
export class MiniProgram {
  /**
   * @param {object} about
   * @param {string} about.folder its folder
   * @param {string} about.person the owner of the phone
   * @param {() => Record<string, string>} about.changes replacements in its files, such as the services' URLs
   * @param {string[]} [about.codeIn] the folders of these files
   */
  constructor({ folder, person, changes, codeIn = ['.'] }) {
    Object.assign(this, { source: folder, person, changes, codeIn })
    this.phone = new Phone({ wechat: WECHAT_URL, person, appId: APP_ID })
    /** The toasts that were shown. */
    this.toasts = []
    /** The user's answers to the next questions. */
    this.confirms = []
    this.pullsEnded = 0
    /** Additional members of `wx`. */
    this.wx = {}
  }

  /** Start or restart the mini-program. */
  launch() {
    // Each run needs its own folder, so that the modules are evaluated again.
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
      // A page is a component with a page's methods.
      Page: ({ data, ...methods }) => Component({ data, methods: { getPageId: () => this.pageId, ...methods } }),
    })
    this.module('app.js')
    this.app.onLaunch()
    return this
  }

  rewrite(written, meant) {
    const folders = this.codeIn.map((name) => join(this.folder, name))
    const names = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    const files = names.filter((name) => name.endsWith('.js'))
    const found = files.filter((file) => readFileSync(file, 'utf8').includes(written))
    assert.ok(found.length, `no file has ${written}`)
    for (const file of found) writeFileSync(file, readFileSync(file, 'utf8').replaceAll(written, meant))
  }

  /** Return one of the mini-program's own modules. */
  module(name) {
    return require(join(this.folder, name))
  }

  /** Open a page by its name, with the query and the id that WeChat would give it. */
  open(name, { query = {}, pageId } = {}) {
    this.pageId = pageId
    const path = join(this.folder, `pages/${name}/${name}`)
    this.loaded[name] = this.loaded[name] || simulate.load(path, { compiler, rootPath: this.folder })
    const page = new OpenPage(simulate.render(this.loaded[name]))
    page.component.attach(document.body)
    page.call('onLoad', query)
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

  /** Wait until the page shows this text. */
  async shows(text) {
    await until(() => this.text.includes(text), () => `waited for ${text}, there was: ${this.text}`)
    return this
  }

  /** Return the elements of a class. */
  all(name) {
    return this.component.querySelectorAll(`.${name}`)
  }

  /** Return an attribute of the first element of a class, as the page has set it. */
  attribute(name, attribute) {
    const [element] = this.all(name)
    assert.ok(element, `no .${name} in: ${this.text}`)
    const found = element.toJSON().attrs.find((attr) => attr.name === attribute)
    return found && found.value
  }

  /** Send an event to the first element of a class. By default, the event is a tap. */
  async does(name, event = 'tap', detail = {}) {
    await until(() => !this.attribute(name, 'disabled'), () => `.${name} stays disabled`)
    this.all(name)[0].dispatchEvent(event, { detail })
    await new Promise(setImmediate)
  }

  /** Call a function of the page that WeChat would call: onLoad, onShow, onPullDownRefresh, or a tap handler. */
  call(name, event = {}) {
    const { instance } = this.component
    return instance[name] && instance[name](event)
  }
}

/** Wait until the condition is true. */
export async function until(condition, complaint = () => 'waited in vain') {
  const deadline = Date.now() + PATIENCE
  while (!condition()) {
    assert.ok(Date.now() < deadline, complaint())
    await sleep(5)
  }
}

/** Return the query of the page that wxauth's page in a web-view opens in the mini-program. */
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
  const { url } = JSON.parse(/data-page="([^"]+)"/.exec(html)[1].replace(/&quot;|&#34;/g, '"').replaceAll('&amp;', '&'))
  const [path, query] = url.split('?')
  assert.equal(path, '/pages/authorize/authorize')
  return Object.fromEntries(query.split('&').map((pair) => pair.split('=')))
}

/** Open wxauth's page for the example site in a browser. Return its scene, and what the page is told. */
export async function browserAtSite() {
  const challenge = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
  const asked = new URLSearchParams({
    client_id: 'wxauth-example',
    redirect_uri: 'http://127.0.0.1/callback',
    response_type: 'code',
    code_challenge: challenge,
    code_challenge_method: 'S256',
  })
  const answer = await fetch(`${SERVICE_URL}/v1/authorize?${asked}`)
  const cookie = answer.headers.get('set-cookie').split(';')[0]
  const html = await answer.text()
  const [, scene] = /\/v1\/scans\/([\w-]{22})\/code/.exec(html)
  const [, typed] = /"typed">([^<]+)</.exec(html)
  const [, next] = /href="(\/v1\/authorize\/[\w-]{22}\/next)"/.exec(html)
  const goOn = async () => (await fetch(SERVICE_URL + next, { headers: { cookie }, redirect: 'manual' })).headers
  return { scene, typed, goOn }
}
