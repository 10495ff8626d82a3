// The button that copies what the person types or opens elsewhere.
const typed = document.querySelector('.typed')
const copy = document.querySelector('.copy')
copy.hidden = false
copy.addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(typed.textContent)
  } catch {
    getSelection().selectAllChildren(typed) // not allowed here: the person copies what is selected
    if (!document.execCommand('copy')) return
  }
  copy.textContent = copy.dataset.copied
})
