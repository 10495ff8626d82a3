import { auth, showError } from './auth.js'

App({
  /** The first login. Pages wait until it is complete before they send requests. 首次登录，各页面等它完成后再发请求。 */
  started: null,

  onLaunch() {
    this.started = auth.login().catch(showError)
  },
})
