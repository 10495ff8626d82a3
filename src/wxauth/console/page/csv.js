// Events as files.

const COLUMNS = ['id', 'type', 'at', 'actor', 'user_id', 'app_id', 'ip', 'data']
// Spreadsheet programs treat a cell that begins so as a formula, which an attacker could have put into a name.
const FORMULA = /^[=+\-@\t\r]/

/**
 * Return comma-separated values (RFC 4180) with a header line. With the byte order mark, Excel reads the file as UTF-8.
 */
export function csv(events) {
  const rows = events.map((event) => COLUMNS.map((name) => (name === 'data' ? JSON.stringify(event.data) : event[name])))
  return `\uFEFF${[COLUMNS, ...rows].map((row) => row.map(cell).join(',')).join('\r\n')}\r\n`
}

/** Return one JSON document per line. */
export const jsonLines = (events) => events.map((event) => `${JSON.stringify(event)}\n`).join('')

/** Return a value as a cell, quoted if necessary, which no program executes as a formula. */
export function cell(value) {
  const plain = String(value ?? '')
  const harmless = FORMULA.test(plain) ? `'${plain}` : plain
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}
