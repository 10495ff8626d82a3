// A sign-up hook that lets only members of the shop sign up, and sets their number and roles.
//     SIGN_UP_HOOK_SECRET=$WXAUTH_SIGN_UP_HOOK_SECRET node app.mjs
import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

const members = { 'openid-of-alice': { external_id: '10023', roles: ['member'], attributes: { tier: 'gold' } } }
const key = Buffer.from(process.env.SIGN_UP_HOOK_SECRET.slice('whsec_'.length), 'base64')

function isFromWxauth({ 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature = '' }, body) {
  const expected = Buffer.from('v1,' + createHmac('sha256', key).update(`${id}.${at}.${body}`).digest('base64'))
  const given = Buffer.from(signature)
  return Math.abs(Date.now() / 1000 - at) < 300 && given.length === expected.length && timingSafeEqual(given, expected)
}

createServer(async (request, response) => {
  const body = (await request.toArray()).join('')
  if (!isFromWxauth(request.headers, body)) return response.writeHead(401).end()
  const { type, data } = JSON.parse(body)
  const member = type === 'test' ? {} : members[data.openid] // `wxauth check` sends a test
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(member ? { allow: true, ...member } : { allow: false, title: '请先到门店办理会员卡' }))
}).listen(process.env.PORT ?? 8090, '127.0.0.1', () => console.log('Listening'))
