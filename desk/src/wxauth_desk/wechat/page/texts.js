// The texts of the desk. An element with `data-text` shows the text of that name. An element with `data-only` is shown
// only with wxauth ("wxauth"), or only with another back end ("alone").

import { h } from './dom.js'
import { isText, language, nextLanguage, text as textInFile } from './languages.js'

export * from './languages.js'

let isAlone = false

/** Return the text of this name. With a back end other than wxauth, a text `NAME.alone` takes precedence. */
export function text(name) {
  const nameAlone = `${name}.alone`
  return textInFile(isAlone && isText(nameAlone) ? nameAlone : name)
}

/** Return a text in pieces, so that no line ends inside a short name in quotes. Chinese could end lines anywhere. */
export const withWholeNames = (content) =>
  content.split(/(“[^”]{1,16}”)/).map((piece) => (piece.startsWith('“') ? h('span', { class: 'whole' }, piece) : piece))

/** Show only what works with a back end other than wxauth. */
export function beAlone() {
  isAlone = true
  for (const element of document.querySelectorAll('[data-only]')) element.hidden = element.dataset.only === 'wxauth'
}

/** Show all texts of the page in the current language, and the next language on the button that switches to it. */
export function showTexts() {
  document.documentElement.lang = language()
  document.title = isAlone ? text('title') : `wxauth · ${text('title')}`
  for (const element of document.querySelectorAll('[data-text]'))
    element.replaceChildren(...withWholeNames(text(element.dataset.text)))
  const button = document.getElementById('language')
  if (button) [button.lang, button.textContent] = nextLanguage()
}
