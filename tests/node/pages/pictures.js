// Takes the screenshots of docs/site/pages.md and of the login in README, in both languages. scripts/pictures runs it.
import { launch } from '../browser.js'
import { LANGUAGES, addSites, openPage, walk, walkLimited } from './walk.js'

const [folder] = process.argv.slice(2)
const ONLY_ON_PHONES = ['phone', 'phone-another', 'link', 'link-pressed', 'number-missing', 'number-wrong', 'used-up', 'account', 'web-view', 'snapshot', 'device-on-phone']

const browser = await launch()
async function shoot(page, name, lang) {
  const suffix = lang === 'en' ? '' : `.${lang}`
  const take = async (size, viewport) => {
    await page.setViewportSize(viewport)
    await page.screenshot({ path: `${folder}/${name}.${size}${suffix}.png`, fullPage: true })
  }
  if (!ONLY_ON_PHONES.includes(name)) await take('computer', { width: 1280, height: 640 })
  await take('phone', { width: 375, height: 667 })
  if (name === 'code') await shootForReadme(page, suffix)
}

/** README shows the login beside the console, in the console's size. */
async function shootForReadme(page, suffix) {
  await page.setViewportSize({ width: 1200, height: 760 })
  for (const [colorScheme, dark] of [['dark', '.dark'], ['light', '']]) {
    await page.emulateMedia({ colorScheme })
    await page.screenshot({ path: `${folder}/../login${suffix}${dark}.png` })
  }
}

await addSites()
const pages = {}
for (const lang of Object.keys(LANGUAGES)) {
  const page = await openPage(browser, lang)
  await walk(page, lang, (name) => shoot(page, name, lang))
  pages[lang] = page
}
for (const [lang, page] of Object.entries(pages)) await walkLimited(page, (name) => shoot(page, name, lang))
await browser.close()
