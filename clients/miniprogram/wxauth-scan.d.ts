/* eslint-disable */
// Types of wxauth-scan.js, for TypeScript 2.8 and newer.
import { Auth } from './wxauth.js'

/** What the phone has scanned or the person has typed, for `claim`. */
export interface Scan {
  /** The scene in a mini-program code. */
  scene?: string
  /** The URL in an ordinary code. */
  url?: string
  /** When the ordinary code was scanned, in seconds since 1970. */
  scancode_time?: number
  /** The code that the person has typed instead of scanning. */
  user_code?: string
  /** WeChat's scene number for how the page was opened. */
  entry_scene?: number
  /** `camera`, if `wx.scanCode({ onlyFromCamera: true })` has read the code. */
  scanned?: 'camera'
}

/** What to show before the person decides. Unknown values are null. */
export interface Claimed {
  id: string
  /**
   * The site that the person is about to log in to. Show its title and, if there are any, its logo (a `data:` URL, which
   * an `<image>` takes) and its origin.
   *
   * `host`: of a client that nobody has registered. Show it larger than the title, because that is only what the client
   * calls itself. `local`: the client is "a program on this computer, which calls itself" by the title: say so.
   */
  client: { id: string; title: string; logo?: string; origin: string | null; host: string | null; local: boolean }
  /**
   * What the client asks to do for the person, and where, instead of a login: show the title, the host, and the title
   * of each scope on a line of its own. Null: it only asks to log in.
   */
  resource: { title: string; host: string; scopes: { name: string; title: string }[] } | null
  /** The browser that shows the code. Show both values, so that a person recognizes somebody else's login. */
  browser: { device: string | null; ip: string | null } | null
  /** Whether phone and browser are in one network. Most phones use mobile data: do not warn if this is false. */
  same_network: boolean | null
  /** Whether the code was typed. If so, warn the person: somebody else may have read the code out to them. */
  typed: boolean
  /**
   * Whether a link in this phone's browser opened the page. If so, ask "did you press the button in your browser just
   * now?", and show the number to which `approve` resolves.
   */
  link: boolean
  /**
   * For how many seconds after the approval this browser can log in to other sites without the phone. Show the
   * person this, and until when. Null: not at all.
   */
  sso_ttl: number | null
  created_at: string
  expires_at: string
}

/** The scan in the `options` of the page's `onLoad`; null if there is no code in them. */
export declare function scanOf(
  options: { q?: string; scene?: string; s?: string; cq?: string; scancode_time?: string | number } | undefined,
): Scan | null

/**
 * The scan in the result of `wx.scanCode({ onlyFromCamera: true })`; null if there is no code in it. Never pass it the
 * options of `onLoad`: they are from the link to the page, and could claim that a camera had seen the code.
 */
export declare function scanSeen(
  seen: { result?: string; path?: string; scanType?: string } | undefined,
): Scan | null

/**
 * Claims the scan for this person, and resolves to the details to show them. If the code is the console's and requires
 * a fresh login, logs in again first. Rejects with an `AuthError`: `scan_over`, `scan_forwarded` (no camera has seen
 * the code), `scan_too_far`, `scan_taken`, `rate_limited`, or an error of `auth.request`. */
export declare function claim(auth: Pick<Auth, 'login' | 'request' | 'user'>, scan: Scan | null): Promise<Claimed>

/**
 * Approves the login, proved by a new `wx.login`, which this function makes. Rejects with an `AuthError`: `scan_over`,
 * `scan_too_far` or `login_too_old` (of somebody who has become staff since the claim, or of another network),
 * `wrong_person` (another person's WeChat), `wx_login_failed`, or one of WeChat's failures as at a login.
 *
 * If a link in this phone's browser opened the page, it resolves to a number: show it, and ask the person to return
 * to the browser and type it there within `expiresIn` seconds.
 */
export declare function approve(
  auth: Pick<Auth, 'loginCode' | 'request' | 'user'>,
  claimed: Pick<Claimed, 'id'> & Partial<Pick<Claimed, 'link'>>,
): Promise<{ number: string; expiresIn: number } | undefined>

/** Denies the login. Rejects with an `AuthError`: `scan_over`. */
export declare function deny(auth: Pick<Auth, 'request' | 'user'>, claimed: Pick<Claimed, 'id'>): Promise<void>
