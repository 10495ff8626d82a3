// Chromium for tests: its pages, and their errors.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
  ...['--disable-site-isolation-trials', '--renderer-process-limit=1'], // one process less per page
]

/** Milliseconds for what takes a fraction of one second on an idle machine. */
export const PATIENCE = 120_000

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** A computer's window, and a phone's. */
export const SIZES = [
  { width: 1280, height: 720 },
  { width: 375, height: 667 },
]

/** A browser, which says when it aborts requests because the machine has been given another address. */
export async function launch() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS })
  const newContext = browser.newContext.bind(browser)
  browser.newContext = async (options) => {
    const context = await newContext(options)
    return context.on('requestfailed', (request) => {
      const { errorText } = request.failure()
      if (errorText === 'net::ERR_NETWORK_CHANGED') console.log(errorText) // programs.py looks for it
    })
  }
  return browser
}

/** Errors and warnings of pages, and their requests to other origins than these. */
export class Complaints {
  #found = []

  constructor(...origins) {
    this.origins = origins
  }

  hear(page) {
    page.on('pageerror', (error) => this.#found.push(error.message))
    page.on('console', (message) => {
      // A browser reports this for each answer of 400 and above.
      const isRefusal = message.text().startsWith('Failed to load resource: the server responded with a status of')
      if (['error', 'warning'].includes(message.type()) && !isRefusal) this.#found.push(message.text())
    })
    page.on('request', (request) => {
      const { origin, protocol } = new URL(request.url())
      if (!this.origins.includes(origin) && protocol !== 'blob:') this.#found.push(`elsewhere: ${request.url()}`)
    })
    return page
  }

  /** Ignore those that match the pattern. */
  bearWith(pattern) {
    this.#found = this.#found.filter((complaint) => !pattern.test(complaint))
  }

  /** Fail if there are any. */
  check() {
    const found = this.#found
    this.#found = []
    assert.deepEqual(found, [])
  }
}

/** Provides one unused page at a time. */
export class Pages {
  #page
  #madeBy

  /** `origin` is the origin whose storage is cleared; `options` are those of Playwright's contexts. */
  constructor(origin, complaints, options) {
    Object.assign(this, { origin, complaints, options })
  }

  async start() {
    this.browser = await launch()
  }

  /** The former page, emptied, if the options are the same, because a new one takes half a second. */
  async fresh(options = {}) {
    const madeBy = JSON.stringify(options)
    if (this.#page && madeBy === this.#madeBy) await this.#forget()
    else {
      await this.#page?.context().close()
      const context = await this.browser.newContext({ ...this.options, ...options })
      context.setDefaultTimeout(PATIENCE)
      this.#page = this.complaints.hear(await context.newPage())
      this.#madeBy = madeBy
    }
    return this.#page
  }

  async #forget() {
    await this.#page.unrouteAll()
    if (new URL(this.#page.url()).origin !== this.origin) await this.#page.goto(`${this.origin}/livez`)
    await this.#page.evaluate(() => [localStorage, sessionStorage].forEach((storage) => storage.clear()))
    await this.#page.goto('about:blank') // ends everything that the page has running
    await this.#page.context().clearCookies()
  }
}

const CONTROLS = 'a[href], button, input, select, textarea, summary, [tabindex="0"]'

/** Fail unless Tab alone goes from the page's first control to its last, through each of them, and Shift+Tab goes back. */
export async function walkByTab(page, where) {
  const number = await page.evaluate((selector) => {
    const isReached = (each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility({ visibilityProperty: true })
    window.controls = [...document.querySelectorAll(selector)].filter(isReached)
    // The page notes where the focus comes: to ask after each press would take as long again.
    window.controls[0].focus()
    if (!window.reached) addEventListener('focusin', ({ target }) => window.reached.push(target))
    window.reached = []
    return window.controls.length
  }, CONTROLS)
  for (const key of ['Tab', 'Shift+Tab']) for (let press = 1; press < number; press++) await page.keyboard.press(key)
  const [reached, controls] = await page.evaluate(() =>
    [window.reached, window.controls].map((elements) => elements.map((each) => each.outerHTML.slice(0, 120))),
  )
  assert.deepEqual(reached, [...controls.slice(1), ...controls.toReversed().slice(1)], where)
}

/** Retry `holds` until it throws nothing, and return its result. */
export async function eventually(holds) {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    try {
      return await holds()
    } catch (failure) {
      if (Date.now() > deadline) throw failure
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

/** What axe finds on the page; `options` are those of `axe.run`. */
export async function violationsOn(page, options) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE)
  return await page.evaluate(async (options) => (await window.axe.run({ resultTypes: ['violations'], preload: false, ...options })).violations, options)
}

/** Fail if one of them is serious, at one of these sizes. */
export async function assertNoBarriers(page, { sizes = SIZES, ...options } = {}) {
  for (const size of sizes) {
    await page.setViewportSize(size)
    const serious = (await violationsOn(page, options)).filter(({ impact }) => ['serious', 'critical'].includes(impact))
    assert.deepEqual(serious.map(({ id, nodes }) => [page.url(), size.width, id, nodes[0].html]), [])
  }
}

/** Let the interface's page show these paths alone: to draw all takes seconds. */
export const drawOnly = (page, ...wanted) =>
  page.route('**/openapi.json', async (route) => {
    const { paths, ...document } = await (await route.fetch()).json()
    await route.fulfill({ json: { ...document, paths: Object.fromEntries(wanted.map((path) => [path, paths[path]])) } })
  })
