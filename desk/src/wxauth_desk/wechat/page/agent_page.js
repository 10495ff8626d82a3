// The page to which a browser is redirected when the person has decided: the agent on the desk gets the query.

import { showTexts } from './texts.js'

showTexts()
new BroadcastChannel('agent').postMessage(location.search)
history.replaceState(null, '', location.pathname)
