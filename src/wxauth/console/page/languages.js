// The language of a page. The service returns the texts by name, with equal {placeholders} in each language.

const CHOSEN = 'console/language'
let found // the response of the service, with the texts and the languages

const load = async (language) => void (found = await (await fetch(`texts.json?${new URLSearchParams({ language })}`)).json())

/** Use the language in the URL, otherwise the last one chosen here, otherwise the one that the browser prefers. */
export const chooseLanguage = () =>
  load(new URLSearchParams(location.search).get('lang') || localStorage.getItem(CHOSEN) || navigator.language)
await chooseLanguage()

/** Return the language tag of the document. */
export const language = () => found.language

/** Return the tag of the next language, and its name in that language. */
export function nextLanguage() {
  const all = Object.entries(found.languages)
  return all[(all.findIndex(([tag]) => tag === found.language) + 1) % all.length]
}

/** Return a text, with each {name} replaced by its value. Of `one|many`, `one` is used if its {n} is 1. */
export const text = (name, values) => phrase(name, values).join('')

/** Return a text in pieces, for values that are elements. */
export function phrase(name, values) {
  const [one, many = one] = (found.texts[name] ?? name).split('|')
  return (String(values?.n) === '1' ? one : many).split(/\{(\w+)\}/).map((piece, place) => (place % 2 ? (values?.[piece] ?? '') : piece))
}

/** Return the text in the current language, from texts by language. */
export const either = (texts) => texts[language()]

/** Return the rests of the texts' names that begin so. For `event_`, `event_user.created` gives `user.created`. */
export const namesOf = (beginning) =>
  Object.keys(found.texts).flatMap((name) => (name.startsWith(beginning) ? [name.slice(beginning.length)] : []))

/** Return whether there is a text with this name. */
export const isText = (name) => Object.hasOwn(found.texts, name)

/** Use the next language, here and at the next visit. */
export async function toggleLanguage() {
  await load(nextLanguage()[0])
  localStorage.setItem(CHOSEN, language())
}
