// Reload this page after the user has logged out on another page.

async function reloadAfterLogout() {
  const response = await fetch('state')
  const isLoggedIn = await response.json()
  if (!isLoggedIn) location.reload()
}

const ignoreFailure = () => {} // the next request follows in a second
setInterval(() => reloadAfterLogout().catch(ignoreFailure), 1000)
