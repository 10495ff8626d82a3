// The icons of the menu, buttons, lists and first steps, as paths in a square of 20, which CSS draws in the color of the
// text.

import { svg } from './dom.js'

const PATHS = {
  overview: 'M3 10.5 10 4l7 6.5M5 9v7.5h3.5V12h3v4.5H15V9',
  users: 'M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6M2 16.5c0-3 2.4-5 5.5-5s5.5 2 5.5 5M13 3.8a3 3 0 0 1 0 5.4M15 12c1.8.7 3 2.3 3 4.5',
  events: 'M2 10h3.5L8 4l4 12 2.5-6H18',
  signins: 'M11 3.5h5.5v13H11M3 10h9M8.5 6.5 12 10l-3.5 3.5',
  services: 'M3.5 3.5h5v5h-5zM11.5 3.5h5v5h-5zM3.5 11.5h5v5h-5zM11.5 14h5M14 11.5v5',
  webhooks: 'M10 7.3a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6M4.7 16.9a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6M15.3 16.9a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6M9 7.1l-3.1 5.5M11 7.1l3.1 5.5M7 14.6h6',
  apps: 'M6 2.5h8a1.5 1.5 0 0 1 1.5 1.5v12a1.5 1.5 0 0 1-1.5 1.5H6A1.5 1.5 0 0 1 4.5 16V4A1.5 1.5 0 0 1 6 2.5M9 14.5h2',
  keys: 'M7 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M10.5 10H18M15 10v3',
  menu: 'M3 5.5h14M3 10h14M3 14.5h14',
  wechat: 'M8 3.5c-3.3 0-6 2.1-6 4.8 0 1.5.8 2.8 2.2 3.7L3.7 14l2.2-1.1c.6.1 1 .2 1.5.2M18 12.2c0-2.3-2.3-4.2-5.2-4.2s-5.3 1.9-5.3 4.2 2.4 4.2 5.3 4.2c.6 0 1.2-.1 1.7-.2l1.9 1-.4-1.7c1.2-.8 2-2 2-3.3M13.9 8.1C13.5 5.5 11 3.5 8 3.5',
  site: 'M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14M3 10h14M10 3c2.2 2 3.2 4.3 3.2 7s-1 5-3.2 7c-2.2-2-3.2-4.3-3.2-7S7.8 5 10 3',
  service: 'M3.5 4h13v5h-13zM3.5 11h13v5h-13zM6.5 6.5h.01M6.5 13.5h.01',
  more: 'M5 10h.01M10 10h.01M15 10h.01',
  unfold: 'M6 8l4 4 4-4',
  done: 'M4 10.5l4 4 8-9',
  open: 'M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14',
}

/** Return an icon, which screen readers skip. */
export const icon = (name) =>
  svg('svg', { viewBox: '0 0 20 20', class: 'icon', 'aria-hidden': 'true' }, svg('path', { d: PATHS[name] }))
