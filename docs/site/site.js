// What scrolls can be reached by keyboard, and the front page replays its login.
function reachable() {
  for (const box of document.querySelectorAll('.md-typeset pre > code, .md-typeset__scrollwrap'))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0
}

function replay() {
  const list = document.querySelector('.replay')
  if (!list) return
  const steps = [...list.children]
  const [play, next] = document.querySelectorAll('.replay-buttons button')
  let shown = steps.length
  let timer
  const show = (count) => {
    shown = count
    steps.forEach((step, place) => {
      step.classList.toggle('later', place >= shown)
      step.classList.toggle('now', place === shown - 1)
    })
    if (shown === steps.length) clearInterval(timer)
  }
  play.onclick = () => {
    clearInterval(timer)
    show(1)
    timer = setInterval(() => show(shown + 1), 1500)
  }
  next.onclick = () => {
    clearInterval(timer)
    show(shown === steps.length ? 1 : shown + 1)
  }
  document.querySelector('.replay-buttons').hidden = false
}

addEventListener('load', () => {
  replay()
  reachable()
  addEventListener('resize', reachable)
})
