// An element with `data-text` shows the text of that name.

import { language, nextLanguage, text } from './languages.js'

export * from './languages.js'

export function showTexts() {
  document.documentElement.lang = language()
  document.title = `wxauth · ${text('title')}`
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = text(element.dataset.text)
  const button = document.getElementById('language')
  if (button) [button.lang, button.textContent] = nextLanguage()
}
