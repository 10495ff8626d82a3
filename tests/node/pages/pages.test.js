// The pages for users who log in to a site, in all their states, in a real browser with a running `wxauth-desk dev`.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Complaints, PATIENCE, SIZES, assertNoBarriers, drawOnly, launch, violationsOn } from '../browser.js'
import { IPHONE, LANGUAGES, OPENED, addSites, authorizeUrl, be, openCode, openPage, phoneOf, sceneOf, walk } from './walk.js'

const { SERVICE_URL } = process.env
/** The rules of axe about languages, and about elements without names. */
const OF_TEXTS = ['html-has-lang', 'html-lang-valid', 'valid-lang', 'button-name', 'document-title', 'label', 'link-name', 'summary-name']
/** The colours and size in which each state is checked, and the rules of axe. Without rules, all rules apply. */
const LOOKS = {
  en: [
    ...SIZES.map((size) => ['light', size]),
    ['dark', SIZES[0], ['color-contrast']], // only the colours differ
  ],
  'zh-CN': SIZES.map((size) => ['light', size, OF_TEXTS]), // only the texts differ
}
/** The states with open details. */
const UNFOLDED = ['code-other-ways', 'claimed', 'denied', 'phone-another']
const complaints = new Complaints(SERVICE_URL)
let browser
before(async () => {
  browser = await launch()
  await addSites()
})
after(() => browser.close())

/** Return the faults of the page in its current size and colours. */
async function faultsOf(page, rules, height) {
  const violations = await violationsOn(page, { runOnly: rules })
  const others = await page.evaluate((height) => {
    const faults = []
    const { scrollWidth, clientWidth, scrollHeight } = document.documentElement
    if (scrollWidth > clientWidth) faults.push(`${scrollWidth} px wide`)
    if (scrollHeight > height) faults.push(`${scrollHeight} px high`)
    if (document.querySelectorAll('.logo').length !== 1) faults.push('not one logo')
    for (const each of document.querySelectorAll('a, button, summary, input:not([type=hidden])')) {
      const { width, height } = each.getBoundingClientRect()
      if (each.checkVisibility({ visibilityProperty: true }) && (height < 44 || width < 24)) faults.push(`${width} × ${height}: ${each.textContent || each.name}`)
    }
    return faults
  }, height)
  return [...violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), ...others]
}

/** Return the elements that get the focus with Tab and show no visible outline. */
async function unmarked(page) {
  const faults = []
  for (let presses = await page.locator('a, button, summary, input:not([type=hidden])').count(); presses > 0; presses--) {
    await page.keyboard.press('Tab')
    const fault = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement)
      return document.activeElement !== document.body && (outlineStyle === 'none' || parseFloat(outlineWidth) < 2) && (document.activeElement.textContent || document.activeElement.name)
    })
    if (fault) faults.push(`no focus: ${fault}`)
  }
  return faults
}

for (const lang of Object.keys(LANGUAGES))
  test(`every state is without barriers, in the light and in the dark, on a computer and on a phone: ${lang}`, async () => {
    const page = complaints.hear(await openPage(browser, lang))
    const found = {}
    let states = 0
    await walk(page, lang, async (name) => {
      states += 1
      const faults = []
      for (const [colorScheme, size, rules] of LOOKS[lang]) {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize(size)
        faults.push(...(await faultsOf(page, rules, UNFOLDED.includes(name) ? 960 : 800)))
      }
      if (lang === 'en') faults.push(...(await unmarked(page)))
      if (faults.length) found[name] = faults
    })
    assert.deepEqual(found, {})
    assert.ok(states > 25, `${states}`)
    complaints.check()
    await page.context().close()
  })

test('nothing moves while the page arrives, or when the script starts', async () => {
  for (const lang of Object.keys(LANGUAGES))
    for (const viewport of SIZES) {
      const page = await openPage(browser, lang, { viewport })
      const protocol = await page.context().newCDPSession(page)
      // The page arrives in parts, which the browser shows one by one.
      await protocol.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: 16_000, uploadThroughput: -1 })
      for (const userAgent of [null, IPHONE]) {
        await be(page, userAgent)
        await openCode(page, LANGUAGES[lang].site)
        await page.waitForSelector('.copy:not([hidden])', { state: 'attached' }) // the script has started
        const moved = await page.evaluate(
          () =>
            new Promise((resolve) => {
              const seen = []
              new PerformanceObserver((list) => seen.push(...list.getEntries())).observe({ type: 'layout-shift', buffered: true })
              requestAnimationFrame(() => requestAnimationFrame(() => resolve(seen.map(({ value, sources }) => [value, sources.map(({ node }) => node?.outerHTML)]))))
            }),
        )
        assert.deepEqual(moved, [], `${lang} ${viewport.width} ${userAgent}`)
      }
      await page.context().close()
    }
})

