// The language of a page: texts by name, each `['English', '中文']` with the same {holes}.

let column
let texts = {}

/** Use these texts. */
export const useTexts = (named) => void (texts = named)

/** Use the language in the URL, otherwise the one chosen here before, otherwise the one that the browser prefers. */
export function chooseLanguage() {
  const wanted = new URLSearchParams(location.search).get('lang') || localStorage.getItem('console/language')
  column = /^zh/i.test(wanted || navigator.language) ? 1 : 0
}
chooseLanguage()

/** The language tag of the document. */
export const language = () => (column ? 'zh-CN' : 'en')

/** A text, with each {name} replaced by its value. `one|many`: the first if its {n} is 1. */
export const text = (name, values) => phrase(name, values).join('')

/** The same in pieces, for values that are elements. */
export function phrase(name, values) {
  const [one, many = one] = (texts[name]?.[column] ?? name).split('|')
  return (String(values?.n) === '1' ? one : many).split(/\{(\w+)\}/).map((piece, place) => (place % 2 ? (values?.[piece] ?? '') : piece))
}

/** The text of `{ en, zh }` in the current language. */
export const either = ({ en, zh }) => (column ? zh : en)

/** What follows this beginning in the names of texts. */
export const namesOf = (beginning) =>
  Object.keys(texts).flatMap((name) => (name.startsWith(beginning) ? [name.slice(beginning.length)] : []))

/** Whether there is a text of this name. */
export const isText = (name) => Object.hasOwn(texts, name)

export function toggleLanguage() {
  column = 1 - column
  localStorage.setItem('console/language', language())
}
