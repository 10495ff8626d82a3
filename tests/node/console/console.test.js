// The console in a real browser: the actions of each section, the rights of roles, text by strangers, and sessions that
// end.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, afterEach, before } from 'node:test'
import { cell } from '../../../src/wxauth/console/page/csv.js'
import { Complaints, Pages, SIZES, assertNoBarriers, drawOnly, eventually, turns, walkByTab } from '../browser.js'
import { CONSOLE_URL, DESK_URL, FIRST_APP, LATER_APP, SERVICE_URL, asks } from './driving.js'
import { linkFor, logIn, makeAdministrator, phoneOf, scan } from './driving.js'

const MARKUP = '<img src=x onerror="document.title=1">'
const SECTIONS = ['Overview', 'Users', 'Events', 'Logins', 'Services', 'Webhooks', 'Apps', 'Keys']

const test = turns(() => open())
const testBegunOtherwise = turns(() => {})

const complaints = new Complaints(SERVICE_URL)
const pages = new Pages(SERVICE_URL, complaints, {
  locale: 'en-GB',
  viewport: { width: 1280, height: 900 },
  reducedMotion: 'reduce', // otherwise the loading bar would be drawn sixty times a second
})
let root, page, isRoots, madeBy
let kept = [] // the cookies of root's session, because a new link for each test would take longer than the test
let number = 0

before(async () => {
  await pages.start()
  root = await makeAdministrator('root')
})
after(() => pages.browser.close())
afterEach(async () => {
  await keep()
  complaints.check()
})

/** Keep the cookies of root's session for later tests. */
const keep = async () => (kept = isRoots ? await page.context().cookies() : kept)

/** Prepare a browser without cookies. It shows no page yet. */
async function forgotten(options) {
  await keep()
  isRoots = false
  page = await pages.fresh(options)
}

const isOpen = async () => page.url().startsWith(CONSOLE_URL) && (await page.locator('nav a').count()) > 0

/** Open the console for an administrator. Root's console stays open between tests, as users leave it open. */
async function open({ by = root, lang = 'en', ...options } = {}) {
  const wanted = JSON.stringify([lang, options])
  if (isRoots && by === root && madeBy === wanted && (await isOpen())) {
    await page.unrouteAll({ behavior: 'ignoreErrors' }) // a handler may still be reading
    await page.keyboard.press('Escape') // closes a dialog
    if (!page.url().endsWith('#/keys')) await goTo('keys')
    return idle()
  }
  await forgotten(options)
  isRoots = by === root
  if (isRoots) await page.context().addCookies(kept)
  await page.goto(`${CONSOLE_URL}?lang=${lang}#/keys`) // this view sends the fewest requests
  await page.waitForSelector('main h1')
  if (await page.locator('#link').count()) await page.goto(await linkFor(by, lang))
  await page.waitForSelector('nav', { state: 'attached' })
  madeBy = wanted
}

const button = (name, within = page) => within.getByRole('button', { name, exact: true })
const dialog = () => page.locator('dialog[open]')
const heading = (name) => page.getByRole('heading', { level: 1, name })
const rows = () => page.locator('main tbody tr')
const chip = (name) => page.locator('details.filter > summary', { hasText: name })
const shortened = ({ user }) => user.id.slice(-8)

async function go(section) {
  await page.getByRole('navigation').getByRole('link', { name: section, exact: true }).click()
  await heading(section).waitFor()
  await idle()
}

/** Wait until nothing is loading, except the checks of the overview, which take long. */
const idle = () => page.waitForFunction(() => !document.querySelector('main > [aria-busy=true]'))

/** Go to the view that the fragment names, and wait until it begins, so that nothing of the previous view remains. */
const goTo = (fragment) =>
  page.evaluate((hash) => new Promise((begun) => (addEventListener('hashchange', () => begun(), { once: true }), (location.hash = hash))), `#/${fragment}`)

/** Wait for the page about this user. */
const isShown = ({ user }) => page.locator('main .head').getByText(user.id, { exact: true }).waitFor()

async function newcomer(fields = {}) {
  const name = `person-${(number += 1)}`
  return logIn(name, { nickname: name, ...fields })
}

/** Let root change a user's status or roles. */
const change = ({ user }, fields) =>
  asks(root, `/v1/admin/users/${user.id}`, { method: 'PATCH', body: JSON.stringify(fields) })

async function anotherAdministrator() {
  const tokens = await newcomer()
  await change(tokens, { roles: ['admin'] })
  return tokens
}

async function showPerson(person) {
  await goTo(`users/${person.user.id}`)
  await isShown(person)
}

/** Return the user as root sees them. */
const shown = async ({ user }) => (await asks(root, `/v1/admin/users/${user.id}`)).json()

const statusOf = async (tokens) => (await asks(tokens, '/v1/me')).status
const isRefused = (tokens) => eventually(async () => assert.equal(await statusOf(tokens), 401))

// Sessions.

testBegunOtherwise('a link opens the console once, also if a chat app has looked at it, and its secret stays nowhere', async () => {
  const link = await linkFor(root)
  for (const method of ['GET', 'HEAD']) await fetch(link, { method })
  await forgotten()
  await page.goto(link)
  await heading('Overview').waitFor()
  assert.ok(!page.url().includes('link='))
  await page.goBack().catch(() => {})
  assert.ok(!page.url().includes('link='))
  await forgotten()
  await page.goto(link)
  await page.getByRole('alert').getByText('has been used').waitFor()
})

test('a session survives a reload, and ends with signing out', async () => {
  await go('Keys')
  await page.reload()
  await heading('Keys').waitFor()
  const [cookie] = await page.context().cookies(CONSOLE_URL)
  assert.deepEqual(
    [cookie.httpOnly, cookie.sameSite, cookie.path],
    [true, 'Strict', '/admin/'],
  )
  assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])), '[{},{},""]')
  await page.click('.who > summary')
  await button('Log out').click()
  await page.getByText('You are logged out.').waitFor()
  await page.context().addCookies([cookie]) // someone has kept this cookie
  await page.reload()
  await page.getByRole('heading', { name: 'Log in' }).waitFor()
})

testBegunOtherwise('an address that is pasted into the page opens it too', async () => {
  await forgotten()
  await page.goto(`${CONSOLE_URL}?lang=en`)
  await page.getByText('Log in without WeChat').click()
  const field = page.getByLabel('Or paste the address here')
  assert.equal(await field.getAttribute('type'), 'password')
  await field.fill('nonsense')
  await button('Open').click()
  await page.getByRole('alert').waitFor()
  await field.fill(await linkFor(root))
  await button('Open').click()
  await heading('Overview').waitFor()
})

testBegunOtherwise('an administrator logs in by scan, comes to the view that was asked for, and bans somebody at once', async () => {
  const phone = await phoneOf(pages.browser, 'root')
  const other = await phoneOf(pages.browser, `person-${(number += 1)}`)
  const id = await other.locator('#user-id').innerText()
  await forgotten()
  await page.goto(`${CONSOLE_URL}?lang=en#/users/${id}`)
  await button('Log in with WeChat').click()
  await page.waitForURL(`${SERVICE_URL}/v1/authorize?**`)
  await scan(phone, page)
  await isShown({ user: { id } })
  assert.equal(page.url(), `${CONSOLE_URL}?lang=en#/users/${id}`)
  assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])), '[{},{},""]')
  await button('Ban').click()
  await button('Ban', dialog()).click()
  await button('Unban').waitFor()
  await other.click('[data-tap=me]')
  await eventually(async () => assert.match(await other.locator('body').innerText(), /account_disabled/))
  await go('Events')
  await rows().filter({ hasText: 'user.banned' }).filter({ hasText: id.slice(-8) }).first().waitFor()
  await page.reload()
  await heading('Events').waitFor()
  await Promise.all([phone, other].map((each) => each.context().close()))
})

testBegunOtherwise('who is no administrator, or refuses on the phone, is told so and stays outside', async () => {
  const phone = await phoneOf(pages.browser, `person-${(number += 1)}`)
  await forgotten()
  for (const [answer, lang, begin, told] of [
    ['last-child', 'en', 'Log in with WeChat', 'you aren’t an administrator'],
    ['first-child', 'zh-CN', '微信扫码登录', '你已在手机上拒绝登录'],
  ]) {
    await page.goto(`${CONSOLE_URL}?lang=${lang}`)
    await button(begin).click()
    await page.waitForURL(`${SERVICE_URL}/v1/authorize?**`)
    await scan(phone, page, answer)
    await page.getByRole('alert').getByText(told).waitFor()
    assert.equal(page.url(), `${CONSOLE_URL}?lang=${lang}`)
    assert.deepEqual((await page.context().cookies(CONSOLE_URL)).map(({ name }) => name), ['wxauth-browser'])
  }
  await phone.context().close()
})

