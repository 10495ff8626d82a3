// This program receives wxauth's webhooks. It erases the orders of an erased user, and moves the orders of a merged
// user.
import express from 'express'
import { Webhook, WebhookVerificationError } from 'standardwebhooks'
import { Orders } from './orders.js'

const port = Number(process.env.PORT ?? 8006)
const webhook = new Webhook(process.env.WEBHOOK_SECRET)
const orders = await Orders.open(process.env.DATABASE_URL)
const app = express()

// The body stays as raw bytes, because the signature covers each of them.
app.post('/webhooks/wxauth', express.raw({ type: () => true }), async (request, response) => {
  await orders.follow(webhook.verify(request.body ?? '', request.headers).data)
  response.status(204).end() // sent after the event is stored, because wxauth does not send a received event again
})

app.use((error, request, response, next) => {
  if (error instanceof WebhookVerificationError) return response.status(401).end('not from wxauth, or too old')
  console.error(error.message)
  response.status(error.status ?? 500).end() // wxauth sends the event again
})

app.listen(port, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Webhooks: http://127.0.0.1:${port}/webhooks/wxauth`)
})
