// A page that stays open follows a logout on another page.
const look = async () => (await (await fetch('state')).json()) || location.reload()
setInterval(() => look().catch(() => {}), 1000)
