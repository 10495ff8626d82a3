/* eslint-disable */
// Types of wxauth-site.js, for TypeScript 2.8 and newer.
import { Auth } from './wxauth.js'

/**
 * Completes the sign-in request of a website that this mini-program shows in a web-view. `query` is the object that the
 * page's `onLoad` receives. Its values can be encoded. Resolves to the URL to open in a `<web-view>`. At this URL, the
 * site logs the user in, or learns why it cannot. As proof that the user is present, this function calls `wx.login`. If
 * the site requires a new login, it logs in again, and repeats the request.
 *
 * Never call it on the page with which the mini-program was opened, because a card or a link could contain another
 * person's sign-in request.
 *
 * Rejects with an `AuthError`: `invalid_request` (an unknown site, or not its address), `wrong_person` (another user's
 * WeChat), `login_required` (a guest), `rate_limited`, `wx_login_failed`, one of WeChat's failures as in a login, or an
 * error of `auth.request`.
 */
export declare function authorize(
  auth: Pick<Auth, 'getToken' | 'login' | 'loginCode' | 'request' | 'user'>,
  query: Record<string, string | undefined>,
): Promise<string>
