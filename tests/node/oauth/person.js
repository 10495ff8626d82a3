// A user of the simulated WeChat who logs in to a site, with the phone that approves and the browser that shows the QR
// code.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

const { SERVICE_URL } = process.env

export async function json(path, body, headers = {}) {
  const answer = await fetch(SERVICE_URL + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
  assert.ok(answer.ok, `${path}: ${answer.status}`)
  return answer.status === 204 ? null : answer.json()
}

/**
 * Create a phone, by default of a new user. It claims a code and decides. `sites` lists the sites with a session, and
 * `leave` ends these sessions.
 */
export async function phone(person = `p-${randomUUID().slice(0, 8)}`) {
  const { access_token, user } = await json('/v1/login', { code: person })
  const authorization = { authorization: `Bearer ${access_token}` }
  const decide = async (scene, verdict = 'approve') => {
    const { id } = await json('/v1/me/scans', { scene, entry_scene: 1047 }, authorization)
    await json(`/v1/me/scans/${id}/${verdict}`, { login_code: person }, authorization)
  }
  const sites = async () => {
    const { items } = await (await fetch(`${SERVICE_URL}/v1/me/sessions`, { headers: authorization })).json()
    return items.map(({ client_id }) => client_id).filter(Boolean)
  }
  const leave = () => fetch(`${SERVICE_URL}/v1/me/sessions`, { method: 'DELETE', headers: authorization })
  return { user, decide, sites, leave }
}

/** Open wxauth's page in a browser, let the phone decide, and return the response for the site. */
export async function browse(url, decide, verdict) {
  const page = await fetch(url)
  assert.equal(page.status, 200, page.url)
  const cookie = page.headers.get('set-cookie').split(';')[0]
  const html = await page.text()
  await decide(/\/v1\/scans\/([\w-]{22})\/code/.exec(html)[1], verdict)
  const [, next] = /href="(\/v1\/authorize\/[\w-]{22}\/next)"/.exec(html)
  const answer = await fetch(SERVICE_URL + next, { headers: { cookie }, redirect: 'manual' })
  assert.equal(answer.status, 303)
  return new URL(answer.headers.get('location'))
}

/** A browser that keeps the cookies of a site. The site is a function from requests to responses. */
export class Browser {
  #cookies = new Map()

  constructor(site) {
    this.site = site
  }

  async ask(url, body, headers = {}) {
    const cookie = [...this.#cookies].map((pair) => pair.join('=')).join('; ')
    const request = new Request(url, {
      headers: { origin: new URL(url).origin, ...headers, ...(cookie && { cookie }) },
      ...(body !== undefined && { method: 'POST', body }),
    })
    const answer = await this.site(request)
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)
      if (value === '' || /max-age=0(;|$)/i.test(line)) this.#cookies.delete(name)
      else this.#cookies.set(name, value)
    }
    return answer
  }
}