testBegunOtherwise('a login that somebody else has begun is not taken for one’s own', async () => {
  await forgotten()
  const asked = []
  page.on('request', (request) => request.method() === 'POST' && asked.push(request.url()))
  for (const begun of [null, { state: 'other', issuer: SERVICE_URL }, { state: 'theirs', issuer: 'https://evil.test' }]) {
    await page.goto(CONSOLE_URL)
    await page.evaluate((it) => it && sessionStorage.setItem('console/login', JSON.stringify({ verifier: 'x'.repeat(43), ...it })), begun)
    await page.goto(`${CONSOLE_URL}?lang=en&code=theirs&state=theirs&iss=${encodeURIComponent(SERVICE_URL)}`)
    await page.getByRole('alert').getByText('wasn’t started in this window').or(page.getByText('已拒绝')).waitFor()
    assert.ok(!/code=/.test(page.url()))
  }
  assert.deepEqual(asked, [])
})

testBegunOtherwise('at an address that is not the service’s own it leads to that one', async () => {
  await forgotten()
  await page.goto(`${CONSOLE_URL.replace('127.0.0.1', 'localhost')}?lang=en`)
  await button('Log in with WeChat').click()
  await page.getByRole('alert').getByText(CONSOLE_URL).waitFor()
  complaints.bearWith(/^elsewhere: http:\/\/localhost:/)
})

testBegunOtherwise('a ban under the page ends it at once', async () => {
  const other = await anotherAdministrator()
  await open({ by: other })
  await go('Keys') // the requests of this view end before the ban
  await change(other, { status: 'disabled' })
  await page.getByRole('navigation').getByRole('link', { name: 'Users' }).click()
  await page.getByRole('alert').getByText('Your session has ended.').waitFor()
  await page.reload()
  await page.getByRole('heading', { name: 'Log in' }).waitFor()
})

// Users.

test('somebody is found, and the search stands in the URL', async () => {
  const person = await newcomer()
  await go('Users')
  await page.getByRole('searchbox').fill(person.user.nickname)
  await button('Search').click()
  await eventually(async () => assert.equal(await rows().count(), 1))
  assert.ok(page.url().endsWith(`#/users?q=${person.user.nickname}`))
  assert.ok((await rows().first().innerText()).includes(shortened(person)))
  await page.reload()
  await eventually(async () => assert.equal(await rows().count(), 1))
  await page.getByRole('link', { name: person.user.nickname, exact: true }).click()
  await heading(person.user.nickname).waitFor()
  // users can tell tabs apart by their titles
  await eventually(async () => assert.equal(await page.title(), `${person.user.nickname} · wxauth`))
})

test('a search without a result says what else to try', async () => {
  await goTo('users?q=nobody-has-this')
  await page.getByText('No results for “nobody-has-this”.').waitFor()
  await page.getByText('Enter at least two characters of the nickname').waitFor()
  await page.getByRole('link', { name: 'Show all' }).click()
  await eventually(async () => assert.ok((await rows().count()) > 0))
})

test('an empty list says what is not there yet', async () => {
  for (const [path, fragment, words] of [
    ['refusals', 'signins?show=refused', 'No logins were refused in the last 14 days.'],
    ['logins', 'signins?show=nonsense', 'There are no logins yet.'],
  ]) {
    await page.route(new RegExp(`/v1/admin/${path}`), (route) => route.fulfill({ json: { items: [], next_cursor: null } }))
    await goTo(fragment)
    await page.getByText(words).waitFor()
  }
})

test('a list that is loaded whole has no search over nothing', async () => {
  const none = (route) => route.fulfill({ json: { items: [], next_cursor: null } })
  await page.route(/\/v1\/admin\/webhooks/, none, { times: 2 })
  await goTo('webhooks')
  await page.getByRole('heading', { name: 'There are no webhooks yet.' }).waitFor()
  assert.equal(await button('Search').count(), 0)
  await button('Add').waitFor()
  await goTo('webhooks?q=crm') // a search in the URL needs the search box, so that the user can clear it
  await page.getByText('No results for “crm”.').waitFor()
  await button('Search').waitFor()
})

test('what is not there is told in one sentence, and not to be tried again', async () => {
  await goTo('users/00000000-0000-4000-8000-000000000000')
  await page.getByRole('alert').waitFor()
  assert.equal(await page.locator('main .state').innerText(), 'this user doesn\'t exist')
  await page.route('**/v1/admin/users', (route) => route.fulfill({ status: 429, json: { code: 'rate_limited', title: 'Too many requests.' } }))
  await goTo('users')
  await button('Try again').waitFor()
  assert.equal(await page.getByRole('alert').innerText(), 'Too many requests.')
})

test('what an operator brought is called imported, and a name that shows nothing is none', async () => {
  const { user } = await newcomer()
  const event = { id: 'x', type: 'user.created', at: new Date().toISOString(), actor: 'operator', user_id: user.id, app_id: null, ip: null, data: {} }
  await page.route('**/v1/admin/events?*', (route) => route.fulfill({ json: { items: [event], next_cursor: null } }))
  await page.route(`**/v1/admin/users/${user.id}`, async (route) => route.fulfill({ json: { ...(await (await route.fetch()).json()), nickname: '\u202e ', phone: '+8613800138000', phone_verified: false } }))
  await showPerson({ user })
  await heading(`WeChat user …${user.id.slice(-8)}`).waitFor()
  await page.locator('.picture.large', { hasText: user.id.slice(-2) }).waitFor()
  await rows().getByText('Imported', { exact: true }).waitFor()
  await page.getByText('unverified', { exact: true }).waitFor()
  await button('Ban').click()
  await button('1 day', dialog()).waitFor()
})

test('a masked number is shown whole on demand, and says that it is unverified', async () => {
  const { user } = await newcomer()
  const number = '+8613800138000'
  const reading = `**/v1/admin/users/${user.id}`
  await page.route(reading, async (route) => route.fulfill({ json: { ...(await (await route.fetch()).json()), phone: '+86138****8000' } }))
  await page.route(`${reading}/phone`, (route) => route.fulfill({ json: { phone: number, phone_verified: false } }))
  await showPerson({ user })
  const show = button(`Show the phone number of ${user.nickname}`)
  await show.click()
  await page.locator('dd', { hasText: `${number} unverified` }).waitFor()
  assert.equal(await show.count(), 0)
})

test('a list is used by the keyboard, and a press on a row opens it', async () => {
  const person = await newcomer()
  await go('Users')
  await page.keyboard.press('/')
  await page.keyboard.type(person.user.id)
  await page.keyboard.press('Enter')
  await page.getByRole('status').getByText('1 in total').waitFor()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Enter')
  await isShown(person)
  await page.goBack()
  await rows().filter({ hasText: shortened(person) }).locator('.picture').click()
  await isShown(person)
})

test('each page is walked through by Tab alone, there and back, and Enter opens a person from a list', async () => {
  const [first] = [await newcomer(), await newcomer()]
  await change(first, { roles: ['tester'] })
  const body = { name: 'walked', url: new URL('/webhook', DESK_URL).href, types: ['user.erased'] }
  await asks(root, '/v1/admin/webhooks', { method: 'POST', body: JSON.stringify(body) })
  await page.route(/\/v1\/admin\/(users|logins|events)\?/, (route) => route.continue({ url: `${route.request().url()}&limit=3` }))
  const sections = SECTIONS.toReversed().map((name) => name.replace('-', '').toLowerCase())
  for (const fragment of [`users/${first.user.id}`, 'signins?show=refused', 'webhooks/walked', ...sections]) {
    await goTo(fragment)
    await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'))
    // again if a control has appeared in the meantime, for example a role to choose
    await eventually(() => walkByTab(page, fragment))
  }
  await goTo(`users?q=${first.user.id}`)
  const link = page.getByRole('link', { name: first.user.nickname, exact: true })
  await link.waitFor()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Tab')
  assert.ok(await link.evaluate((each) => each === document.activeElement))
  await page.keyboard.press('Enter')
  await isShown(first)
  await asks(root, '/v1/admin/webhooks/walked', { method: 'DELETE' })
})

test('a filter opens within the window, moves nothing, and is left by Escape', async () => {
  await go('Events')
  for (const name of ['Types', 'Before']) {
    const before = await chip(name).boundingBox()
    await chip(name).click()
    const popover = page.locator('details.filter[open] .popover')
    const { x, width } = await popover.boundingBox()
    assert.ok(x >= 0 && x + width <= 1280, name)
    assert.deepEqual(await chip(name).boundingBox(), before)
    await page.keyboard.press('Escape')
    await popover.waitFor({ state: 'hidden' })
  }
})

