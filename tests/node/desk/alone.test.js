// The page of the simulated WeChat in a real browser, with a back end that isn't wxauth.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { Complaints, Pages, SIZES, assertNoBarriers, eventually } from '../browser.js'

const { WECHAT_URL } = process.env
const APP = { appid: 'wxdev00000000000a1', secret: 'dev-secret-of-the-first-app' }
const complaints = new Complaints(WECHAT_URL)
const pages = new Pages(WECHAT_URL, complaints, { locale: 'en-US', viewport: SIZES[0] })
let page

before(() => pages.start())
after(() => pages.browser.close())

/** Return the response that a back end gets for this code. */
async function exchange(code) {
  const query = new URLSearchParams({ ...APP, js_code: code, grant_type: 'authorization_code' })
  return (await fetch(`${WECHAT_URL}/sns/jscode2session?${query}`)).json()
}

test('it gives codes, shows the calls of the back end, and makes them fail', async () => {
  page = await pages.fresh()
  await page.goto(`${WECHAT_URL}/desk/`)
  await page.waitForSelector('#first:not([hidden])')
  assert.match(await page.innerText('#first'), /Example[^]*Requests from your back end[^]*back end → WeChat/)
  const { openid: openidOfAlice } = JSON.parse(execFileSync('sh', ['-c', await page.innerText('#first-command')], { encoding: 'utf8' }))
  assert.equal(openidOfAlice, (await exchange('alice')).openid)
  await page.waitForSelector('#taps:not(:empty)')
  assert.equal(await page.isVisible('#first'), false)
  await page.fill('#person', 'bob')
  await page.locator('#person').blur()
  await page.click('[data-tap=loginCode]')
  const code = await eventually(async () => (await page.innerText('#made')) || assert.fail('no code'))
  const { openid } = await exchange(code)
  assert.equal(openid, (await exchange('bob')).openid)
  assert.equal((await exchange(code)).errcode, 40163)
  await eventually(async () => assert.match(await page.innerText('#taps'), /Requests from your back end[^]*back end → WeChat[^]*errcode 40163/))

  await page.click('[data-tap=phoneCode]')
  await eventually(async () => assert.notEqual(await page.innerText('#made'), code))

  await page.selectOption('#what', '{"errcode":45011}')
  await page.click('#trouble .buttons button:not(#clear)')
  await eventually(async () => assert.match(await page.innerText('#armed'), /code2session: errcode 45011 × 1/))
  assert.deepEqual([(await exchange('bob')).errcode, (await exchange('bob')).openid], [45011, openid])
})

test('nothing on it is about wxauth, in either language and size', async () => {
  for (const viewport of SIZES)
    for (const locale of ['en-US', 'zh-CN']) {
      page = await pages.fresh({ viewport, locale })
      await page.goto(`${WECHAT_URL}/desk/`)
      await page.waitForSelector('h1:not(:empty)')
      for (const tab of ['use', 'wires', 'faults']) {
        const button = page.locator(`.tabs [value=${tab}]`)
        if (await button.isVisible()) await button.click()
        assert.doesNotMatch(`${await page.title()} ${await page.innerText('body')}`, /wxauth/)
        await assertNoBarriers(page)
      }
    }
  complaints.check()
})
