// Pages opened as files in a real browser. They have no accessibility barriers on a computer and on a phone.
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { SIZES, assertNoBarriers, launch } from '../browser.js'

const LOOKS = [
  ...SIZES.map((size) => ['light', size, {}]),
  ['dark', SIZES[0], { runOnly: ['color-contrast'] }], // only the colours differ
]

for (const [colorScheme, viewport, options] of LOOKS)
  test(`pages are without barriers: ${viewport.width} px, ${colorScheme}`, async (t) => {
    const browser = await launch()
    t.after(() => browser.close())
    // if it were resized later, its parts would move during the check
    const page = await browser.newPage({ colorScheme, viewport })
    for (const name of process.env.PAGES.split(' ')) {
      await page.goto(`${pathToFileURL(process.env.SITE)}/${name}.html`)
      await assertNoBarriers(page, { sizes: [viewport], ...options })
    }
  })