test('a field that was added to the profile can be cleared', async () => {
  const { user } = await newcomer()
  const changes = []
  await page.route('**/texts.json*', async (route) => {
    const loaded = await (await route.fetch()).json()
    await route.fulfill({ json: { ...loaded, texts: { ...loaded.texts, profile_bio: 'Bio' } } })
  })
  await page.route(`**/v1/admin/users/${user.id}`, async (route) => {
    if (route.request().method() === 'PATCH') changes.push(route.request().postDataJSON())
    const response = await route.fetch({ method: 'GET', postData: undefined })
    await route.fulfill({ json: { ...(await response.json()), bio: changes.length ? null : 'Rude' } })
  })
  await page.reload()
  await showPerson({ user })
  await page.getByText('Rude').waitFor()
  await button('Clear field').click()
  await button('Clear field', dialog()).click()
  await page.getByText('Rude').waitFor({ state: 'hidden' })
  assert.deepEqual(changes, [{ bio: null }])
})

test('an id is shortened, and a press copies the whole one', async () => {
  const person = await newcomer()
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
  await goTo(`users?q=${person.user.id}`)
  await page.getByTitle(person.user.id).click()
  await page.getByRole('status').getByText('Copied').waitFor()
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), person.user.id)
  await heading('Users').waitFor() // pressing the row's button hasn't opened the row
})

test('a list goes on where its page ends, and counts what it shows', async () => {
  await Promise.all(Array.from({ length: 55 }, () => newcomer()))
  await go('Users')
  const first = await rows().count()
  await page.getByRole('status').getByText(`${first} shown, and there are more`).waitFor()
  await button('More').click()
  await eventually(async () => assert.ok((await rows().count()) > first))
  const last = await newcomer()
  await page.getByRole('searchbox').fill(last.user.id)
  await button('Search').click()
  await page.getByRole('status').getByText('1 in total').waitFor()
})

test('a search that has stopped says so, and goes on', async () => {
  const person = await newcomer()
  await page.route('**/v1/admin/users?q=*', async (route) => {
    if (route.request().url().includes('cursor=')) return route.continue({ url: `${SERVICE_URL}/v1/admin/users?q=${person.user.id}` })
    await route.fulfill({ json: { items: [], next_cursor: 'there', incomplete_results: true } })
  })
  await goTo('users?q=rare')
  await page.getByRole('status').getByText('0 found so far. The search stopped after one second').waitFor()
  await button('Continue searching').click()
  await page.getByRole('link', { name: person.user.nickname }).waitFor()
  await page.getByRole('status').getByText('1 in total').waitFor()
})

