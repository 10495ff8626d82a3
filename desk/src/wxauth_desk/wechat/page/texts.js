// An element with `data-text` shows the text of that name.

import { language, nextLanguage, text as find } from './languages.js'

export * from './languages.js'

const OTHER = new Set(['title', 'lead', 'tabUse', 'webViewLead', 'noWires', 'elsewhere', 'told', 'serviceToWeChat', 'weChatToService'])
let isAlone = false

/** Return the text of this name. With a back end other than wxauth, some texts differ. */
export const text = (name) => find(isAlone && OTHER.has(name) ? `${name}.alone` : name)

/** Show only what works with a back end other than wxauth. */
export function beAlone() {
  isAlone = true
  for (const element of document.querySelectorAll('[data-only]')) element.hidden = element.dataset.only === 'wxauth'
}

export function showTexts() {
  document.documentElement.lang = language()
  document.title = isAlone ? text('title') : `wxauth · ${text('title')}`
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = text(element.dataset.text)
  const button = document.getElementById('language')
  if (button) [button.lang, button.textContent] = nextLanguage()
}
