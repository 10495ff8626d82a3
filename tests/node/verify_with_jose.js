// Returns 200 and the claims for an access token of your own apps, 403 for a token of a website or an agent, and
// otherwise 401. jose finds the keys by itself.
import { createServer } from 'node:http'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const [issuer, audience, cooldown = '10000'] = process.argv.slice(2)
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
// By default, jose accepts a withdrawn key for ten minutes. The cooldown is the time between two requests for unknown
// keys.
const limits = { cacheMaxAge: 300_000, cooldownDuration: Number(cooldown) }
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), limits)
const demands = {
  issuer,
  audience,
  algorithms: ['ES256'],
  typ: 'at+jwt',
  requiredClaims: ['sub', 'exp', 'iat', 'jti', 'client_id', 'sid', 'openid'],
}

const server = createServer(async (request, response) => {
  const token = request.headers.authorization?.replace(/^Bearer /i, '')
  try {
    const { payload } = await jwtVerify(token, keys, demands)
    if ('scope' in payload) response.writeHead(403, { 'WWW-Authenticate': 'Bearer error="insufficient_scope"' })
    response.end('scope' in payload ? 'insufficient_scope' : JSON.stringify(payload))
  } catch (error) {
    // A timeout is a JOSEError, too, but the token doesn't cause it.
    const isTokens = error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout)
    response.writeHead(isTokens ? 401 : 503).end(`${error}`)
  }
})
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`))
