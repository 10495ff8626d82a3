// auth.config.js
import { ended } from './ended.js'

export default {
  providers: [
    {
      id: 'wxauth',
      name: '微信',
      type: 'oidc',
      issuer: process.env.AUTH_WXAUTH_ISSUER, // https://auth.example.com
      clientId: process.env.AUTH_WXAUTH_ID, // portal
      clientSecret: process.env.AUTH_WXAUTH_SECRET,
      authorization: { params: { scope: 'openid profile' } },
      checks: ['pkce', 'state', 'nonce'],
    },
  ],
  callbacks: {
    jwt({ token, account, profile }) {
      // `account` exists only during the login. The cookie can contain the id_token, because Auth.js encrypts it.
      if (account) return { ...token, sub: account.providerAccountId, sid: profile.sid, idToken: account.id_token }
      return ended.has(token.sid) ? null : token
    },
    session({ session, token }) {
      session.user.id = token.sub // the user's id in wxauth
      return session
    },
  },
  events: {
    async signOut({ token }) {
      if (!token?.idToken) return
      const hint = new URLSearchParams({ id_token_hint: token.idToken })
      await fetch(`${process.env.AUTH_WXAUTH_ISSUER}/v1/end_session?${hint}`)
    },
  },
}
