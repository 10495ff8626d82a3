// Orders: a service that lets in whom wxauth knows.
import express from 'express'
import { auth, InsufficientScopeError, InvalidRequestError } from 'express-oauth2-jwt-bearer'

const issuer = process.env.WXAUTH_ISSUER ?? 'http://127.0.0.1:8000'
const port = Number(process.env.PORT ?? 8003)
const app = express()

const guard = auth({
  issuer,
  // Not `issuerBaseURL`: it would take the algorithm of id_tokens, which metadata names, for that of access tokens.
  jwksUri: `${issuer}/.well-known/jwks.json`,
  audience: 'wxauth',
  tokenSigningAlg: 'ES256',
  strict: true, // the rules of RFC 9068
  dpop: { enabled: false },
  validators: {
    // What wxauth's tokens have besides.
    openid: (openid) => typeof openid === 'string',
    sid: (sid) => typeof sid === 'string',
    roles: (roles = []) => Array.isArray(roles),
  },
})

const withRole = (role) => (request, response, next) => {
  const { roles = [] } = request.auth.payload
  next(roles.includes(role) ? undefined : new InsufficientScopeError())
}

app.use((request, response, next) => {
  // The guard would take it, but logs keep URLs: who has such a log would have the token.
  next('access_token' in request.query ? new InvalidRequestError('send the token in the header') : undefined)
})

app.use(guard)

app.get('/orders', (request, response) => {
  response.json([{ item: 'oolong tea', for: request.auth.payload.openid }])
})

app.delete('/orders/:number', withRole('admin'), (request, response) => {
  response.status(204).end()
})

app.use((request, response) => {
  response.status(404).json({ status: 404, code: 'not_found' })
})

const CODES = { 401: 'missing_token', 500: 'internal_error' }

app.use((error, request, response, next) => {
  const { status = 500, headers = {}, code } = error
  if (status === 500) console.error(error)
  response.status(status).set(headers).json({ status, code: code || (CODES[status] ?? 'invalid_request') })
})

app.listen(port, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Orders: http://127.0.0.1:${port}/orders`)
})
