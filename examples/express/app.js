// Orders: a service for users of wxauth.
import express from 'express'
import { BearerGuard } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'

const { WXAUTH_ISSUER: issuer = 'http://127.0.0.1:8000', WXAUTH_AUDIENCE: audience = 'wxauth', PORT = 8010 } = process.env
const guard = new BearerGuard({ issuer, audience })
const app = express()

const whoami = ({ user }, response) =>
  response.json({ sub: user.id, openid: user.openid, app_id: user.appId, external_id: user.externalId })

app.get('/whoami', bearer(guard), whoami)
app.get('/staff', bearer(guard, 'staff'), whoami)
app.get('/orders', bearer(guard), whoami)

app.use((request, response) => {
  response.status(404).json({ status: 404, code: 'not_found' })
})

app.listen(PORT, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Orders: http://127.0.0.1:${PORT}/orders`)
})
