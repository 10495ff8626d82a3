// This program reads wxauth's events, for a service that wxauth can't connect to, or that was down for days.
import { setTimeout as pause } from 'node:timers/promises'
import { Orders } from './orders.js'

const AT_ONCE = 200
const GONE = 410
const issuer = process.env.WXAUTH_ISSUER ?? 'http://127.0.0.1:8000'
const credentials = Buffer.from(`${process.env.CLIENT_ID}:${process.env.CLIENT_SECRET}`).toString('base64')
const orders = await Orders.open(process.env.DATABASE_URL)

function ask(path, options) {
  const headers = { Authorization: `Basic ${credentials}`, 'Content-Type': 'application/json' }
  return fetch(new URL(path, issuer), { headers, signal: AbortSignal.timeout(10_000), ...options })
}

async function bodyOf(response) {
  if (!response.ok) throw new Error(`wxauth answers ${response.status}: ${await response.text()}`)
  return response.json()
}

// Applies all events since the last run. The first run starts with the events from now on.
async function readOn() {
  let items
  do {
    const response = await ask(`/v1/events?after=${(await orders.cursor()) ?? 'now'}`)
    // GONE means that the next events were deleted, or that wxauth's database was restored from a backup.
    if (response.status === GONE) return beginAnew()
    const page = await bodyOf(response)
    for (const event of page.items) await orders.follow(event)
    // The cursor is stored after the events are applied. After a crash, some events are applied again, which changes
    // nothing.
    await orders.setCursor(page.next_cursor)
    items = page.items
  } while (items.length > 0)
}

// Reads every user again. The cursor is read first, so that no event in between is missed.
async function beginAnew() {
  const { next_cursor: cursor } = await bodyOf(await ask('/v1/events?after=now'))
  const userIds = await orders.userIds()
  for (let start = 0; start < userIds.length; start += AT_ONCE) {
    const asked = userIds.slice(start, start + AT_ONCE)
    const { items } = await bodyOf(
      await ask('/v1/users/lookup', { method: 'POST', body: JSON.stringify({ ids: asked }) })
    )
    const users = new Map(items.flatMap((user) => [user.id, ...user.former_ids].map((id) => [id, user])))
    await orders.catchUp(users, asked)
  }
  await orders.setCursor(cursor)
}

console.log('Reading the feed')
for (;;) {
  try {
    await readOn()
  } catch (error) {
    console.log(`${error.message}, trying again`)
  }
  await pause(1000)
}
