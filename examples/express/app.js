// Orders: a service for users of wxauth.
import express from 'express'
import { AuthError, BearerGuard, problem } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'

const { WXAUTH_ISSUER: issuer = 'http://127.0.0.1:8000', WXAUTH_AUDIENCE: audience = 'wxauth', PORT = 8010 } = process.env
const guard = new BearerGuard({ issuer, audience })
const app = express()

const whoami = ({ user }, response) =>
  response.json({ sub: user.id, openid: user.openid, app_id: user.appId, external_id: user.externalId })

// This route is only for your mini-programs. Tokens of websites and agents contain a scope.
const own = (request, response, next) => {
  if (!('scope' in request.user.claims)) return next()
  const { status, headers, body } = problem(new AuthError('insufficient_scope', 'this is not for websites'), request)
  response.writeHead(status, headers).end(body)
}

app.get('/whoami', bearer(guard), whoami)
app.get('/staff', bearer(guard, 'staff'), whoami)
app.get('/orders', bearer(guard), own, whoami)

app.use((request, response) => {
  response.status(404).json({ status: 404, code: 'not_found' })
})

app.listen(PORT, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Orders: http://127.0.0.1:${PORT}/orders`)
})
