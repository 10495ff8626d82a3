// Polls the scan's state, shows it, and continues to the site after the decision.
import './copy.js'

const main = document.querySelector('main')
const status = document.querySelector('.status')
const renew = document.querySelector('.renew')
const { stateUrl, nextUrl, texts } = JSON.parse(main.dataset.page)
const pollMs = 2000
const countdownSeconds = 30 // the page counts down the last seconds
const endsAt = Date.now() + Number(main.dataset.expiresIn) * 1000

let isPolling = false

function show(state) {
  main.dataset.state = state
  const left = Math.max(0, Math.ceil((endsAt - Date.now()) / 1000))
  const isEnding = left <= countdownSeconds && (state === 'waiting' || state === 'claimed')
  status.textContent = texts[state] + (isEnding ? texts.left.replace('{seconds}', left) : '')
  renew.hidden = state !== 'over'
}

async function poll() {
  if (isPolling) return
  isPolling = true
  try {
    const answer = await fetch(stateUrl, { cache: 'no-store', credentials: 'same-origin', redirect: 'error' })
    if (answer.status === 404) return show('over')
    if (!answer.ok) return
    const { state } = await answer.json()
    show(state)
    if (state === 'approved' || state === 'denied') {
      stop()
      location.replace(nextUrl)
    }
    if (state === 'over') stop()
  } catch {
    // The network might be down for a moment. The next poll tries again.
  } finally {
    isPolling = false
  }
}

function tick() {
  const { state } = main.dataset
  if (state !== 'waiting' && state !== 'claimed') return
  if (Date.now() >= endsAt && state === 'waiting') show('over')
  else show(state)
}

function stop() {
  clearInterval(polling)
  clearInterval(ticking)
}

// Show the field for the number only to a user who returns from WeChat.
const pressed = () => (main.dataset.pressed = 'true')
document.querySelector('main > form')?.addEventListener('submit', pressed)
document.addEventListener('visibilitychange', pressed)

const polling = setInterval(poll, pollMs)
const ticking = setInterval(tick, 1000)
show('waiting')
// A page restored from the back/forward cache polls at once, because its code may have expired long ago.
addEventListener('pageshow', (event) => event.persisted && poll())
