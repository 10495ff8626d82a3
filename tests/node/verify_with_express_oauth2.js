// Returns 200 and the claims for an access token of the issuer, and otherwise the library's error.
// express-oauth2-jwt-bearer needs only the issuer and the audience, and finds keys and algorithms by itself.
import { createServer } from 'node:http'
import { auth } from 'express-oauth2-jwt-bearer'

const [issuerBaseURL, audience] = process.argv.slice(2)
const check = auth({ issuerBaseURL, audience })

const server = createServer(async (request, response) => {
  // The parts of an Express request that the library reads.
  const { headers, method, url } = request
  const get = (name) => headers[name.toLowerCase()]
  const asked = { headers, method, originalUrl: url, protocol: 'http', get, query: {}, body: {}, is: () => false }
  await check(asked, response, (error) => {
    if (error) response.writeHead(error.status ?? 500).end(`${error}`)
    else response.end(JSON.stringify(asked.auth.payload))
  })
})
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`))
