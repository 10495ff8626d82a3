// The keyboard: `/` focuses the search field, and the up and down arrows select a row of a list. Enter opens the row,
// for which the row itself listens (`makeOpenable` in parts.js).

const USES_KEYS = 'input, select, textarea, summary, pre, dialog'

/** Handle the keys of the page, except in elements that use keys themselves, and while a dialog is open. */
export function listenToKeys() {
  addEventListener('keydown', (event) => {
    const { key, target } = event
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || target.closest(USES_KEYS)) return
    if (document.querySelector('dialog[open]')) return
    if (key === '/') focusInstead(document.querySelector('[role=search] input[type=search]'), event)
    else if (key === 'ArrowDown' || key === 'ArrowUp') focusInstead(nextRow(target, key === 'ArrowDown'), event)
  })
}

/**
 * Return the row below or above the row with the focus, if there is one. If no row has the focus, the row below
 * is the first row.
 */
function nextRow(target, isDown) {
  const rows = [...document.querySelectorAll('main tr.opens')]
  const index = rows.indexOf(target.closest('tr.opens'))
  if (index < 0) return isDown ? rows[0] : null
  return rows[index + (isDown ? 1 : -1)]
}

/** Focus an element, if there is one, in place of the browser's own reaction to the key. */
function focusInstead(element, event) {
  if (!element) return
  event.preventDefault()
  element.focus()
  element.select?.()
}
