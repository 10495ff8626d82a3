// Polls the state of the login, shows the state, and continues to the site after the user's decision.
import './copy.js'

const POLL_MS = 2000
// a phone, a tick, a cross, and an arrow in a circle
const SIGNS = { claimed: 'M7 2h10v20H7zm4 16h2', approved: 'M4 13l5 5L20 7', denied: 'M6 6l12 12M18 6L6 18', over: 'M20 12a8 8 0 1 1-2.5-5.8L20 8.5v-5m0 5h-5' }

const main = document.querySelector('main')
const status = document.querySelector('.status')
const left = document.querySelector('.left')
const sign = document.querySelector('.sign path')
const renew = document.querySelector('.renew')
// without `nextUrl`, the QR code is a device's, which continues by itself
const { stateUrl, nextUrl, texts } = JSON.parse(main.dataset.page)
const lastsMs = Number(main.dataset.expiresIn) * 1000
const endsAt = Date.now() + lastsMs

let isPolling = false

const isUndecided = (state) => state === 'waiting' || state === 'claimed'

function show(state) {
  main.dataset.state = state
  const seconds = Math.max(0, Math.ceil((endsAt - Date.now()) / 1000))
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
  left.textContent = isUndecided(state) ? texts.waiting.replace('{time}', time) : ''
  if (state !== 'waiting') status.textContent = texts[state]
  sign.setAttribute('d', SIGNS[state] ?? '')
  if (renew) {
    renew.className = state === 'claimed' ? 'renew link quiet' : 'renew button'
    renew.hidden = state === 'waiting' || state === 'approved'
  }
  main.style.setProperty('--left', (endsAt - Date.now()) / lastsMs)
}

async function poll() {
  if (isPolling) return
  isPolling = true
  try {
    const response = await fetch(stateUrl, { cache: 'no-store', credentials: 'same-origin', redirect: 'error' })
    if (response.status === 404) return show('over')
    if (!response.ok) return
    const { state } = await response.json()
    show(state)
    if (!isUndecided(state)) stop()
    if (nextUrl && (state === 'approved' || state === 'denied')) location.replace(nextUrl)
  } catch {
    // The network might be down for a moment. The next poll tries again.
  } finally {
    isPolling = false
  }
}

/** Update the countdown. A QR code that nobody has scanned expires without a response of the service. */
function tick() {
  const { state } = main.dataset
  if (!isUndecided(state)) return
  const isExpired = state === 'waiting' && Date.now() >= endsAt
  show(isExpired ? 'over' : state)
}

function stop() {
  clearInterval(polling)
  clearInterval(ticking)
}

// The field for the number is hidden (page.css) until the user opens WeChat, or leaves or returns to the page.
const showNumberField = () => (main.dataset.pressed = 'true')
document.querySelector('main > form')?.addEventListener('submit', showNumberField)
document.addEventListener('visibilitychange', showNumberField)

const polling = setInterval(poll, POLL_MS)
const ticking = setInterval(tick, 1000)
show('waiting')
addEventListener('pageshow', (event) => {
  // The code of a page that is restored from the back/forward cache may have expired long ago.
  if (event.persisted) poll()
})
