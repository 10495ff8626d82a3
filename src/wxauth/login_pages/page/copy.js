// The button that copies the code or address that the user types or opens elsewhere.
const typed = document.querySelector('.typed')
const copy = document.querySelector('.copy')
copy.hidden = false
copy.addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(typed.textContent)
  } catch {
    getSelection().selectAllChildren(typed) // at least, the user can copy the selected text
    if (!document.execCommand('copy')) return
  }
  copy.textContent = copy.dataset.copied
})