test('apps and roles are chosen from what there is', async () => {
  const [person, other] = [await newcomer(), await newcomer()]
  await change(person, { roles: ['gardener'] })
  await go('Users')
  await chip('App').click()
  await page.getByLabel('App', { exact: true }).selectOption(FIRST_APP)
  await chip(`App${FIRST_APP}`).waitFor()
  await page.locator('datalist option[value=gardener]').waitFor({ state: 'attached' })
  await chip('Role').click()
  await page.getByLabel('Role', { exact: true }).fill('gardener')
  await page.keyboard.press('Enter')
  await page.getByRole('status').getByText('1 in total').waitFor()
  assert.ok(page.url().endsWith(`#/users?role=gardener&app_id=${FIRST_APP}`))
  assert.equal(await page.getByLabel('App', { exact: true }).inputValue(), FIRST_APP)
  await chip('Role').click()
  await button('Clear').and(page.locator(':visible')).click()
  await page.waitForURL(new RegExp(`#/users\\?app_id=${FIRST_APP}$`))
  await button('Clear filters').click()
  await page.waitForURL(/#\/users$/)
  await showPerson(other)
  await page.locator('.roles option[value=gardener]').waitFor({ state: 'attached' })
})

test('a picture that does not load shows the letter', async () => {
  const image = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
  await page.route('https://thirdwx.qlogo.cn/there', (route) => route.fulfill({ contentType: 'image/svg+xml', body: image }))
  await page.route('https://thirdwx.qlogo.cn/gone', (route) => route.abort())
  const [there, gone] = await Promise.all(
    ['there', 'gone'].map((name) => newcomer({ nickname: '甲', avatar_url: `https://thirdwx.qlogo.cn/${name}` })),
  )
  await showPerson(there)
  await page.waitForFunction(() => document.querySelector('img.picture').naturalWidth > 0)
  await showPerson(gone)
  await page.locator('span.picture', { hasText: '甲' }).waitFor()
  assert.equal(await page.locator('img.picture').count(), 0)
  // so that no other test loads these pictures
  for (const { user } of [there, gone]) await asks(root, `/v1/admin/users/${user.id}`, { method: 'DELETE' })
  complaints.bearWith(/^elsewhere: https:\/\/thirdwx|^Failed to load resource/)
})

test('a ban asks, ends the person’s session at once, and stands in the trail', async () => {
  const person = await newcomer()
  await showPerson(person)
  await button('Ban').click()
  assert.equal(await statusOf(person), 200) // nothing has changed yet
  await button('Ban', dialog()).click()
  await button('Unban').waitFor()
  await isRefused(person)
  await eventually(async () => assert.match(await page.locator('main').innerText(), /user[._]banned/))
  await button('Unban').click()
  await button('Ban').waitFor()
})

test('a ban says why and until when, and is changed', async () => {
  const person = await newcomer()
  await showPerson(person)
  await button('Ban').click()
  await dialog().getByLabel('Reason').fill('spam, ticket 4711')
  await button('7 days', dialog()).click()
  assert.ok(Math.abs(Date.parse(await dialog().getByLabel('Until').inputValue()) - Date.now() - 7 * 86_400_000) < 90_000)
  await dialog().getByLabel('Until').fill('2099-01-02T18:00')
  await button('Ban', dialog()).click()
  await page.getByText('spam, ticket 4711', { exact: true }).waitFor()
  const { status, reason, until } = await shown(person)
  assert.deepEqual([status, reason, new Date(until)], ['disabled', 'spam, ticket 4711', new Date('2099-01-02T18:00')])
  await page.getByText(/^Banned until .*2099.*: spam, ticket 4711$/).waitFor() // the event as a sentence
  await button('Change the ban').click()
  assert.equal(await dialog().getByLabel('Until').inputValue(), '2099-01-02T18:00')
  await dialog().getByLabel('Until').fill('')
  await button('Save', dialog()).click()
  await page.getByText('lifted manually', { exact: true }).waitFor() // not the hint in the dialog
  await page.locator('dl', { hasText: 'Banned by' }).getByRole('link', { name: 'root' }).waitFor()
  assert.equal((await shown(person)).until, undefined)
})

test('roles are set', async () => {
  const person = await newcomer()
  await showPerson(person)
  const input = page.getByLabel('Roles', { exact: true })
  const chips = () => page.locator('.token').evaluateAll((all) => all.map(({ firstChild }) => firstChild.data))
  assert.ok(await button('Save').isDisabled()) // nothing has changed yet
  await input.pressSequentially('editor,buyer')
  await input.press('Enter')
  assert.deepEqual(await chips(), ['editor', 'buyer'])
  await input.press('Backspace')
  await input.fill('auditor') // a word that is no chip yet counts, too
  await button('Save').click()
  // the page and its form have been redrawn
  await page.getByText('Roles were changed, granted: editor, auditor', { exact: true }).waitFor()
  assert.deepEqual((await shown(person)).roles, ['editor', 'auditor'])
  await eventually(async () => assert.deepEqual(await chips(), ['editor', 'auditor']))
  await button('Remove: editor').click()
  assert.ok(await button('Save').isEnabled())
  await input.pressSequentially('editor ')
  assert.deepEqual(await chips(), ['auditor', 'editor'])
  await input.fill('NO-GOOD')
  await button('Save').click()
  await page.getByRole('alert').getByText(/^roles/).waitFor()
})

test('an attribute is set, shown, and removed', async () => {
  const person = await newcomer()
  await showPerson(person)
  const card = page.locator('section.card', { has: page.getByRole('heading', { name: 'Attributes' }) })
  const digits = '1716543210987654321'
  const sent = ['gold', digits, '1.10', '1e3', '0.1', '7', '{"since": 2026}', '[1.5, "7"]', 'true', '']
  const kept = ['gold', digits, '1.10', '1e3', 0.1, 7, { since: 2026 }, [1.5, '7'], true]
  for (const [n, typed] of sent.entries()) {
    const stored = n < kept.length ? { tier: kept[n] } : {}
    await card.getByLabel('Name of an attribute').fill('tier')
    await card.getByLabel('Value').fill(typed)
    await button('Set').click()
    await eventually(async () => assert.deepEqual((await shown(person)).attributes, stored))
    await eventually(async () => assert.deepEqual(await card.locator('dd').allInnerTexts(), Object.values(stored).map((each) => JSON.stringify(each))))
  }
  assert.deepEqual((await shown(person)).attributes, {})
})

test('what a merge and a split hand over is told before they are done', async () => {
  const [banned, other] = [await newcomer({ phoneCode: 'phone-13900000502' }), await newcomer()]
  await change(banned, { status: 'disabled', roles: ['editor'] })
  await showPerson(banned)
  await button('Merge').click()
  await dialog().getByLabel('The other user').fill(other.user.id)
  await page.keyboard.press('Enter')
  await button(`Choose: ${other.user.nickname}`, dialog()).click()
  await dialog().getByText(`${other.user.nickname} will also be banned`).waitFor()
  await dialog().getByText(`${other.user.nickname} also gets the roles of ${banned.user.nickname}: editor.`).waitFor()
  await dialog().getByText(`gets these fields from ${banned.user.nickname}: Phone number +8613900000502.`).waitFor()
  await button('Swap', dialog()).click()
  assert.equal(await dialog().getByText('will also be banned').count(), 0)
  await button('Merge', dialog()).click() // the banned user remains
  await button('Split').click()
  await dialog().getByText(`${banned.user.nickname} is banned, so the new user will also be banned.`).waitFor()
  await dialog().getByText(`${banned.user.nickname} keeps all roles: editor.`).waitFor()
})

test('a merge shows both, found by search, before it is done, and a split takes an identity out', async () => {
  const [one, other] = [await newcomer(), await newcomer()]
  await showPerson(one)
  await button('Merge').click()
  await dialog().getByRole('heading', { name: `Merge ${one.user.nickname} with another user` }).waitFor()
  await dialog().getByText('split an identity off on the remaining user’s page').waitFor()
  const go = button('Merge', dialog())
  await dialog().getByText('first search for the other user and choose').waitFor()
  await dialog().getByLabel('The other user').fill(other.user.id)
  await page.keyboard.press('Enter')
  await button(`Choose: ${other.user.nickname}`, dialog()).waitFor()
  assert.ok(await go.isDisabled())
  await button(`Choose: ${other.user.nickname}`, dialog()).click()
  const ids = () => dialog().getByRole('row', { name: /^ID / }).getByRole('cell').allInnerTexts()
  assert.deepEqual(await ids(), ['ID', one.user.id, other.user.id]) // the user that ends, and the user that remains
  await button('Swap', dialog()).click()
  assert.deepEqual(await ids(), ['ID', other.user.id, one.user.id])
  await button('Swap', dialog()).click()
  await go.click()
  await page.waitForURL(new RegExp(`#/users/${other.user.id}$`))
  await button('Split').waitFor()
  assert.deepEqual((await shown(other)).former_ids, [one.user.id])

  await button('Split').click()
  await dialog().getByRole('heading', { name: `Split ${other.user.nickname} into two users` }).waitFor()
  await dialog().getByLabel('Identity').selectOption({ label: `${FIRST_APP} · ${one.user.openid}` })
  await button('Split', dialog()).click()
  await page.getByRole('status').getByText('The identity is now a separate user.').waitFor()
  await page.waitForURL((url) => url.hash !== `#/users/${other.user.id}`)
  const taken = { user: { id: page.url().split('/').at(-1) } }
  assert.ok(![one.user.id, other.user.id].includes(taken.user.id))
  await page.getByText(one.user.openid).first().waitFor()
  assert.equal(await button('Split').count(), 0)
  assert.deepEqual((await shown(taken)).identities.map(({ openid }) => openid), [one.user.openid])
})

test('a person is signed out on one device, and on all', async () => {
  const person = await newcomer()
  const other = await logIn(person.user.nickname)
  await showPerson(person)
  const devices = page.getByRole('button', { name: /^Log out this device/ })
  assert.equal(await devices.count(), 2)
  await devices.first().click()
  await eventually(async () => assert.equal(await devices.count(), 1))
  await isRefused(other)
  assert.equal(await statusOf(person), 200)
  await button('Log out everywhere').click()
  await button('Log out everywhere', dialog()).click()
  await isRefused(person)
  await page.getByText('This user isn’t logged in on any device.').waitFor()
})

test('erasing wants the name typed', async () => {
  const person = await newcomer()
  await showPerson(person)
  await button('Erase').click()
  const go = button('Erase', dialog())
  assert.ok(await go.isDisabled())
  await dialog().getByLabel('Enter the nickname or the ID to confirm').fill('somebody else')
  assert.ok(await go.isDisabled())
  await dialog().getByLabel('Enter the nickname or the ID to confirm').fill(person.user.nickname)
  await go.click()
  await heading('Users').waitFor()
  assert.equal((await asks(root, `/v1/admin/users/${person.user.id}`)).status, 404)
})

test('a dialog is left by the keyboard, and nothing is done', async () => {
  const person = await newcomer()
  await showPerson(person)
  await button('Ban').focus()
  await page.keyboard.press('Enter')
  await dialog().waitFor()
  await page.keyboard.press('Escape')
  await dialog().waitFor({ state: 'detached' })
  assert.equal(await statusOf(person), 200)
})

test('an act that is under way is not sent twice, and fails visibly when its dialog has been left', async () => {
  let fail
  const failing = new Promise((resolve) => (fail = resolve))
  await showPerson(await newcomer())
  await page.route('**/v1/admin/users/*', async (route) => (await failing, await route.abort()))
  await button('Ban').click()
  await button('Ban', dialog()).click()
  await dialog().getByLabel('Reason').fill('spam')
  assert.ok(await button('Ban', dialog()).isDisabled())
  await page.keyboard.press('Escape')
  await dialog().waitFor({ state: 'detached' })
  fail()
  await page.getByRole('alert').getByText('The service isn’t responding.').waitFor()
  complaints.bearWith(/^Failed to load resource/)
})

// Text that strangers write.

test('markup in a name, a device or a title is text', async () => {
  const answer = await fetch(`${SERVICE_URL}/v1/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'User-Agent': `${MARKUP} iPhone OS 17_1 MicroMessenger/8.0.44` },
    body: JSON.stringify({ code: `person-${(number += 1)}`, nickname: MARKUP, avatar_url: 'https://tracker.test/a.png' }),
  })
  const person = await answer.json()
  await asks(root, '/v1/admin/apps', { method: 'POST', body: JSON.stringify({ ...LATER_APP, title: MARKUP }) })
  await go('Users')
  await page.getByRole('link', { name: MARKUP, exact: true }).first().waitFor()
  await showPerson(person)
  await page.getByRole('heading', { name: MARKUP }).waitFor()
  await button('Erase').click()
  await dialog().getByRole('heading', { name: `Erase: ${MARKUP}` }).waitFor()
  await button('Cancel', dialog()).click()
  await go('Apps')
  await page.getByRole('cell', { name: MARKUP }).first().waitFor()
  await asks(root, `/v1/admin/apps/${LATER_APP.app_id}`, { method: 'DELETE' })
  assert.equal(await page.locator('main img').count(), 0)
})

test('scripts that are not the console’s own do not run', async () => {
  const outcome = await page.evaluate(() => {
    const violated = new Promise((resolve) => addEventListener('securitypolicyviolation', () => resolve('refused')))
    const script = document.createElement('script')
    try {
      script.text = 'window.hacked = true'
    } catch {
      return 'refused'
    }
    document.body.append(script)
    return violated
  })
  assert.equal(outcome, 'refused')
  assert.equal(await page.evaluate(() => window.hacked), undefined)
  complaints.bearWith(/Content Security Policy|TrustedScript/)
})

test('the documentation, of the same origin, runs its own scripts alone', async () => {
  await drawOnly(page, '/v1/login')
  await page.goto(`${SERVICE_URL}/docs`)
  await page.locator('.opblock').first().waitFor()
  await page.locator('.opblock-summary-control').first().click()
  await page.getByRole('button', { name: 'Execute' }).waitFor()
  complaints.check()
  await page.evaluate(() => {
    const script = document.createElement('script')
    script.textContent = 'window.hasRun = true'
    document.body.append(script)
  })
  assert.equal(await page.evaluate(() => window.hasRun), undefined)
  complaints.bearWith(/Content Security Policy/)
})

test('a cell of CSV that a table program would run is made harmless', () => {
  assert.deepEqual(['=1+1', '+1', '-1', '@a', '\t=1', 'a=1', '', null].map(cell), ["'=1+1", "'+1", "'-1", "'@a", "'\t=1", 'a=1', '', ''])
  assert.equal(cell('="a","b"'), `"'=""a"",""b"""`)
})

// The audit trail.

test('events are found by type, followed, and exported', async () => {
  const person = await newcomer()
  await change(person, { roles: ['editor'] })
  await go('Events')
  const kinds = (await page.locator('main tbody .sentence + small').allInnerTexts()).filter((kind) => /roles/.test(kind))
  await page.getByLabel('User ID').fill(person.user.id)
  await chip('Types').click()
  await page.getByLabel('Types').fill(kinds[0])
  await page.keyboard.press('Enter')
  await eventually(async () => assert.equal(await rows().count(), 1))
  await button('Live updates').click()
  await change(person, { roles: [] })
  await eventually(async () => assert.equal(await rows().count(), 2))
  await button('Live updates').click()
  for (const [format, check] of [
    ['jsonl', (text) => assert.deepEqual(text.trim().split('\n').map((line) => JSON.parse(line).type), [kinds[0], kinds[0]])],
    ['csv', (text) => assert.equal(text.trim().split('\r\n').length, 3)],
  ]) {
    await page.getByLabel('Format').selectOption(format)
    const [file] = await Promise.all([page.waitForEvent('download'), button('Export').click()])
    assert.equal(file.suggestedFilename(), `events.${format}`)
    check(await readFile(await file.path(), 'utf8'))
  }
})

test('events are told in a sentence, with the JSON behind it, and their types chosen', async () => {
  const person = await newcomer()
  await change(person, { roles: ['editor'] })
  await change(person, { roles: ['auditor'] })
  await goTo(`events?user_id=${person.user.id}`)
  const row = rows().first()
  await row.getByText('Roles were changed, granted: auditor, revoked: editor').waitFor()
  const unfold = row.getByRole('button', { name: 'JSON' })
  assert.equal(await unfold.getAttribute('aria-expanded'), 'false')
  await unfold.click()
  assert.equal(await unfold.getAttribute('aria-expanded'), 'true')
  const json = rows().nth(1).locator('pre') // in a row of its own
  assert.deepEqual(JSON.parse(await json.innerText()).data, { before: ['editor'], after: ['auditor'] })
  await row.getByText('Roles were changed').click() // so does a press on the row
  assert.equal(await json.isVisible(), false)
  await chip('Types').click()
  await page.getByText('Choose', { exact: true }).click()
  await page.getByRole('button', { name: 'user.created' }).click()
  assert.equal(await page.getByLabel('Types').inputValue(), 'user.created')
  await button('Apply').and(page.locator(':visible')).click()
  await page.getByRole('status').getByText('1 in total').waitFor()
  await rows().getByText('Logged in for the first time').waitFor()
})

test('what a service has done is told as the service’s', async () => {
  const person = await newcomer()
  const name = `moderator-${(number += 1)}`
  const client = await asks(root, '/v1/admin/clients', { method: 'POST', body: JSON.stringify({ name, scopes: ['moderate'] }) })
  const { client_secret } = await client.json()
  const headers = { Authorization: `Basic ${btoa(`${name}:${client_secret}`)}` }
  const ended = await fetch(`${SERVICE_URL}/v1/users/${person.user.id}/sessions`, { method: 'DELETE', headers })
  assert.equal(ended.status, 204)
  await goTo(`events?user_id=${person.user.id}&type=session.ended`)
  await rows().first().getByText('by a service').waitFor()
  const actor = rows().first().getByRole('cell').nth(3)
  assert.equal(await actor.innerText(), `Service ${name}`)
  await showPerson(person)
  const events = page.getByRole('region', { name: 'Events about this user' })
  await events.getByRole('cell', { name: `Service ${name}` }).waitFor()
})

test('an export shows how many events it has read, and back to when', async () => {
  const event = (id, at) => ({ id, at, type: 'user.erased', actor: 'system', user_id: null, app_id: null, ip: null, data: {} })
  let goOn
  const held = new Promise((resolve) => (goOn = resolve))
  await page.route(/admin\/events\?.*limit=200/, async (route) => {
    const isSecond = route.request().url().includes('cursor')
    if (isSecond) await held
    const items = isSecond ? [event('1', '2026-01-02T00:00:00Z')] : [event('3', '2026-01-05T12:00:00Z'), event('2', '2026-01-03T12:00:00Z')]
    await route.fulfill({ json: { items, next_cursor: isSecond ? null : 'next' } })
  })
  await goTo('events?since=2026-01-01T12:00:00Z')
  await button('Export').click()
  await page.getByRole('status').getByText(/^2 events, back to Jan 3, 2026/).waitFor()
  const bar = page.getByRole('progressbar', { name: 'Export' })
  assert.equal(await bar.evaluate(({ position }) => position), 0.5) // two of the four days
  const downloaded = page.waitForEvent('download')
  goOn()
  assert.match(await readFile(await (await downloaded).path(), 'utf8'), /"3"[^]*"2"[^]*"1"/)
  await page.getByRole('status').getByText('3 events have been exported.').waitFor()
  await bar.waitFor({ state: 'detached' })
})

test('a refused login is found by the request id that the phone shows, and by person', async () => {
  const person = await newcomer()
  await change(person, { status: 'disabled' })
  const refused = await fetch(`${SERVICE_URL}/v1/login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ code: person.user.nickname }),
  })
  const { request_id, code } = await refused.json()
  assert.equal(code, 'account_disabled')
  await go('Logins')
  await page.getByRole('link', { name: 'Refused logins' }).click()
  await page.getByLabel('Request ID').fill(request_id)
  await button('Search').click()
  await page.getByRole('status').getByText('1 in total').waitFor()
  for (const told of ['account_disabled', 'Banned. The user’s page shows the reason', shortened(person), '127.0.0.0/24', request_id])
    await rows().getByText(told).waitFor()
  await rows().getByRole('link', { name: person.user.nickname }).click()
  await page.getByRole('region', { name: 'Refused logins' }).getByText(request_id).waitFor()
})

