// A shop that sells a membership by WeChat's virtual payment. wxauth signs payments, and forwards WeChat's notices.
import { createDecipheriv, createHash, createHmac, randomBytes } from 'node:crypto'
import express from 'express'
import { BearerGuard } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'

const { WXAUTH_ISSUER: issuer = 'http://127.0.0.1:8000', CLIENT_ID, CLIENT_SECRET, APP_KEY, PUSH_TOKEN } = process.env
const { PUSH_AES_KEY, PAY_ENV = 0, PORT = 8007 } = process.env
const PRICE = 1800 // fen
const GOODS = { offerId: '1450000000', productId: 'vip_month', goodsPrice: PRICE, buyQuantity: 1, currencyType: 'CNY' }

const guard = bearer(new BearerGuard({ issuer, audience: 'wxauth' }))
const orders = new Map() // in production, use a database
const shop = express()

shop.post('/orders', guard, async ({ user }, response) => {
  const number = randomBytes(8).toString('hex')
  const signData = JSON.stringify({ ...GOODS, env: Number(PAY_ENV), outTradeNo: number, attach: user.id })
  const answer = await fetch(`${issuer}/v1/apps/${user.appId}/signatures`, {
    method: 'POST',
    headers: {
      Authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${CLIENT_SECRET}`).toString('base64')}`,
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({ openid: user.openid, data: signData }),
  })
  const body = await answer.json()
  // If the error is session_key_expired, the mini-program logs in and orders again.
  if (!answer.ok) return response.status(answer.status).json(body)
  orders.set(number, { user: user.id, openid: user.openid, isPaid: false, isRefunded: false })
  const paySig = createHmac('sha256', APP_KEY).update(`requestVirtualPayment&${signData}`).digest('hex')
  response.json({ number, mode: 'short_series_goods', signData, paySig, signature: body.signature })
})

shop.get('/orders/:number', guard, ({ user, params }, response) => {
  const order = orders.get(params.number)
  if (order?.user !== user.id) return response.status(404).end()
  response.json({ is_paid: order.isPaid, is_refunded: order.isRefunded })
})

/** Returns whether WeChat, or wxauth on behalf of WeChat, has signed a query and these parts of a message. */
const isSigned = (given, { timestamp, nonce }, ...parts) =>
  createHash('sha1').update([PUSH_TOKEN, timestamp, nonce, ...parts].sort().join('')).digest('hex') === given

// WeChat calls this route when you save the URL, and so does `wxauth check`.
shop.get('/wechat', ({ query }, response) =>
  isSigned(query.signature, query) ? response.type('text').send(query.echostr) : response.status(403).end(),
)

shop.post('/wechat', express.json({ type: () => true }), ({ query, body }, response) => {
  const isGood = PUSH_AES_KEY ? isSigned(query.msg_signature, query, body.Encrypt) : isSigned(query.signature, query)
  if (!isGood) return response.status(403).end()
  const message = PUSH_AES_KEY ? decrypted(body.Encrypt) : body
  const isRefund = message.Event === 'xpay_refund_notify'
  if (!isRefund && message.Event !== 'xpay_goods_deliver_notify') return response.send('success')
  const order = orders.get(isRefund ? message.MchOrderId : message.OutTradeNo)
  const fen = isRefund ? message.RefundFee : message.GoodsInfo.ActualPrice
  if (order?.openid !== message.OpenId || fen !== PRICE) return response.json({ ErrCode: 1, ErrMsg: 'no such order' })
  if (isRefund && message.RetCode === 0) order.isRefunded = true
  order.isPaid = !order.isRefunded // WeChat may repeat the notice of a payment, even after the refund
  // The response is sent only after the notice is stored, because WeChat does not send the notice again.
  response.json({ ErrCode: 0, ErrMsg: 'success' })
})

/**
 * Returns the decrypted message. The plaintext consists of 16 random bytes, 4 bytes with the length, the message and
 * the AppID.
 */
function decrypted(encrypted) {
  const key = Buffer.from(`${PUSH_AES_KEY}=`, 'base64')
  const decipher = createDecipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false)
  const plain = Buffer.concat([decipher.update(encrypted, 'base64'), decipher.final()])
  return JSON.parse(plain.subarray(20, 20 + plain.readUInt32BE(16)))
}

shop.listen(PORT, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Shop: http://127.0.0.1:${PORT}/orders`)
})
