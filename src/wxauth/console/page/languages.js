// The language of a page. The service has the texts, by name, with the same {holes} in each language.

const CHOSEN = 'console/language'
let found

const load = async (language) => void (found = await (await fetch(`texts.json?${new URLSearchParams({ language })}`)).json())

/** Use the language in the URL, otherwise the one chosen here before, otherwise the one that the browser prefers. */
export const chooseLanguage = () =>
  load(new URLSearchParams(location.search).get('lang') || localStorage.getItem(CHOSEN) || navigator.language)
await chooseLanguage()

/** The language tag of the document. */
export const language = () => found.language

/** The tag of the next language, and its name in itself. */
export function nextLanguage() {
  const all = Object.entries(found.languages)
  return all[(all.findIndex(([tag]) => tag === found.language) + 1) % all.length]
}

/** A text, with each {name} replaced by its value. `one|many`: the first if its {n} is 1. */
export const text = (name, values) => phrase(name, values).join('')

/** The same in pieces, for values that are elements. */
export function phrase(name, values) {
  const [one, many = one] = (found.texts[name] ?? name).split('|')
  return (String(values?.n) === '1' ? one : many).split(/\{(\w+)\}/).map((piece, place) => (place % 2 ? (values?.[piece] ?? '') : piece))
}

/** The text in the current language, of those by language. */
export const either = (texts) => texts[language()]

/** What follows this beginning in the names of texts. */
export const namesOf = (beginning) =>
  Object.keys(found.texts).flatMap((name) => (name.startsWith(beginning) ? [name.slice(beginning.length)] : []))

/** Whether there is a text of this name. */
export const isText = (name) => Object.hasOwn(found.texts, name)

export async function toggleLanguage() {
  await load(nextLanguage()[0])
  localStorage.setItem(CHOSEN, language())
}
