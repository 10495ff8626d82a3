// The button that copies a login code, or an address to open on another device. Without scripts, the button is hidden.
const text = document.querySelector('.typed')
const button = document.querySelector('.copy')
if (button) button.hidden = false
button?.addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(text.textContent)
  } catch {
    getSelection().selectAllChildren(text) // if the command below fails, too, the user can still copy the selection
    if (!document.execCommand('copy')) return
  }
  button.textContent = button.dataset.copied
})
