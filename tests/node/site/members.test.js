// examples/nginx in a real browser: the content of its page, which has no accessibility barriers.
import { test } from 'node:test'
import { PATIENCE, assertNoBarriers, launch } from '../browser.js'

test('the page shows what a person may see', async (t) => {
  const browser = await launch()
  t.after(() => browser.close())
  const page = await browser.newPage({ locale: 'zh-CN' })
  page.setDefaultTimeout(PATIENCE)
  await page.goto(process.env.SITE_URL)
  await page.fill('input', 'bob')
  for (const [button, shown] of [
    ['会员茶单', '请先登录'],
    ['登录', '已登录'],
    ['会员茶单', '凤凰单丛'],
    ['编辑草稿', '没有权限'],
    ['退出', '已退出'],
  ]) {
    await page.getByRole('button', { name: button }).click()
    await page.locator('section', { hasText: shown }).waitFor()
    await assertNoBarriers(page)
  }
})
