// The language of a page. The service returns the texts by name, with equal {placeholders} in each language.

const CHOSEN = 'console/language'
let loaded // the service's response: `language`, its `texts` by name, and the names of all `languages` by tag

async function load(language) {
  const response = await fetch(`texts.json?${new URLSearchParams({ language })}`)
  loaded = await response.json()
}

/** Load the texts in the language of the URL, otherwise of the last choice here, otherwise of the browser. */
export const chooseLanguage = () =>
  load(new URLSearchParams(location.search).get('lang') || localStorage.getItem(CHOSEN) || navigator.language)
await chooseLanguage()

/** Return the tag of the current language, such as `zh-CN`. */
export const language = () => loaded.language

/** Return the tag of the language after the current one, and its name in that language. */
export function nextLanguage() {
  const languages = Object.entries(loaded.languages)
  const current = languages.findIndex(([tag]) => tag === loaded.language)
  return languages[(current + 1) % languages.length]
}

/**
 * Return the text of this name, with each {placeholder} replaced by its value. A text can have two forms, separated by
 * `|`: the first is used if {n} is 1, and the second otherwise. A name without a text is returned itself.
 */
export const text = (name, values) => phrase(name, values).join('')

/** Like `text`, but return the text in pieces, so that values can also be elements. */
export function phrase(name, values = {}) {
  const [one, many = one] = (loaded.texts[name] ?? name).split('|')
  const form = String(values.n) === '1' ? one : many
  const pieces = form.split(/\{(\w+)\}/) // each second piece is the name of a placeholder
  return pieces.map((piece, index) => (index % 2 ? (values[piece] ?? '') : piece))
}

/** Return the text in the current language from an object with a text for each language tag. */
export const either = (texts) => texts[language()]

/**
 * Return the names of the texts that begin with a prefix, without the prefix. For `event_`, the list contains
 * `user.created` if there is a text `event_user.created`.
 */
export const namesOf = (prefix) =>
  Object.keys(loaded.texts)
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length))

/** Return whether there is a text with this name. */
export const isText = (name) => Object.hasOwn(loaded.texts, name)

/** Load the texts of the next language, and remember the language for the next visit. */
export async function toggleLanguage() {
  await load(nextLanguage()[0])
  localStorage.setItem(CHOSEN, language())
}
