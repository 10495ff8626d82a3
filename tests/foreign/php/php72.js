// Prints what PHP 7.2 can't read or doesn't know in these files of PHP, and then ends with status 1.
import { readFileSync } from 'node:fs'
import parser from 'php-parser'

const NEWER_FUNCTIONS = new Set(
  (
    'array_key_first array_key_last hrtime is_countable fpm_get_status net_get_interfaces gc_status ' + // 7.3
    'mb_str_split password_algos get_mangled_object_vars openssl_x509_verify ' + // 7.4
    'str_contains str_starts_with str_ends_with get_debug_type get_resource_id fdiv preg_last_error_msg ' + // 8.0
    'array_is_list fsync fdatasync array_walk_keys ' + // 8.1
    'curl_upkeep openssl_cipher_key_length memory_reset_peak_usage ini_parse_quantity ' + // 8.2
    'json_validate mb_str_pad str_increment str_decrement stream_context_set_options posix_eaccess ' + // 8.3
    'array_find array_find_key array_any array_all mb_trim mb_ucfirst request_parse_body ' + // 8.4
    'array_first array_last get_error_handler'
  ).split(' '), // 8.5
)
const NEWER_CLASSES = new Set(['WeakMap', 'WeakReference', 'Stringable', 'ValueError', 'JsonException', 'UnhandledMatchError', 'PhpToken'])
const NEWER_CONSTANTS = new Set(['JSON_THROW_ON_ERROR', 'PASSWORD_ARGON2ID'])
const NEWER_TYPES = new Set(['mixed', 'static', 'never', 'false', 'null', 'true'])
const engine = new parser.Engine({ parser: { version: '7.2' }, ast: { withPositions: true } })
let isNewer = false

function report(file, node, what) {
  isNewer = true
  console.log(`${file}:${node?.loc?.start.line ?? '?'}: ${what}`)
}

function faultOf(node) {
  const name = node.name?.name ?? node.name
  switch (node.kind) {
    case 'call':
      if (NEWER_FUNCTIONS.has(node.what.name?.toLowerCase())) return node.what.name
      if (/^set(raw)?cookie$/i.test(node.what.name) && node.arguments[2]?.kind === 'array') return 'options of setcookie'
      break
    case 'name':
      if (NEWER_CONSTANTS.has(name) || NEWER_CLASSES.has(name)) return name
      break
    case 'uniontype':
    case 'intersectiontype':
      return 'a type of several types'
    case 'parameter':
      if (node.flags) return 'a property in a constructor'
      break
    case 'number':
      if (/_/.test(node.raw ?? node.value)) return 'a number with underscores'
      break
    case 'staticlookup':
      if (node.offset.name === 'class' && node.what.kind !== 'name' && !/reference$/.test(node.what.kind)) return '::class of an object'
      break
    case 'assign':
      if (node.left.kind === 'array' || node.left.kind === 'list') {
        if (node.left.items.some((item) => item?.byRef)) return 'a reference in a list'
      }
  }
  const type = node.type?.name ?? node.type?.raw
  if (NEWER_TYPES.has(type)) return `the type ${type}`
  return null
}

function visit(file, node) {
  if (Array.isArray(node)) return node.forEach((each) => visit(file, each))
  if (!node || typeof node !== 'object') return
  if (node.kind) {
    const fault = faultOf(node)
    if (fault) report(file, node, fault)
  }
  for (const [name, child] of Object.entries(node)) if (name !== 'loc' && name !== 'position') visit(file, child)
}

for (const file of process.argv.slice(2)) {
  try {
    visit(file, engine.parseCode(readFileSync(file, 'utf8'), file))
  } catch (error) {
    report(file, { loc: { start: { line: error.lineNumber } } }, error.message)
  }
}
process.exitCode = isNewer ? 1 : 0
