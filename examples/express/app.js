// Orders: a service for users of wxauth.
import express from 'express'
import { BearerGuard } from 'wxauth-guard'
import { bearer } from 'wxauth-guard/express'

const guard = new BearerGuard({ issuer: process.env.WXAUTH_ISSUER ?? 'http://127.0.0.1:8000', audience: 'wxauth' })
const port = Number(process.env.PORT ?? 8003)
const app = express()

app.use(bearer(guard))

app.get('/orders', (request, response) => {
  response.json([{ item: 'oolong tea', for: request.user.openid }])
})

app.delete('/orders/:number', bearer(guard, 'clerk'), (request, response) => {
  response.status(204).end()
})

app.use((request, response) => {
  response.status(404).json({ status: 404, code: 'not_found' })
})

app.listen(port, '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`Orders: http://127.0.0.1:${port}/orders`)
})
