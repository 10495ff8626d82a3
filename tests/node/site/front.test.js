// The front page of the guides' site in a real browser.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { SIZES, launch } from '../browser.js'

test('the front page replays a login step by step, and the colours are chosen by a button', async (t) => {
  const browser = await launch()
  t.after(() => browser.close())
  const page = await browser.newPage({ colorScheme: 'dark', viewport: SIZES[0] })
  const scheme = () => page.locator('body').getAttribute('data-md-color-scheme')
  await page.goto(`${pathToFileURL(process.env.SITE)}/index.html`)
  const steps = page.locator('.replay li')
  const shown = () => steps.evaluateAll((all) => all.map((step) => getComputedStyle(step).visibility === 'visible'))
  assert.deepEqual(await shown(), [true, true, true, true, true])
  const next = page.getByRole('button', { name: 'Next step' })
  await next.click()
  assert.deepEqual(await shown(), [true, false, false, false, false])
  await next.click()
  assert.deepEqual(await shown(), [true, true, false, false, false])
  assert.equal(await scheme(), 'slate')
  await page.locator('label[title="Use light colours"]').click()
  assert.equal(await scheme(), 'default')
})
