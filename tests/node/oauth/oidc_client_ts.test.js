// A page without a server that logs in with oidc-client-ts in Chromium. It's a public client of a running `wxauth-desk
// dev`.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'
import { launch, PATIENCE } from '../browser.js'
import { phone } from './person.js'

const { SERVICE_URL } = process.env
const library = await readFile(new URL('../node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js', import.meta.url))

const page = (redirect_uri) => `<!doctype html><p>nobody</p><script src="/library.js"></script><script type="module">
const site = new oidc.UserManager({ authority: '${SERVICE_URL}', client_id: 'page', redirect_uri: '${redirect_uri}' })
const shown = document.querySelector('p')
if (location.pathname === '/callback') {
  site.signinCallback().then((user) => (shown.textContent = user.profile.sub), (error) => (shown.textContent = error.message))
} else await site.signinRedirect()
</script>`

let browser
let url
const site = createServer((request, response) => {
  const isLibrary = request.url === '/library.js'
  response.setHeader('content-type', isLibrary ? 'text/javascript' : 'text/html')
  response.end(isLibrary ? library : page(`${url}/callback`))
})
before(async () => {
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${site.address().port}`
  browser = await launch()
})
after(async () => {
  await browser.close()
  site.close()
  site.closeAllConnections()
})

test('a page logs a person in with oidc-client-ts', async () => {
  const { user, decide, sites } = await phone()
  const tab = await browser.newPage()
  tab.setDefaultTimeout(PATIENCE)
  await tab.goto(url)
  await tab.waitForURL(/\/v1\/authorize/)
  await decide(/\/v1\/scans\/([\w-]{22})\/code/.exec(await tab.content())[1])
  await tab.waitForURL(/\/callback/)
  await tab.getByText(/^(?!nobody)./).first().waitFor()
  assert.equal(await tab.textContent('p'), user.id)
  assert.deepEqual(await sites(), ['page'])
})
