import { auth, showError } from './auth.js'

App({
  /** The first login. Pages wait for it before they ask for anything. 各页面先等它完成，再发请求。 */
  started: null,

  onLaunch() {
    this.started = auth.login().catch(showError)
  },
})
