// Types of wxauth-scan.js.
import type { Auth } from './wxauth.js'

/** What the phone has seen: what `claim` sends. */
export interface Scan {
  /** What is in a mini-program code. */
  scene?: string
  /** What is in an ordinary code. */
  url?: string
  /** When that was scanned, in seconds. */
  scancode_time?: number
  /** What the person has typed, in place of a scan. */
  user_code?: string
  /** WeChat's number for how the page was opened. */
  entry_scene?: number
  /** `camera`, where `wx.scanCode({ onlyFromCamera: true })` has read it. */
  scanned?: 'camera'
}

/** What the person is to be asked. What is not known is null. */
export interface Claimed {
  id: string
  /** Who wants to log the person in: show the title and, where there is one, the origin. */
  client: { id: string; title: string; origin: string | null }
  /** Where the code is shown: show both, so that a person tells their own login from somebody else's. */
  browser: { device: string | null; ip: string | null } | null
  /** Whether phone and browser are in one network. Mostly not, for phones have mobile data: warn of nothing by it. */
  same_network: boolean | null
  /** Whether a code was typed: then warn, for anybody may have read it out. */
  typed: boolean
  created_at: string
  expires_at: string
}

/** What `onLoad(options)` of the page was opened with; null where there is no code. */
export declare function scanOf(
  options: { q?: string; scene?: string; scancode_time?: string | number } | undefined,
): Scan | null

/**
 * What `wx.scanCode({ onlyFromCamera: true })` has given; null where there is no code. Never give it the options of
 * `onLoad`: whoever links to the page writes these, and could say that a camera had seen the code.
 */
export declare function scanSeen(
  seen: { result?: string; path?: string; scanType?: string } | undefined,
): Scan | null

/**
 * Asks who wants to log the person in, after another login where the code is the console's and wants one. Rejects with an `AuthError`: `scan_over`, `scan_forwarded` (no camera has seen the
 * code), `scan_too_far`, `scan_taken`, `rate_limited`, and what `auth.request` rejects with.
 */
export declare function claim(auth: Pick<Auth, 'login' | 'request'>, scan: Scan | null): Promise<Claimed>

/** The person says yes. Rejects with an `AuthError`: `scan_over`. */
export declare function approve(auth: Pick<Auth, 'request'>, claimed: Pick<Claimed, 'id'>): Promise<void>

/** The person says no. Rejects with an `AuthError`: `scan_over`. */
export declare function deny(auth: Pick<Auth, 'request'>, claimed: Pick<Claimed, 'id'>): Promise<void>