test('a reason in a few words ends where its sentence ends, and not within a name', async () => {
  await goTo('signins?show=refused&code=invalid_code')
  await chip('ReasonThe wx.login code has expired or belongs to another app').waitFor()
})

test('logins are listed with who, from which device and address, and whether they go on', async () => {
  const person = await newcomer()
  await asks(person, '/v1/logout', { method: 'POST' })
  await logIn(person.user.nickname)
  await goTo(`signins?user_id=${person.user.id}`)
  await page.getByRole('status').getByText('2 in total').waitFor()
  for (const state of ['open', 'ended'])
    await rows().filter({ hasText: person.user.nickname }).filter({ hasText: '127.0.0.1' }).getByText(state, { exact: true }).waitFor()
  await rows().first().getByText('127.0.0.1').click()
  await isShown(person)
})

test('a person’s page leads on to who read it, what they did, and who else logged in from there', async () => {
  const person = await newcomer()
  await showPerson(person)
  const events = page.getByRole('region', { name: 'Events about this user' })
  await events.getByText('user.created', { exact: true }).waitFor()
  // Each view of the page is a read, which is stored a moment later.
  await eventually(async () => assert.match(await (await asks(root, `/v1/admin/events?user_id=${person.user.id}`)).text(), /staff\.read/))
  await page.reload()
  await events.getByText('user.created', { exact: true }).waitFor()
  assert.equal(await events.getByText('staff.read', { exact: true }).count(), 0)
  await page.getByRole('link', { name: 'Who has viewed this user’s data' }).click()
  await rows().getByText('staff.read', { exact: true }).first().waitFor()
  await rows().getByRole('link', { name: 'root' }).first().waitFor()
  await showPerson(person)
  await page.getByRole('link', { name: 'What this user did' }).click()
  await chip(`Actor${person.user.nickname}`).waitFor() // by nickname, not by id
  await rows().getByText('user.created', { exact: true }).waitFor()
  await showPerson(person)
  await page.getByRole('region', { name: 'Devices' }).getByRole('link', { name: '127.0.0.1' }).first().click()
  await chip('Network127.0.0.1').waitFor()
  await rows().getByRole('link', { name: person.user.nickname, exact: true }).first().waitFor()
})

test('people without a name are called alike everywhere, and told apart by app and device', async () => {
  const nameless = await logIn(`person-${(number += 1)}`)
  await goTo(`users?q=${nameless.user.id}`)
  const called = `WeChat user …${shortened(nameless)}`
  await rows().getByRole('link', { name: called }).waitFor()
  await rows().getByText('Example Shop · ').waitFor() // the app's title
  await showPerson(nameless)
  await heading(called).waitFor()
  await change(nameless, { roles: ['editor'] })
  await goTo(`events?user_id=${nameless.user.id}`)
  await rows().getByRole('link', { name: called }).first().waitFor()
  await rows().getByRole('link', { name: 'root' }).first().waitFor()
})

// Apps and keys.

/** Choose an action in the menu of a row. */
async function choose(row, name) {
  await row.getByRole('button', { name: /^Actions/ }).click()
  await row.getByRole('button', { name: new RegExp(`^${name}`) }).click()
}

