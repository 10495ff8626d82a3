// The texts of the console, and functions that write times and numbers in its language.

import { language, text } from './languages.js'

export * from './languages.js'

const DATE_AND_TIME = { dateStyle: 'medium', timeStyle: 'short' }

/** Return the first sentence of a text, and the others. */
export const sentences = (name) => text(name).split(/(?<=^[^.。]+[.。])\s*/)

/** Return the name of an action with the name of its object, such as `Remove: shop`. */
export const actOn = (act, name) => text('actOn', { act: text(act), name })

/** Return the reader's time zone, such as GMT+8. */
export const zone = () =>
  new Intl.DateTimeFormat(language(), { timeZoneName: 'shortOffset' })
    .formatToParts(new Date())
    .find(({ type }) => type === 'timeZoneName').value

/** Return an ISO 8601 time as a date and time in the reader's zone. */
export const dateAndTime = (iso) => new Intl.DateTimeFormat(language(), DATE_AND_TIME).format(new Date(iso))

/** Return the month and the day of an ISO 8601 date, such as Nov 29. */
export const monthAndDay = (date) =>
  new Intl.DateTimeFormat(language(), { month: 'short', day: 'numeric', timeZone: 'UTC' }).format(new Date(date))

/** Return a share from 0 to 1 as a percentage. */
export const percent = (share) => new Intl.NumberFormat(language(), { style: 'percent' }).format(share)

/** Return an estimated number with three significant digits, such as `≈ 201,000`. */
export const roughly = (value) =>
  `≈ ${new Intl.NumberFormat(language(), { maximumSignificantDigits: 3 }).format(value)}`

/** Return a number with the separators of the language, such as `201,034`. */
export const number = (value) => new Intl.NumberFormat(language()).format(value)
