// Pages in a real browser, as files: without barriers on a computer and on a phone.
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { SIZES, assertNoBarriers, launch } from '../browser.js'

const LOOKS = [
  ...SIZES.map((size) => ['light', size, {}]),
  ['dark', SIZES[0], { runOnly: ['color-contrast'] }], // all but the colours is the same
]

for (const [colorScheme, viewport, options] of LOOKS)
  test(`pages are without barriers: ${viewport.width} px, ${colorScheme}`, async (t) => {
    const browser = await launch()
    t.after(() => browser.close())
    const page = await browser.newPage({ colorScheme, viewport }) // resized later, its parts would move meanwhile
    for (const name of process.env.PAGES.split(' ')) {
      await page.goto(`${pathToFileURL(process.env.SITE)}/${name}.html`)
      await assertNoBarriers(page, { sizes: [viewport], ...options })
    }
  })