test('an app is added, checked, changed and removed', async () => {
  await go('Apps')
  await button('Add').click()
  const secret = dialog().getByLabel('AppSecret')
  assert.equal(await secret.getAttribute('type'), 'password')
  await dialog().getByLabel('AppID').fill(LATER_APP.app_id)
  await secret.fill('a-secret-of-nobodys')
  await button('Add', dialog()).click()
  await dialog().getByRole('alert').getByText('errcode 40125').waitFor()
  await secret.fill(LATER_APP.app_secret)
  await button('Add', dialog()).click()
  await dialog().waitFor({ state: 'detached' })
  const row = rows().filter({ hasText: LATER_APP.app_id })
  await row.waitFor()
  await choose(row, 'Check')
  await dialog().getByText(`wechat ${LATER_APP.app_id}`).first().waitFor()
  await button('Close', dialog()).click()
  await choose(row, 'Change')
  await dialog().getByLabel('Title').fill('Shop')
  await dialog().getByLabel('Roles of new users').fill('member')
  await dialog().getByLabel('Claims').fill('{"sub": "x"}')
  await button('Save', dialog()).click()
  await dialog().getByRole('alert').getByText(/claims: must not contain the claim sub/).waitFor()
  await dialog().getByLabel('Claims').fill('{"role": "authenticated"}')
  await dialog().getByLabel('enabled').uncheck()
  await button('Save', dialog()).click()
  await eventually(async () => assert.match(await row.innerText(), /Shop[^]*mini-program[^]*disabled/))
  const { sign_up_roles, claims } = await (await asks(root, `/v1/admin/apps/${LATER_APP.app_id}`)).json()
  assert.deepEqual([sign_up_roles, claims], [['member'], { role: 'authenticated' }])
  await choose(row, 'Remove')
  await button('Remove', dialog()).click()
  await row.waitFor({ state: 'detached' })
})

test('all apps are checked one after the other, and a bar shows how far that is', async () => {
  const { items } = await (await asks(root, '/v1/admin/apps')).json()
  const number = items.filter(({ is_enabled }) => is_enabled).length
  let goOn
  const held = new Promise((resolve) => (goOn = resolve))
  let checks = 0
  await page.route('**/v1/admin/apps/*/check', async (route) => {
    if (++checks === 2) await held
    await route.continue()
  })
  await go('Apps')
  await button('Check all').click()
  await dialog().getByText(`1 of ${number} apps checked`).waitFor()
  const bar = dialog().getByRole('progressbar', { name: 'Check all' })
  assert.equal(await bar.evaluate(({ position }) => position), 1 / number)
  assert.match(await dialog().getByRole('status').textContent(), /apps checked/)
  goOn()
  await dialog().getByText(`${number} of ${number} apps checked`).first().waitFor()
  assert.equal(await bar.evaluate(({ position }) => position), 1)
  assert.equal(await dialog().getByRole('heading', { level: 3 }).count(), number)
})

test('keys are rotated, and that asks', async () => {
  await go('Keys')
  await button('Rotate').click()
  await button('Rotate', dialog()).click()
  for (const kind of ['access tokens', 'id_tokens'])
    for (const state of ['current', 'next']) await rows().filter({ hasText: kind }).filter({ hasText: state }).waitFor()
})

// Services.

async function addClient(kind, fields, ticked = []) {
  await go('Services')
  await button('Add').click()
  await dialog().getByRole('button', { name: kind }).click()
  if (kind !== 'Service') await dialog().getByText('Further settings').click()
  for (const [label, value] of Object.entries(fields)) await dialog().getByLabel(label, { exact: true }).fill(value)
  for (const label of ticked) await dialog().getByLabel(label).check()
  await button('Add', dialog()).click()
}

async function closeSecret() {
  const secret = dialog().getByLabel('Secret', { exact: true })
  await secret.waitFor()
  const [value, type] = [await secret.inputValue(), await secret.getAttribute('type')]
  assert.deepEqual([value.length, type], [43, 'password'])
  await button('Close', dialog()).click()
  assert.ok(!(await page.content()).includes(value))
  return value
}

const clientRow = (name) => rows().filter({ has: page.getByText(name, { exact: true }) })
const stored = async (name) =>
  (await (await asks(root, '/v1/admin/clients')).json()).items.find((client) => client.name === name)

test('a service client is added, and its secret shown this once', async () => {
  await addClient('Service', { Name: 'billing' }, ['users'])
  const secret = await closeSecret()
  await clientRow('billing').getByText('users').waitFor()
  assert.deepEqual((await stored('billing')).scopes, ['introspect', 'users'])
  await page.getByRole('searchbox', { name: 'Search for' }).fill('users')
  await button('Search').click()
  await eventually(async () => assert.equal(await rows().count(), 1))
  assert.ok(page.url().endsWith('#/services?q=users'))
  await choose(clientRow('billing'), 'New secret')
  await dialog().getByLabel('Reject the previous secret at once').check()
  const asked = page.waitForRequest(/secret$/)
  await button('New secret', dialog()).click()
  assert.notEqual(await closeSecret(), secret)
  assert.deepEqual((await asked).postDataJSON(), { at_once: true })
  await choose(clientRow('billing'), 'Connect')
  await dialog().getByText(`curl --user 'billing:SECRET' ${SERVICE_URL}/v1/users/USER_ID`).waitFor()
  await button('Close', dialog()).click()
})

test('a service is told to begin with a call that its scopes allow', async () => {
  await asks(root, '/v1/admin/clients', { method: 'POST', body: JSON.stringify({ name: 'seller', scopes: ['sign'] }) })
  await goTo('services')
  await choose(clientRow('seller'), 'Connect')
  await dialog().getByText(`curl --user 'seller:SECRET' ${SERVICE_URL}/v1/apps/APP_ID/signatures`).waitFor()
})

const LOGO = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
const ACCOUNT = { app_id: 'wxdev00000000000d4', kind: 'official_account', app_secret: 'a-secret-of-the-service-account', title: '店铺服务号' }

test('a site is added, shown and changed', async () => {
  await asks(root, '/v1/admin/apps', { method: 'POST', body: JSON.stringify({ ...ACCOUNT, check: false }) })
  const shop = { Name: 'shop', Title: '小店', 'Redirect URIs': 'https://shop.example.com/callback\nhttp://shop.example.com/' }
  await addClient('Website', { ...shop, 'Email domain': 'example.com' }, ['Only from the same network'])
  await dialog().getByRole('alert').getByText(/redirect_uris: must use https/).waitFor()
  assert.equal(await stored('shop'), undefined)
  await dialog().getByLabel('Redirect URIs').fill('https://shop.example.com/callback')
  await button('Add', dialog()).click()
  await closeSecret()
  const row = clientRow('shop')
  for (const shown of ['小店', 'openid', 'profile', 'https://shop.example.com/callback']) await row.getByText(shown, { exact: true }).waitFor()

  await choose(row, 'Change')
  assert.equal(await dialog().getByLabel('Redirect URIs').inputValue(), 'https://shop.example.com/callback')
  assert.ok(await dialog().getByLabel('Only from the same network').isChecked())
  await dialog().getByLabel('Title').fill('Corner Shop')
  await dialog().getByLabel('Picture').setInputFiles({ name: 'logo.png', mimeType: 'image/png', buffer: Buffer.from(LOGO.split(',')[1], 'base64') })
  await dialog().getByLabel('profile', { exact: true }).uncheck()
  await dialog().getByLabel('phone', { exact: true }).check()
  await dialog().getByLabel('Email domain').fill('')
  await dialog().getByLabel('Signing algorithm of id_tokens').selectOption('ES256')
  await dialog().getByLabel('Only from the same network').uncheck()
  await dialog().getByLabel('Device grant').check()
  await dialog().getByLabel('Let mini-programs and mobile apps get the site’s id_tokens').check()
  await dialog().getByLabel('Claims').fill('tier: gold')
  await dialog().getByLabel('Service account').selectOption({ label: `店铺服务号 (${ACCOUNT.app_id})` })
  const websites = await dialog().getByLabel('Website app').locator('option').allInnerTexts()
  // each list contains only apps of its kind
  assert.ok(![ACCOUNT.app_id, FIRST_APP].some((id) => websites.join().includes(id)))
  await button('Save', dialog()).click()
  await dialog().getByRole('alert').getByText(/claims/).waitFor()
  await dialog().getByLabel('Claims').fill('{"customer": 9007199254740993}')
  await button('Save', dialog()).click()
  await dialog().getByRole('alert').getByText(/claims: must not contain a number that some programs would round/).waitFor()
  await dialog().getByLabel('Claims').fill('{"tier": "$attributes.tier"}')
  await button('Save', dialog()).click()
  await row.getByText('Corner Shop').waitFor()
  for (const shown of ['phone', 'Device grant']) await row.getByText(shown, { exact: true }).waitFor()
  const { created_at, ...site } = await stored('shop')
  assert.ok(created_at)
  assert.deepEqual(site, {
    ...{ name: 'shop', title: 'Corner Shop', scopes: ['openid', 'phone'], is_public: false, device: true, app_id: null },
    ...{ redirect_uris: ['https://shop.example.com/callback'], logout_uris: [], near: false, user_code: false },
    ...{ email_domain: null, id_token_alg: 'ES256', former_secret_until: null },
    ...{ omit_email_verified: false, i_verify_this_address: false, id_token_ttl: null },
    ...{ account_app_id: ACCOUNT.app_id, website_app_id: null, backchannel_logout_uri: null, link: false, sso: false, phone_id_token: true, pkce: 'required' },
    claims: { tier: '$attributes.tier' },
    ...{ resources: [], logo: LOGO },
  })
})

