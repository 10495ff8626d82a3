// A service in Node to compare wxauth with. It uses Express, pg, undici and HS256, and does as little work as the floor.
// It has no sessions and no refresh token, and neither encrypts nor logs anything.
import { createSecretKey } from 'node:crypto'
import express from 'express'
import jwt from 'jsonwebtoken'
import pg from 'pg'
import { Agent, request } from 'undici'

const TTL = 900
const ISSUER = 'http://127.0.0.1:8000'
const AUDIENCE = 'express'
const { APP_ID, APP_SECRET, DATABASE_URL, JWT_SECRET, PORT, WECHAT_BASE_URL } = process.env

const TABLE = `
CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    openid text NOT NULL UNIQUE,
    session_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz NOT NULL DEFAULT now()
)`
const UPSERT = {
    name: 'upsert',
    text: `
INSERT INTO users (openid, session_key) VALUES ($1, $2)
ON CONFLICT (openid) DO UPDATE SET session_key = excluded.session_key, last_login_at = now()
RETURNING id`,
}
const SELECT = { name: 'select', text: 'SELECT id, openid, created_at, last_login_at FROM users WHERE id = $1' }

const KEY = createSecretKey(Buffer.from(JWT_SECRET)) // With a string, jsonwebtoken needs 300 µs more for each token.
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })
const dispatcher = new Agent({ connections: 256 })

const app = express()
app.disable('x-powered-by')
app.use(express.json({ limit: '64kb' }))

app.post('/v1/login', async (req, res) => {
    const query = { appid: APP_ID, secret: APP_SECRET, js_code: req.body.code, grant_type: 'authorization_code' }
    const answer = await request(`${WECHAT_BASE_URL}/sns/jscode2session`, { query, dispatcher })
    const wechat = await answer.body.json()
    if (wechat.errcode) {
        res.status(400).json({ detail: 'WeChat refused the code' })
        return
    }
    const { rows } = await pool.query({ ...UPSERT, values: [wechat.openid, wechat.session_key] })
    const token = jwt.sign({}, KEY, { issuer: ISSUER, audience: AUDIENCE, subject: rows[0].id, expiresIn: TTL })
    res.json({ access_token: token, token_type: 'Bearer', expires_in: TTL })
})

app.get('/v1/me', async (req, res) => {
    let claims
    try {
        const token = (req.headers.authorization ?? '').replace(/^Bearer /, '')
        claims = jwt.verify(token, KEY, { algorithms: ['HS256'], issuer: ISSUER, audience: AUDIENCE })
    } catch {
        res.status(401).json({ detail: 'invalid token' })
        return
    }
    const { rows } = await pool.query({ ...SELECT, values: [claims.sub] })
    if (rows.length === 0) {
        res.status(401).json({ detail: 'no such user' })
        return
    }
    res.json(rows[0])
})

await pool.query(TABLE)
app.listen(Number(PORT), '127.0.0.1')
