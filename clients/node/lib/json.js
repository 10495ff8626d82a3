// A strict parser of JSON for the verifier. It refuses text that two parsers could read differently.
const { invalidToken } = require('./refusals.js')

const MAX_CONTAINERS = 64 // the limit of objects and lists in one part of a token; tokens of wxauth contain two
// Matches the strings, numbers and braces in valid JSON. A string that is a name is matched with its colon.
const PIECES = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|-?\d[\d.eE+-]*|[{}]/g
// Matches strings. A string without a closing quote extends to the end of the text. Otherwise, the search would try
// each quote of the text as the start of a string.
const STRINGS = /"[^"\\]*(?:\\.[^"\\]*)*"?/gs
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Returns the number of opening brackets in a text. */
const bracketsIn = (text) => text.split(/[{[]/).length - 1

/**
 * Returns the JSON object in these bytes of a token. Throws `invalid_token` for any other content, including repeated
 * names, and for too many objects and lists. Brackets in strings do not count.
 */
function jsonObject(bytes) {
  let value
  try {
    const text = utf8.decode(bytes)
    if (bracketsIn(text) > MAX_CONTAINERS && bracketsIn(text.replace(STRINGS, '')) > MAX_CONTAINERS) {
      throw invalidToken('a part of the token has too many objects and lists')
    }
    value = JSON.parse(text)
    checkPieces(text)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) throw invalidToken('a part of the token is not JSON')
    throw error
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidToken('a part of the token is not a JSON object')
  }
  return value
}

/**
 * Checks that no object in valid JSON has a name twice, that its strings are well-formed Unicode, and that its numbers
 * are finite as floats. Throws a SyntaxError otherwise.
 */
function checkPieces(text) {
  const openObjects = [] // the names of each object that has not ended yet
  for (const [piece, colon] of text.matchAll(PIECES)) {
    if (piece === '{') openObjects.push(new Set())
    else if (piece === '}') openObjects.pop()
    else if (colon) checkName(piece.slice(0, -colon.length), openObjects.at(-1))
    else if (piece.startsWith('"')) stringOf(piece)
    else if (!Number.isFinite(Number(piece))) throw new SyntaxError('a number is beyond any float')
  }
}

/** Adds a name to the names of its object. Throws a SyntaxError if the object already has the name. */
function checkName(piece, names) {
  const name = stringOf(piece)
  if (names.has(name)) throw new SyntaxError('a name occurs twice')
  names.add(name)
}

/** Returns the string in a piece of JSON. Throws a SyntaxError for a lone surrogate, which UTF-8 cannot encode. */
function stringOf(piece) {
  const string = JSON.parse(piece)
  if (!string.isWellFormed()) throw new SyntaxError('a string contains a lone surrogate')
  return string
}

module.exports = { jsonObject }