test('a public site shows no secret, and is given none', async () => {
  await addClient('Website', { Name: 'page', 'Redirect URIs': 'https://page.example.com/' }, ['Public'])
  await clientRow('page').getByText('Public', { exact: true }).waitFor()
  assert.equal(await dialog().count(), 0)
  await button('Actions: page').click()
  await button('Remove: page').waitFor()
  assert.equal(await button('New secret: page').count(), 0)
})

// Webhooks.

/** Wait until the webhook has a delivery of a ban in this state. */
const delivery = (webhook, state) =>
  eventually(async () => {
    const { items } = await (await asks(root, `/v1/admin/webhooks/${webhook}/deliveries?state=${state}`)).json()
    assert.ok(items.some(({ type }) => type === 'user.banned'))
  })

test('a webhook is added, tested, told of what happens, told again, disabled and removed', async () => {
  const url = new URL('/webhook', DESK_URL).href
  await go('Webhooks')
  await button('Add').click()
  await dialog().getByLabel('Name').fill('orders')
  await dialog().getByLabel('URL').fill(url)
  await dialog().getByLabel('Types').fill('user.banned, user.unbanned')
  await button('Add', dialog()).click()
  await dialog().getByLabel('Secret', { exact: true }).waitFor()
  await button('Close', dialog()).click()
  const row = rows().filter({ hasText: url })
  // the button isn't red
  assert.equal(await row.getByRole('button', { name: /^New secret/, includeHidden: true }).getAttribute('class'), 'small')
  await choose(row, 'Test')
  await row.getByText(/The webhook returned 204/).waitFor()
  await change(await newcomer(), { status: 'disabled' })
  const delivered = page.getByRole('region', { name: 'Deliveries: orders' }).getByRole('row', { name: /user\.banned delivered/ })
  await delivery('orders', 'delivered')
  await row.getByRole('link', { name: 'orders' }).click()
  await row.getByText('100% of the last 1').waitFor()
  await delivered.getByRole('button', { name: 'JSON' }).first().click()
  await page.locator('.detail').getByText('"type": "user.banned"').waitFor()
  await page.locator('.detail').getByRole('button', { name: /^Replay/ }).click()
  await page.getByRole('status').getByText('Done').waitFor()
  await choose(row, 'Replay')
  await button('Replay', dialog()).click()
  await page.getByRole('status').getByText(/[1-9]\d* queued again/).waitFor()
  await choose(row, 'Disable')
  await row.getByText('disabled', { exact: true }).waitFor()
  await choose(row, 'Enable')
  await row.getByText('enabled', { exact: true }).waitFor()
  await choose(row, 'Remove')
  await button('Remove', dialog()).click()
  await row.waitFor({ state: 'detached' })
})

test('what a disabled webhook keeps is not called the oldest that waits', async () => {
  const body = JSON.stringify({ name: 'asleep', url: 'http://127.0.0.1:1/', types: ['user.banned'] })
  await asks(root, '/v1/admin/webhooks', { method: 'POST', body })
  await change(await newcomer(), { status: 'disabled' })
  await delivery('asleep', 'pending')
  await go('Overview')
  const part = page.locator('section', { hasText: 'Oldest waiting webhook delivery' })
  await part.getByText('From').waitFor()
  await part.getByRole('link', { name: 'asleep' }).waitFor()
  await asks(root, '/v1/admin/webhooks/asleep', { method: 'PATCH', body: JSON.stringify({ is_enabled: false }) })
  await page.reload()
  await part.getByText('no pending deliveries').waitFor()
  await part.getByText('Disabled, so no events are sent').waitFor()
  await asks(root, '/v1/admin/webhooks/asleep', { method: 'DELETE' })
})

// The role `support`.

testBegunOtherwise('support staff see what they may do, and nothing that administrators may', async () => {
  const staff = await newcomer()
  await change(staff, { roles: ['support'] })
  await open({ by: staff })
  const links = await page.getByRole('navigation').getByRole('link').allInnerTexts()
  assert.deepEqual(links, ['Overview', 'Users', 'Events', 'Logins'])
  for (const section of links) await go(section)
  const acts = async (person) => {
    await showPerson(person)
    return page.locator('main button:not(.id, .copier, .unfold):visible').allInnerTexts()
  }
  const offered = await acts(await newcomer())
  const wanted = ['Log out everywhere', 'Clear name', 'Ban', 'Log out this device']
  assert.deepEqual(wanted.filter((act) => !offered.includes(act)), [])
  assert.deepEqual(offered.filter((act) => ['Export', 'Merge', 'Erase', 'Save', 'Set'].includes(act)), [])
  await page.getByText('To merge, split, export or erase users, or to set roles, you need the admin role.').waitFor()
  assert.deepEqual(await acts(root), [])
  await page.getByText('Only administrators can change administrators and support staff.').waitFor()
})

test('every section’s list has a search field that says what it is', async () => {
  await page.route(/admin\/webhooks$/, (route) => route.fulfill({ json: { items: [{ name: 'far', url: 'https://far.example.com/', is_enabled: false }] } }))
  for (const section of SECTIONS.slice(1)) {
    await go(section)
    assert.equal(await page.getByRole('searchbox').count(), 1, section)
    assert.equal(await button('Search').count(), 1, section)
    assert.equal(await page.locator('main table').count(), 1, section)
  }
})

// Loading, failures, screen readers and languages.

test('a list shows that it is loading, that it failed, and tries again', async () => {
  let fail
  const failing = new Promise((resolve) => (fail = resolve))
  await page.route('**/v1/admin/users?*', async (route) => (await failing, await route.abort()), { times: 1 })
  await goTo('users?status=active')
  await page.locator('[aria-busy=true]').getByText('Loading').waitFor()
  fail()
  await page.getByRole('alert').getByText('The service isn’t responding.').waitFor()
  await button('Try again').click()
  await eventually(async () => assert.ok((await rows().count()) > 0))
  complaints.bearWith(/^Failed to load resource/)
})

test('whatever stands in the fragment, the console asks for no other thing and goes on', async () => {
  const asked = []
  page.on('request', (request) => asked.push(new URL(request.url()).pathname))
  for (const [fragment, title] of [['constructor', 'Overview'], ['users/..\\keys', 'User'], ['__proto__/x', 'Overview']]) {
    await goTo(fragment)
    await heading(title).waitFor()
  }
  await go('Users')
  assert.ok(asked.every((path) => !path.endsWith('/keys')))
})

test('the overview draws what happened, with a label', async () => {
  await go('Overview')
  const charts = page.getByRole('img', { name: /last 30 days/ })
  await charts.first().waitFor()
  assert.equal(await charts.count(), 2)
  assert.match(await charts.last().getAttribute('aria-label'), /^Logins, .*in total [1-9]/)
  // today is the only bar, because a day without logins has none
  assert.equal(await charts.first().locator('rect').count(), 1)
  await page.locator('.tile', { hasText: 'Logins today' }).getByText('0 yesterday').waitFor()
  const reasons = page.getByRole('region', { name: 'Reasons for refused logins today' })
  await reasons.getByRole('link', { name: 'Banned' }).click()
  await chip('ReasonBanned').waitFor()
  await go('Overview')
  await page.getByLabel('Time range: Logins').selectOption('7 days')
  await page.getByRole('img', { name: /^Logins, in the last 7 days/ }).waitFor()
  assert.equal(await charts.count(), 0)
  assert.equal(await page.getByLabel('Time range: New users').inputValue(), '7') // one range for both
})

test('the overview says that its checks are under way, and what they check', async () => {
  let goOn
  const held = new Promise((resolve) => (goOn = resolve))
  await page.route('**/v1/admin/check', async (route) => (await held, await route.continue()))
  await go('Overview')
  await page.getByRole('status').getByText('Checking the database').waitFor()
  const bar = page.getByRole('progressbar', { name: 'Checks' })
  assert.equal(await bar.evaluate(({ position }) => position), -1) // nobody knows how far
  goOn()
  await bar.waitFor({ state: 'detached' })
  await page.getByText('checks passed').waitFor()
})

