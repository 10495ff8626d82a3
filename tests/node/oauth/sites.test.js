// Sites built with other libraries as their own guides show, with a running `wxauth-desk dev`. See
// docs/build/openid/libraries.md.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import express from 'express'
import expressOpenid from 'express-openid-connect'
import session from 'express-session'
import * as oauth from 'oauth4webapi'
import openidClient5 from 'openid-client-5'
import passport from 'passport'
import OpenIDConnectStrategy from 'passport-openidconnect'
import { Browser, browse, phone } from './person.js'

const { SERVICE_URL, SHOP_SECRET, LEGACY_SECRET } = process.env
const SITE_SECRET = 'known to the site alone'
const { auth, requiresAuth } = expressOpenid
const { custom, generators, Issuer } = openidClient5
custom.setHttpOptionsDefaults({ timeout: 120_000 })

/** The sites as Express apps. `me` returns the user who is logged in. */
const SITES = {
  'passport-openidconnect, which sends no PKCE': async (app, url) => {
    const strategy = new OpenIDConnectStrategy(
      {
        issuer: SERVICE_URL,
        authorizationURL: `${SERVICE_URL}/v1/authorize`,
        tokenURL: `${SERVICE_URL}/v1/token`,
        userInfoURL: `${SERVICE_URL}/v1/userinfo`,
        clientID: 'legacy',
        clientSecret: LEGACY_SECRET,
        callbackURL: `${url}/callback`,
        scope: 'profile',
      },
      (issuer, profile, done) => done(null, { id: profile.id }),
    )
    const logins = new passport.Passport()
    logins.use('wxauth', strategy)
    logins.serializeUser((user, done) => done(null, user))
    logins.deserializeUser((user, done) => done(null, user))
    app.use(session({ secret: SITE_SECRET, resave: false, saveUninitialized: false }), logins.session())
    app.get('/login', logins.authenticate('wxauth'))
    app.get('/callback', logins.authenticate('wxauth', { failureRedirect: '/failed', successRedirect: '/me' }))
    app.get('/me', (request, response) => response.json(request.user.id))
  },
  'express-openid-connect': async (app, url) => {
    app.use(
      auth({
        issuerBaseURL: SERVICE_URL,
        baseURL: url,
        clientID: 'shop',
        clientSecret: SHOP_SECRET,
        secret: SITE_SECRET,
        authRequired: false,
        authorizationParams: { response_type: 'code', scope: 'openid profile' },
      }),
    )
    app.get('/me', requiresAuth(), (request, response) => response.json(request.oidc.user.sub))
  },
  'openid-client 5': async (app, url) => {
    const issuer = await Issuer.discover(SERVICE_URL)
    const client = new issuer.Client({
      client_id: 'shop',
      client_secret: SHOP_SECRET,
      redirect_uris: [`${url}/callback`],
      response_types: ['code'],
    })
    app.use(session({ secret: SITE_SECRET, resave: false, saveUninitialized: false }))
    app.get('/login', (request, response) => {
      const [state, code_verifier] = [generators.state(), generators.codeVerifier()]
      Object.assign(request.session, { state, code_verifier })
      const code_challenge = generators.codeChallenge(code_verifier)
      const asked = { scope: 'openid profile', state, code_challenge, code_challenge_method: 'S256' }
      response.redirect(client.authorizationUrl(asked))
    })
    app.get('/callback', async (request, response) => {
      const checks = { state: request.session.state, code_verifier: request.session.code_verifier }
      const tokens = await client.callback(`${url}/callback`, client.callbackParams(request), checks)
      const info = await client.userinfo(tokens)
      request.session.user = info.sub
      response.redirect('/me')
    })
    app.get('/me', (request, response) => response.json(request.session.user))
  },
  oauth4webapi: async (app, url) => {
    const options = { [oauth.allowInsecureRequests]: true }
    const issuer = new URL(SERVICE_URL)
    const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options))
    const [client, secret] = [{ client_id: 'shop' }, oauth.ClientSecretBasic(SHOP_SECRET)]
    app.use(session({ secret: SITE_SECRET, resave: false, saveUninitialized: false }))
    app.get('/login', async (request, response) => {
      const [state, verifier] = [oauth.generateRandomState(), oauth.generateRandomCodeVerifier()]
      Object.assign(request.session, { state, verifier })
      const asked = new URL(server.authorization_endpoint)
      asked.search = new URLSearchParams({
        client_id: 'shop',
        redirect_uri: `${url}/callback`,
        response_type: 'code',
        scope: 'openid profile',
        code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        state,
      })
      response.redirect(asked.href)
    })
    app.get('/callback', async (request, response) => {
      const { state, verifier } = request.session
      const answer = oauth.validateAuthResponse(server, client, new URL(request.originalUrl, url), state)
      const redirectUri = `${url}/callback`
      const tokens = await oauth.processAuthorizationCodeResponse(
        server,
        client,
        await oauth.authorizationCodeGrantRequest(server, client, secret, answer, redirectUri, verifier, options),
        { requireIdToken: true },
      )
      request.session.user = oauth.getValidatedIdTokenClaims(tokens).sub
      response.redirect('/me')
    })
    app.get('/me', (request, response) => response.json(request.session.user))
  },
}

const servers = []
const urls = {}
before(async () => {
  for (const [name, make] of Object.entries(SITES)) {
    const app = express()
    const server = await new Promise((resolve) => {
      const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
    })
    servers.push(server)
    urls[name] = `http://127.0.0.1:${server.address().port}`
    await make(app, urls[name])
    app.use((error, request, response, next) => response.status(500).json(error.error ?? error.message))
  }
})
after(() =>
  servers.forEach((server) => {
    server.close()
    server.closeAllConnections()
  }),
)

/** Log this user in to a site in a browser that follows the site's own redirects, and return the last response. */
async function loggedIn(url, decide, verdict) {
  const visitor = new Browser((request) => fetch(request, { redirect: 'manual' }))
  const asked = await visitor.ask(`${url}/login`)
  let answer = await visitor.ask(await browse(asked.headers.get('location'), decide, verdict))
  for (let hops = 0; answer.status >= 300 && answer.status < 400 && hops < 5; hops++) {
    const to = new URL(answer.headers.get('location'), url)
    answer = await visitor.ask(to.pathname === '/' ? `${url}/me` : to)
  }
  return answer
}

for (const name of Object.keys(SITES)) {
  test(`${name} logs a person in, and nobody who refuses`, async () => {
    const { user, decide, sites } = await phone()
    const answer = await loggedIn(urls[name], decide)
    assert.deepEqual([answer.status, await answer.json()], [200, user.id])
    assert.equal((await sites()).length, 1)
    const refused = await loggedIn(urls[name], decide, 'deny')
    assert.ok(refused.status >= 400, `${refused.status}`)
    assert.equal((await sites()).length, 1)
  })
}
