// Orders in PostgreSQL, keyed by wxauth's user ids. Events about these users erase or move their orders.
import pg from 'pg'

const TABLES = `
  SELECT pg_advisory_xact_lock(hashtext('orders'));
  CREATE TABLE IF NOT EXISTS orders (user_id text NOT NULL, item text NOT NULL, placed_by text NOT NULL);
  CREATE TABLE IF NOT EXISTS events_seen (id text PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS former_users (id text PRIMARY KEY, user_id text NOT NULL);
  CREATE TABLE IF NOT EXISTS feed (cursor text NOT NULL);`

// The orders of all users. The transaction of an event stores its id, so a repeated event changes nothing.
export class Orders {
  #pool

  static async open(connectionString) {
    const pool = new pg.Pool({ connectionString })
    pool.on('error', (error) => console.error(error.message)) // the pool replaces a lost connection
    await pool.query(TABLES)
    return new Orders(pool)
  }

  constructor(pool) {
    this.#pool = pool
  }

  add(userId, item) {
    return this.#transaction(async (query) => {
      // Several orders can hold this lock at the same time, but a merge waits for it. Otherwise, an order could be
      // stored under the id of a user who has just been merged into another user.
      await query('LOCK TABLE former_users IN ROW SHARE MODE')
      // If two users were merged by mistake, `placed_by` tells the staff who placed the order.
      await query('INSERT INTO orders VALUES ($1, $2, $3)', [await remaining(query, userId), item, userId])
    })
  }

  // Applies an event from wxauth, unless it has already been applied.
  follow(event) {
    return this.#change(async (query) => {
      const seen = await query('INSERT INTO events_seen VALUES ($1) ON CONFLICT DO NOTHING', [event.id])
      if (seen.rowCount === 0) return
      // An erased user's orders can be stored under any of their ids, because the event of a merge might arrive later.
      if (event.type === 'user.erased') await forget(query, [event.user_id, ...event.data.former_ids])
      if (event.type === 'user.merged') await move(query, event.data.former_id, event.user_id)
    })
  }

  // Applies the missed events of the users whose ids are in `asked`. `users` maps each of these ids to the user, if the
  // user still exists.
  catchUp(users, asked) {
    return this.#change(async (query) => {
      for (const userId of asked) {
        const user = users.get(userId)
        if (user === undefined) {
          await forget(query, [userId])
          continue
        }
        if (user.id !== userId) await move(query, userId, user.id)
      }
    })
  }

  async userIds() {
    const { rows } = await this.#pool.query('SELECT DISTINCT user_id FROM orders')
    return rows.map((row) => row.user_id)
  }

  async cursor() {
    const { rows } = await this.#pool.query('SELECT cursor FROM feed')
    return rows[0]?.cursor
  }

  setCursor(cursor) {
    return this.#transaction(async (query) => {
      await query('DELETE FROM feed')
      await query('INSERT INTO feed VALUES ($1)', [cursor])
    })
  }

  #change(work) {
    return this.#transaction(async (query) => {
      await query('LOCK TABLE former_users IN EXCLUSIVE MODE') // waits for orders and other merges
      await work(query)
    })
  }

  async #transaction(work) {
    const client = await this.#pool.connect()
    let failure
    try {
      await client.query('BEGIN')
      await work((text, values) => client.query(text, values))
      await client.query('COMMIT')
    } catch (error) {
      failure = error
      throw error
    } finally {
      client.release(failure) // after a failure, the pool closes the connection, which undoes the transaction
    }
  }
}

async function remaining(query, userId) {
  const { rows } = await query('SELECT user_id FROM former_users WHERE id = $1', [userId])
  return rows[0]?.user_id ?? userId
}

async function move(query, formerId, userId) {
  // wxauth does not guarantee the order of webhooks, so the second of two merges might arrive first.
  const remainingId = await remaining(query, userId)
  await query(
    'INSERT INTO former_users VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id',
    [formerId, remainingId]
  )
  await query('UPDATE former_users SET user_id = $2 WHERE user_id = $1', [formerId, remainingId])
  await query('UPDATE orders SET user_id = $2 WHERE user_id = $1', [formerId, remainingId])
}

async function forget(query, userIds) {
  await query('DELETE FROM orders WHERE user_id = ANY ($1)', [userIds])
  await query('DELETE FROM former_users WHERE id = ANY ($1) OR user_id = ANY ($1)', [userIds])
}
