// The keyboard: `/` focuses the search field, the arrows select a row of a list, and Enter opens it.

const TYPED_IN = 'input, select, textarea, summary, pre, dialog'

/** Handle the keys of the page, except while the user types. */
export function listenToKeys() {
  addEventListener('keydown', (event) => {
    const { key, target } = event
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || target.closest(TYPED_IN)) return
    if (document.querySelector('dialog[open]')) return
    if (key === '/') goTo(document.querySelector('[role=search] input[type=search]'), event)
    else if (key === 'ArrowDown' || key === 'ArrowUp') goTo(nextRow(target, key === 'ArrowDown'), event)
  })
}

/** Return the row below or above the row with the focus; the first row if no row has it. */
function nextRow(target, isDown) {
  const row = target.closest('tr.opens')
  if (!row) return isDown ? document.querySelector('main tr.opens') : null
  return isDown ? row.nextElementSibling : row.previousElementSibling
}

function goTo(element, event) {
  if (!element) return
  event.preventDefault()
  element.focus()
  element.select?.()
}
