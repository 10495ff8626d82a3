// Runs Chromium for tests, and collects the errors of its pages.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { chromium } from 'playwright-core'

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
  ...['--disable-site-isolation-trials', '--renderer-process-limit=1'], // one process fewer for each page
]

/** The maximum number of milliseconds for work that takes less than one second on an idle machine. */
export const PATIENCE = 120_000

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** The sizes of a window on a computer and on a phone. */
export const SIZES = [
  { width: 1280, height: 720 },
  { width: 375, height: 667 },
]

// Several processes share the tests of a file, and each process has its own service.
const [part, parts] = (process.env.PART ?? '0/1').split('/').map(Number)
let seen = 0
/** Return a `test` that calls `begin` before each test, and runs only the tests that are this process's part. */
export const turns = (begin) => (name, run) => (seen += 1) % parts === part && test(name, async () => (await begin(), run()))

/** Launch a browser. It prints an error when it aborts requests because the machine's network has changed. */
export async function launch(...flags) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: [...FLAGS, ...flags] })
  const newContext = browser.newContext.bind(browser)
  browser.newContext = async (options) => {
    const context = await newContext(options)
    return context.on('requestfailed', (request) => {
      const { errorText } = request.failure()
      if (errorText === 'net::ERR_NETWORK_CHANGED') console.log(errorText) // programs.py looks for this text
    })
  }
  return browser
}

/** The errors and warnings of pages, and their requests to other origins than these. */
export class Complaints {
  #found = []

  constructor(...origins) {
    this.origins = origins
  }

  hear(page) {
    page.on('pageerror', (error) => this.#found.push(error.message))
    page.on('console', (message) => {
      // A browser reports this error for each response with status 400 or higher.
      const isRefusal = message.text().startsWith('Failed to load resource: the server responded with a status of')
      if (['error', 'warning'].includes(message.type()) && !isRefusal) this.#found.push(message.text())
    })
    page.on('request', (request) => {
      const { origin, protocol } = new URL(request.url())
      if (!this.origins.includes(origin) && protocol !== 'blob:') this.#found.push(`elsewhere: ${request.url()}`)
    })
    return page
  }

  /** Ignore the complaints that match the pattern. */
  bearWith(pattern) {
    this.#found = this.#found.filter((complaint) => !pattern.test(complaint))
  }

  /** Fail if there are complaints. */
  check() {
    const found = this.#found
    this.#found = []
    assert.deepEqual(found, [])
  }
}

/** A provider of one unused page at a time. */
export class Pages {
  #page
  #madeBy

  /** The storage of `origin` is cleared for each page. `options` are the options of Playwright's contexts. */
  constructor(origin, complaints, options) {
    Object.assign(this, { origin, complaints, options })
  }

  async start() {
    this.browser = await launch()
  }

  /** Return the previous page, emptied, if the options are the same. A new page would take half a second. */
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
    await this.#page.unrouteAll({ behavior: 'ignoreErrors' })
    if (new URL(this.#page.url()).origin !== this.origin) await this.#page.goto(`${this.origin}/livez`)
    await this.#page.evaluate(() => [localStorage, sessionStorage].forEach((storage) => storage.clear()))
    await this.#page.goto('about:blank') // ends everything that runs in the page
    await this.#page.context().clearCookies()
  }
}

const CONTROLS = 'a[href], button, input, select, textarea, summary, [tabindex="0"]'

/** Fail unless Tab moves through each of the page's controls, from the first to the last, and Shift+Tab moves back. */
export async function walkByTab(page, where) {
  const number = await page.evaluate((selector) => {
    const isReached = (each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility({ visibilityProperty: true })
    window.controls = [...document.querySelectorAll(selector)].filter(isReached)
    // The page records which controls get the focus. A query after each key press would take twice as long.
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

/** Retry `holds` until it throws no error, and return its result. */
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

/** Return the violations that axe finds on the page. `options` are the options of `axe.run`. */
export async function violationsOn(page, options) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE)
  return await page.evaluate(async (options) => (await window.axe.run({ resultTypes: ['violations'], preload: false, ...options })).violations, options)
}

/** Fail if axe finds a serious violation at one of these sizes. */
export async function assertNoBarriers(page, { sizes = SIZES, ...options } = {}) {
  for (const size of sizes) {
    await page.setViewportSize(size)
    const serious = (await violationsOn(page, options)).filter(({ impact }) => ['serious', 'critical'].includes(impact))
    assert.deepEqual(serious.map(({ id, nodes }) => [page.url(), size.width, id, nodes[0].html]), [])
  }
}

/** Let the page of the API document show only these paths, because drawing all of them takes seconds. */
export const drawOnly = (page, ...wanted) =>
  page.route('**/openapi.json', async (route) => {
    const { paths, ...document } = await (await route.fetch()).json()
    await route.fulfill({ json: { ...document, paths: Object.fromEntries(wanted.map((path) => [path, paths[path]])) } })
  })
