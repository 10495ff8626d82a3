// The forms in which events are exported.

const COLUMNS = ['id', 'type', 'at', 'actor', 'user_id', 'app_id', 'ip', 'data']
// Spreadsheet programs treat a cell that begins with one of these characters as a formula. An attacker could have put
// such a formula into a name.
const FORMULA = /^[=+\-@\t\r]/

/**
 * Return comma-separated values (RFC 4180) with a header line. With the byte order mark, Excel reads the file as UTF-8.
 */
export function csv(events) {
  const valueOf = (event, name) => (name === 'data' ? JSON.stringify(event.data) : event[name])
  const rows = events.map((event) => COLUMNS.map((name) => valueOf(event, name)))
  const lines = [COLUMNS, ...rows].map((row) => `${row.map(cell).join(',')}\r\n`)
  return `\uFEFF${lines.join('')}`
}

/** Return each event as JSON on a line of its own. */
export const jsonLines = (events) => events.map((event) => `${JSON.stringify(event)}\n`).join('')

/** Return a value as a cell that no program treats as a formula, in quotes if necessary. */
export function cell(value) {
  const plain = String(value ?? '')
  const harmless = FORMULA.test(plain) ? `'${plain}` : plain
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}
