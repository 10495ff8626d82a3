/* eslint-disable */
// Types of wxauth-scan.js, for TypeScript 2.8 and newer.
import { Auth } from './wxauth.js'

/** The input of `claim`. The phone has scanned it, or the user has typed it. */
export interface Scan {
  /** The scene in a mini-program code. */
  scene?: string
  /** The URL in an ordinary QR code. */
  url?: string
  /** The time at which the ordinary QR code was scanned, in seconds since 1970. */
  scancode_time?: number
  /** The code that the user has typed instead of scanning. */
  user_code?: string
  /** WeChat's scene number, which says how the page was opened. */
  entry_scene?: number
  /** `camera`, if `wx.scanCode({ onlyFromCamera: true })` has read the code. */
  scanned?: 'camera'
}

/** The details to show before the user decides. Unknown values are null. */
export interface Claimed {
  id: string
  /**
   * The site that the user is about to log in to. Show its title and, if there are any, its logo (a `data:` URL for an
   * `<image>`) and its origin.
   *
   * `host` is the host of an unregistered client. Show it larger than the title, because the title is only what the
   * client calls itself. `local` means that the client is a program on this computer, which calls itself by the title.
   * Say so.
   */
  client: { id: string; title: string; logo?: string; origin: string | null; host: string | null; local: boolean }
  /**
   * The permissions that the client requests instead of a login, and the resource to which they apply. Show the title,
   * the host, and the title of each scope on its own line. It is null if the client only asks to log in.
   */
  resource: { title: string; host: string; scopes: { name: string; title: string }[] } | null
  /** The browser that shows the code. Show both values, so that users recognize a login that is not theirs. */
  browser: { device: string | null; ip: string | null } | null
  /**
   * The address from which a device has started the login. Show it if `browser.ip` is another address, because that one
   * is only what the device says. It is null if wxauth's own page shows the code.
   */
  requested_ip: string | null
  /** Whether phone and browser are in the same network. Most phones use mobile data, so do not warn if it is false. */
  same_network: boolean | null
  /** Whether the code was typed. If so, warn the user that another person might have read the code out to them. */
  typed: boolean
  /**
   * Whether a link in this phone's browser opened the page. If so, ask "did you press the button in your browser just
   * now?", and show the number that `approve` resolves to.
   */
  link: boolean
  /**
   * The number of seconds after the approval during which this browser can log in to other sites without the phone.
   * Tell the user about this, and show the time at which it ends. It is null if the browser cannot log in to other
   * sites.
   */
  sso_ttl: number | null
  created_at: string
  expires_at: string
}

/** Returns the scan in the `options` of the page's `onLoad`; null if they contain no code. */
export declare function scanOf(
  options: { q?: string; scene?: string; s?: string; cq?: string; scancode_time?: string | number } | undefined,
): Scan | null

/**
 * Returns the scan in the result of `wx.scanCode({ onlyFromCamera: true })`; null if it contains no code. Never pass
 * the options of `onLoad` to this function. They come from the link to the page, and would count as a code that a
 * camera has seen.
 */
export declare function scanSeen(
  seen: { result?: string; path?: string; scanType?: string } | undefined,
): Scan | null

/**
 * Claims the scan for this user, and resolves to the details to show. If the code is the console's and requires a fresh
 * login, it logs in again first. Rejects with an `AuthError`: `scan_over`, `scan_forwarded` (no camera has seen the
 * code), `scan_too_far`, `scan_taken`, `rate_limited`, or an error of `auth.request`.
 */
export declare function claim(auth: Pick<Auth, 'login' | 'request' | 'user'>, scan: Scan | null): Promise<Claimed>

/**
 * Approves the login. As proof that the user is present, this function calls `wx.login`. Rejects with an `AuthError`:
 * `scan_over`, `scan_too_far` or `login_too_old` (if the user has become staff since the claim, or is in another
 * network), `wrong_person` (another user's WeChat), `wx_login_failed`, one of WeChat's failures as in a login, or an
 * error of `auth.request`.
 *
 * If a link in this phone's browser opened the page, it resolves to a number. Show it, and ask the user to return to
 * the browser and type it there within `expiresIn` seconds.
 */
export declare function approve(
  auth: Pick<Auth, 'loginCode' | 'request' | 'user'>,
  claimed: Pick<Claimed, 'id'> & Partial<Pick<Claimed, 'link'>>,
): Promise<{ number: string; expiresIn: number } | undefined>

/** Denies the login. Rejects with an `AuthError`: `scan_over`, or an error of `auth.request`. */
export declare function deny(auth: Pick<Auth, 'request' | 'user'>, claimed: Pick<Claimed, 'id'>): Promise<void>
