// Events as files. A table program takes a cell that begins with one of these for a formula, which a stranger may have
// written into a name.

const COLUMNS = ['id', 'type', 'at', 'actor', 'user_id', 'app_id', 'ip', 'data']
const FORMULA = /^[=+\-@\t\r]/

/** Comma-separated (RFC 4180), with the columns' names first and a byte order mark, by which Excel knows UTF-8. */
export function csv(events) {
  const rows = events.map((event) => COLUMNS.map((name) => (name === 'data' ? JSON.stringify(event.data) : event[name])))
  return `\uFEFF${[COLUMNS, ...rows].map((row) => row.map(cell).join(',')).join('\r\n')}\r\n`
}

/** One JSON document a line. */
export const jsonLines = (events) => events.map((event) => `${JSON.stringify(event)}\n`).join('')

/** A cell that does nothing. */
export function cell(value) {
  const plain = String(value ?? '')
  const harmless = FORMULA.test(plain) ? `'${plain}` : plain
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}