test('the first steps of a new deployment are shown until all are done', async () => {
  await go('Overview')
  const steps = page.locator('section', { has: page.getByRole('heading', { name: 'First steps' }) })
  await steps.getByText('Save a copy of SECRET_KEY').waitFor()
  const guarded = { name: `guarded-${(number += 1)}`, scopes: ['users'] }
  await asks(root, '/v1/admin/clients', { method: 'POST', body: JSON.stringify(guarded) })
  await page.reload()
  await eventually(async () => assert.equal(await steps.getByText('done', { exact: true }).count(), 3))
  assert.deepEqual(await steps.getByRole('progressbar', { name: '3 of 4 done' }).evaluate(({ value, max }) => [value, max]), [3, 4])
  await button('I have saved this key').click()
  await steps.waitFor({ state: 'detached' })
  await page.reload()
  await page.getByRole('img').first().waitFor()
  assert.equal(await steps.count(), 0)
})

testBegunOtherwise('who is signed in without a name is called as in every list', async () => {
  const nameless = await logIn('nameless-administrator')
  await change(nameless, { roles: ['admin'] })
  await open({ by: nameless })
  await page.locator('.who').getByText(`WeChat user …${nameless.user.id.slice(-8)}`).waitFor()
})

test('a chart has an axis of round numbers, no bar for a day without any, and an empty list says what would be there', async () => {
  const days = Array.from({ length: 365 }, (_, place) => ({ date: new Date(place * 86_400_000).toISOString().slice(0, 10), new_users: place === 364 ? 3 : 0, logins: 0 }))
  await page.route('**/v1/admin/numbers*', (route) => route.fulfill({ json: { users: 2, sessions: 0, active_day: 0, active_week: 0, active_month: 0, estimated: [], days } }))
  await page.route('**/v1/admin/webhooks', (route) => route.fulfill({ json: { items: [] } }))
  await go('Overview')
  await page.getByText('excluding erased and merged users').waitFor()
  const chart = page.getByRole('img', { name: /^New users/ })
  assert.deepEqual([await chart.locator('rect').count(), (await chart.locator('text').allTextContents()).slice(0, 3)], [1, ['0', '2', '4']])
  await go('Webhooks')
  const card = page.locator('main .card', { hasText: 'A webhook receives changes to users' })
  await card.getByText('docs/build/events.md').waitFor()
  await button('Add').click() // the only one
  await page.getByRole('dialog').waitFor()
})

testBegunOtherwise('the days are those of the reader’s zone', async () => {
  await open({ timezoneId: 'Asia/Shanghai' })
  const asked = page.waitForRequest(/numbers/)
  await go('Overview')
  assert.equal(new URL((await asked).url()).searchParams.get('utc_offset'), '480')
  await page.getByRole('img', { name: 'Logins, in the last 30 days (GMT+8)' }).waitFor()
})

testBegunOtherwise('it speaks Chinese to who reads Chinese, and English where that is asked for', async () => {
  await open({ locale: 'zh-CN', lang: '' })
  await heading('密钥').waitFor()
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN')
  await page.click('.who > summary')
  await button('English').click()
  await heading('Keys').waitFor()
  await open({ locale: 'zh-CN', lang: 'en' })
  await heading('Keys').waitFor()
})

test('at a laptop’s width nothing is cut off, and no device is broken in its words', async () => {
  const person = await newcomer({ nickname: 'Maximilian-Alexander von Hohenzollern-Sigmaringen' })
  const body = { name: 'a-shop-with-a-name-of-some-forty-letters', title: 'Corner Shop', redirect_uris: ['https://staging.shop.example.com/callback'] }
  await asks(root, '/v1/admin/clients', { method: 'POST', body: JSON.stringify(body) })
  const url = 'https://orders.example.com/a/long/path/to/the/webhook/of/wxauth'
  await asks(root, '/v1/admin/webhooks', { method: 'POST', body: JSON.stringify({ name: 'far', url, types: ['user.banned'] }) })
  for (const section of [...SECTIONS.slice(1).map((name) => name.replace('-', '').toLowerCase()), `users/${person.user.id}`]) {
    await goTo(section)
    await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'))
    const cut = () => [document.documentElement, ...document.querySelectorAll('main .scroller')].filter((each) => each.scrollWidth > each.clientWidth).map((each) => `${each.ariaLabel} ${each.scrollWidth}`)
    assert.deepEqual(await page.evaluate(cut), [], section)
  }
  const device = page.getByRole('region', { name: 'Devices' }).getByRole('row').nth(1).getByRole('cell').first()
  assert.ok((await device.boundingBox()).height < 60)
})

testBegunOtherwise('on a phone the sections are behind the menu, and whatever is pressed is as large as a finger', async () => {
  const person = await newcomer()
  await open({ viewport: { width: 375, height: 700 } })
  const users = page.getByRole('navigation').getByRole('link', { name: 'Users' })
  assert.equal(await users.isVisible(), false)
  await button('Menu').click()
  await users.click()
  await heading('Users').waitFor()
  await idle()
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth))
  for (const section of [...SECTIONS.map((name) => name.replace('-', '').toLowerCase()), `users/${person.user.id}`]) {
    await goTo(section)
    await page.waitForFunction(() => !document.querySelector('[aria-busy=true]'))
    const small = () =>
      [...document.querySelectorAll('button, select, input:not([type=checkbox]), .filter > summary, .tabs a')]
        .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < (each.className === 'id' ? 32 : 40))
        .map((each) => each.outerHTML.slice(0, 80))
    assert.deepEqual(await page.evaluate(small), [], section)
  }
  assert.equal(await button('Log out').isVisible(), false)
  await button('Menu').click()
  await button('Log out').click()
  await page.getByText('You are logged out').waitFor()
  kept = [] // root's session has ended
})

testBegunOtherwise('on a phone a list is cards, its filters are chips, and a person is one line', async () => {
  const phoneCode = `phone-138${String(10_000_000 + number).slice(-8)}`
  const person = await newcomer({ nickname: '一个名字很长很长的人'.repeat(3), phoneCode })
  assert.ok(person.user.phone)
  await open({ viewport: { width: 375, height: 700 } })
  await goTo('users')
  await rows().first().waitFor()
  assert.equal(await page.getByLabel('Status').isVisible(), false)
  await chip('Status').click()
  await page.getByLabel('Status').selectOption('active')
  await chip('Statusactive').waitFor() // the filter is in use
  await page.getByRole('searchbox').fill(person.user.id)
  await button('Search').click()
  await page.getByRole('status').getByText('1 in total').waitFor()
  const card = rows().filter({ hasText: shortened(person) })
  const { width } = await card.boundingBox()
  assert.ok(width > 300 && width < 375)
  const heightOf = async (found) => (await found.boundingBox()).height
  assert.ok((await heightOf(card)) < 64)
  await card.locator('.picture').click()
  await isShown(person)
  assert.ok((await heightOf(page.locator('dd').getByText(person.user.phone))) < 30)
  await goTo(`signins?user_id=${person.user.id}`)
  const login = rows().first().getByRole('cell')
  await login.first().waitFor()
  const labels = await login.evaluateAll((cells) => cells.map((cell) => getComputedStyle(cell, '::before').content))
  assert.ok(labels.includes('"Address"'))
  await goTo('services')
  await idle()
  const [title, add] = [await heading('Services').boundingBox(), await button('Add').boundingBox()]
  assert.ok(add.y < title.y + title.height) // on the title's row
  for (const section of ['events', 'signins', 'services', 'webhooks', 'apps', 'keys']) {
    await goTo(section)
    await idle()
    const wider = await page.evaluate(() => [...document.querySelectorAll('main *')].filter((each) => !each.closest('pre, .unseen, thead, .choices') && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80)))
    assert.deepEqual(wider, [], section)
  }
})

testBegunOtherwise('a machine that looks for barriers finds none that is serious', async () => {
  const person = await newcomer({ nickname: '张三' })
  const look = async () => {
    await page.waitForFunction(() => !document.querySelector('[aria-busy=true]')) // nothing is redrawn during the check
    await page.emulateMedia({ colorScheme: 'dark' }) // only the colours differ
    await assertNoBarriers(page, { runOnly: ['color-contrast'], sizes: SIZES.slice(0, 1) })
    await page.emulateMedia({ colorScheme: 'light' })
    await assertNoBarriers(page, { rules: { 'target-size': { enabled: true } }, sizes: SIZES.toReversed() })
  }
  await forgotten({ bypassCSP: true })
  await page.goto(`${CONSOLE_URL}?lang=en`)
  await page.getByRole('heading', { name: 'Log in' }).waitFor()
  await look()
  await open({ bypassCSP: true })
  for (const section of SECTIONS) {
    await go(section)
    await look()
  }
  await showPerson(person)
  await look()
  await button('Erase').click()
  await look()
  await page.keyboard.press('Escape')
  await go('Apps')
  await button('Add').click()
  await look()
})
