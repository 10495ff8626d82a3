// The site of the guides in a real browser, as files: without barriers on a computer and on a phone.
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { SIZES, assertNoBarriers, launch } from '../browser.js'

/** The theme's script makes the boxes in which wide tables scroll, and browsers let Tab reach these. */
const rules = { 'scrollable-region-focusable': { enabled: false } }

for (const viewport of SIZES)
  for (const colorScheme of ['light', 'dark'])
    test(`pages of both languages are without barriers: ${viewport.width} px, ${colorScheme}`, async (t) => {
      const browser = await launch()
      t.after(() => browser.close())
      const page = await browser.newPage({ colorScheme, viewport }) // resized later, its parts would move meanwhile
      for (const name of ['index', 'siblings', 'zh/mini-program', 'zh/settings']) {
        await page.goto(`${pathToFileURL(process.env.SITE)}/${name}.html`)
        await assertNoBarriers(page, { rules, sizes: [viewport] })
      }
    })
