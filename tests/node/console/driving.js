// Drives the console in a real browser with a running `wxauth-desk dev`: logs users in, and makes administrators and
// links.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { PATIENCE } from '../browser.js'

export const { DESK_URL, SERVICE_URL, WXAUTH } = process.env
export const CONSOLE_URL = `${SERVICE_URL}/admin/`
export const FIRST_APP = 'wxdev00000000000a1'
export const LATER_APP = { app_id: 'wxdev00000000000c3', app_secret: 'dev-secret-of-the-third-app' }

/** Run a wxauth command, and return its output. */
export async function wxauth(...words) {
  const { stdout } = await promisify(execFile)(WXAUTH, words)
  return stdout
}

/** Log a user in, and return the body of the response. */
export async function logIn(code, fields = {}, headers = {}) {
  const answer = await fetch(`${SERVICE_URL}/v1/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify({ code, ...fields }),
  })
  assert.equal(answer.status, 200)
  return answer.json()
}

export const asks = (tokens, path, options = {}) =>
  fetch(`${SERVICE_URL}${path}`, { ...options, headers: { Authorization: `Bearer ${tokens.access_token}`, ...options.headers } })

/** Make an administrator with this nickname. */
export async function makeAdministrator(name) {
  const tokens = await logIn(name, { nickname: name })
  await wxauth('users', 'grant', tokens.user.id, 'admin')
  return tokens
}

/** Return a URL that opens the console for this administrator. */
export const linkFor = async ({ user }, lang = 'en') =>
  (await wxauth('admin', 'link', user.id)).trim().replace('/admin/', `/admin/?lang=${lang}`)

/** Open the desk's phone in its own browser, logged in as this user. */
export async function phoneOf(browser, name, options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1280, height: 900 }, ...options })
  const phone = await context.newPage()
  phone.setDefaultTimeout(PATIENCE)
  await phone.goto(DESK_URL)
  await phone.waitForSelector('h1:not(:empty)')
  await phone.fill('#person', name)
  await phone.locator('#person').blur()
  await phone.click('[data-tap=login]')
  await phone.waitForFunction(() => document.querySelector('#user-id').textContent)
  return phone
}

/** Scan the QR code on this page with the phone, and approve or deny. */
export async function scan(phone, page, answer = 'last-child') {
  await beginScan(phone, page)
  await phone.click(`#sheet .buttons button:${answer}`).catch(async (cause) => {
    throw new Error(`the phone asks nothing: ${await phone.innerText('.taps')}`, { cause })
  })
  await phone.waitForSelector('#sheet', { state: 'hidden' }) // otherwise the next answer would go to this question
}

/** Scan the QR code on this page with the phone, which then asks the user. */
export async function beginScan(phone, page) {
  await page.waitForFunction(() => document.querySelector('.code img')?.naturalWidth > 200)
  await phone.fill('#code', (await page.getAttribute('.code img', 'src')).split('/')[3])
  await phone.selectOption('#entry', '1047')
  await phone.click('#scan button')
}
