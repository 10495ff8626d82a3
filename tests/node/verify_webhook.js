// Verifies one webhook message by the official library: {"secret", "headers", "body"} on standard input.
import { text } from 'node:stream/consumers'
import { Webhook } from 'standardwebhooks'

const { secret, headers, body } = JSON.parse(await text(process.stdin))
try {
  console.log(JSON.stringify(new Webhook(secret).verify(body, headers)))
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
