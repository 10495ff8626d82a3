// The forms of times and numbers in the language of the console, with its texts.

import { language, text } from './languages.js'

export * from './languages.js'

/** Return an action with its object. */
export const actOn = (act, name) => text('actOn', { act: text(act), name })

const DATE_AND_TIME = { dateStyle: 'medium', timeStyle: 'short' }

/** Return the reader's time zone, such as GMT+8. */
export const zone = () =>
  new Intl.DateTimeFormat(language(), { timeZoneName: 'shortOffset' })
    .formatToParts(new Date())
    .find(({ type }) => type === 'timeZoneName').value

/** Return a time in the reader's zone. */
export const dateAndTime = (iso) => new Intl.DateTimeFormat(language(), DATE_AND_TIME).format(new Date(iso))

export const percent = (share) => new Intl.NumberFormat(language(), { style: 'percent' }).format(share)

/** Return an estimate, such as `≈ 201,000`. */
export const roughly = (value) => `≈ ${new Intl.NumberFormat(language(), { maximumSignificantDigits: 3 }).format(value)}`

export const number = (value) => new Intl.NumberFormat(language()).format(value)