test('a page that leads nowhere has its other language, and what went wrong its id', async () => {
  const open = async (path) => {
    const answer = await fetch(new URL(path, SERVICE_URL), { headers: { 'Accept-Language': 'en' } })
    return [answer, await answer.text()]
  }
  const unknown = `/v1/authorize/${'A'.repeat(22)}`
  for (const path of ['/d', '/d/x', '/v1/authorize/wechat', '/v1/authorize?client_id=nobody&state=1', '/v1/end_session?client_id=a&client_id=b', `${unknown}/next`, `${unknown}/wechat/over`]) {
    const [english, page] = await open(path)
    assert.equal(page.includes(`Request ID: ${english.headers.get('x-request-id')}`), english.status >= 400, path)
    const [, other] = /<a href="([^"]*)" lang="zh-CN">/.exec(page)
    const [chinese] = await open(new URL(other.replaceAll('&amp;', '&'), english.url))
    assert.deepEqual([chinese.status, chinese.headers.get('content-language')], [english.status, 'zh-CN'], path)
  }
})

test('a page that leads nowhere leads back to where the person came from', async () => {
  const page = complaints.hear(await openPage(browser, 'en'))
  await openCode(page, LANGUAGES.en.site)
  await page.goto(authorizeUrl('no-such-site'))
  await page.getByRole('button', { name: 'Back' }).click()
  await page.waitForSelector('.code')
  complaints.check()
  await page.context().close()
})

test('without scripts, a person scans, confirms, and continues', async () => {
  const page = await openPage(browser, 'en', { viewport: SIZES[1], javaScriptEnabled: false })
  await page.goto(authorizeUrl(LANGUAGES.en.site, { redirect_uri: OPENED }))
  const phone = await phoneOf('scriptless')
  await phone.decide(await phone.claim(await sceneOf(page)), 'approve')
  const onward = page.getByRole('link', { name: 'Continue' })
  assert.ok((await onward.boundingBox()).height >= 44)
  assert.equal(await page.locator('.copy').isVisible(), false)
  await onward.click()
  await page.waitForURL(`${OPENED}?**`, { timeout: PATIENCE })
  assert.match(page.url(), /[?&]code=/)
  await page.context().close()
})

test("the interface's page has no barriers but Swagger UI's own, and nothing on it scrolls sideways", async () => {
  // the row of an operation is a button with further buttons; the fields for a body and an example have no labels
  const rules = Object.fromEntries(['nested-interactive', 'label', 'select-name'].map((rule) => [rule, { enabled: false }]))
  const wide = () =>
    [...document.querySelectorAll('html, .swagger-ui :not(pre *, .model-box *)')]
      .filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > innerWidth)
      .map((each) => each.outerHTML.slice(0, 120))
  // a box around code that is higher than its line would cover the line above
  const high = () => {
    const lineOf = ({ parentElement }) => parseFloat(getComputedStyle(parentElement).lineHeight)
    const boxes = [...document.querySelectorAll('.renderedMarkdown code')]
    return boxes.filter((each) => !(each.getClientRects()[0].height <= lineOf(each))).map((each) => each.outerHTML)
  }
  for (const lang of Object.keys(LANGUAGES)) {
    const page = await openPage(browser, lang, { viewport: SIZES[1] })
    await drawOnly(page, '/v1/login', '/v1/users/{user_id}') // the other operations are drawn the same way
    for (const colorScheme of ['dark', 'light']) {
      await page.emulateMedia({ colorScheme })
      await page.goto(`${SERVICE_URL}/docs`)
      await page.waitForSelector('.opblock')
      for (const operation of await page.locator('.opblock-summary-control').all()) await operation.click()
      await page.waitForFunction(() => document.querySelectorAll('.responses-table').length === 2)
      assert.deepEqual([await page.evaluate(wide), await page.evaluate(high)], [[], []], `${lang} ${colorScheme}`)
      // in the dark only the colours differ, and in Chinese only the texts
      if (lang !== 'en') continue
      await assertNoBarriers(page, colorScheme === 'dark' ? { runOnly: ['color-contrast'], sizes: SIZES.slice(1) } : { rules })
    }
    await page.context().close()
  }
})
