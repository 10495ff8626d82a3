// The page to which the browser is redirected after the user's decision. It passes the query to the agent on the desk.

import { showTexts } from './texts.js'

showTexts()
new BroadcastChannel('agent').postMessage(location.search)
history.replaceState(null, '', location.pathname) // the authorization code must not stay in the history
