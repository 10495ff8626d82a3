// A page that stays open follows a logout elsewhere.
const look = async () => (await (await fetch('state')).json()) || location.reload()
setInterval(() => look().catch(() => {}), 1000)
