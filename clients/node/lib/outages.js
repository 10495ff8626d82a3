// Whether wxauth is away, as a request for its public keys tells, which contains nothing of a client.
const { dns, timers } = require('./builtin.js')

const { setTimeout: sleep } = timers.promises // captured, because the tests of a service may replace it
const PAUSE = 1000 // milliseconds between two requests for the keys
const FRESH = 1000 // milliseconds for which a finding admits tokens without a question
const BUSY = 500 // milliseconds by which this process may be late before it can tell nothing about wxauth
const BEAT = 100 // milliseconds
const isBusy = 'this process is too busy to tell whether wxauth is away'

/** What this process has found out. All questions share one request for the keys. */
class Outages {
  #askForKeys
  #timeout
  #timer
  #begunAt = -Infinity
  #awayAt = -Infinity
  #isFinding = false
  #finding

  /** `askForKeys` resolves with '' if the keys are away, and otherwise with what has happened. */
  constructor(askForKeys, { timeout, timer }) {
    this.#askForKeys = askForKeys
    this.#timeout = timeout
    this.#timer = timer
  }

  /** Returns whether wxauth was away a moment ago, so that no question is necessary. */
  get isCertain() {
    return this.#timer() - this.#awayAt <= FRESH
  }

  /** Resolves with what is found out now or was a moment ago: why wxauth is not away, or '' if it is. */
  find() {
    const now = this.#timer()
    if (!this.#isFinding && now - this.#begunAt >= PAUSE) {
      this.#begunAt = now
      this.#isFinding = true
      this.#finding = this.#whyNotAway().then((whyNot) => {
        if (whyNot === '') this.#awayAt = this.#timer()
        this.#isFinding = false
        return whyNot
      })
    }
    return this.#finding
  }

  async #whyNotAway() {
    let answer
    let late = 0
    let measuredAt = this.#timer()
    const asking = this.#askForKeys().then((whyNot) => (answer = whyNot))
    try {
      for (let time = 0; time < this.#timeout && answer === undefined; time += BEAT) {
        await resolveName()
        await Promise.race([asking, sleep(BEAT)])
        const now = this.#timer()
        late += Math.max(now - measuredAt - BEAT, 0)
        measuredAt = now
      }
      await resolveName()
    } catch {
      return isBusy
    }
    return late + this.#timer() - measuredAt > BUSY ? isBusy : (answer ?? '')
  }
}

/**
 * Resolves a name that every machine knows. The same few threads resolve all names in turn, and without free file
 * descriptors even this name cannot be resolved.
 */
async function resolveName() {
  const isResolved = dns.promises.lookup('localhost').then(() => true)
  if (!(await Promise.race([isResolved, sleep(BUSY, false, { ref: false })]))) throw new Error(isBusy)
}

module.exports = { BUSY, Outages, isBusy }
