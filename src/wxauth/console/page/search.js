// The search, in one row with the search field and a chip for each filter. The URL's fragment stores the search.

import { queryOf } from './api.js'
import { h } from './dom.js'
import { icon } from './icons.js'
import { nameOf } from './names.js'
import { actionButton, besideTitle, field, goTo, list, words } from './parts.js'
import { language, sentences, text } from './texts.js'

/**
 * Return a form whose fields become the URL's query. The first field is the most common one. Each other field is behind
 * a chip with its name, and with its value if it is in use. `unchanged` contains parameters that a search keeps as they
 * are.
 */
export function filters(fields, section, unchanged = {}) {
  const [first, ...rest] = fields
  const go = (values) => goTo(`#/${section}${queryOf({ ...unchanged, ...values })}`)
  const values = () => Object.fromEntries(fields.map(({ name, value }) => [name, value()]))
  const chips = rest.map((other) => chipOf(other, () => go({ ...values(), [other.name]: '' })))
  const isUsed = fields.some(({ value }) => value().length)
  const clearButton = actionButton('clearFilters', () => go({}), { kind: 'plain' })
  const slashKey = h('kbd', { 'aria-hidden': 'true' }, '/')
  const form = h(
    'form',
    { class: 'filters', role: 'search', onsubmit: () => go(values()) },
    h('div', { class: 'search' }, first.element, slashKey, h('button', {}, text('search'))),
    rest.length ? h('div', { class: 'choices' }, chips, isUsed && clearButton) : null,
  )
  first.element.querySelector('label').className = 'unseen'
  asPlaceholder(first)
  for (const [index, { control }] of rest.entries()) {
    const chip = chips[index]
    if (control instanceof HTMLSelectElement) control.addEventListener('change', () => go(values()))
    chip.addEventListener('toggle', () => {
      if (chip.open) fitAndFocus(chip, control)
    })
  }
  return form
}

/** Show the label of the search field as its placeholder, if it has none. Only screen readers read its hint. */
function asPlaceholder({ control, element }) {
  control.placeholder ||= element.querySelector('label').textContent
  const hint = element.querySelector('small')
  if (hint) hint.className = 'unseen'
}

/** Return a chip that opens the field of a filter. If the filter is in use, a button calls `clear`. */
function chipOf(filterField, clear) {
  const label = filterField.element.querySelector('label').textContent
  const shown = shownValue(filterField)
  const value = h('strong', {}, shown)
  nameOf(shown).then((name) => {
    if (name) value.textContent = name // the value is the id of a user with this name
  })
  const clearButton = shown ? actionButton('clear', clear, { kind: 'small' }) : null
  return h(
    'details',
    { class: 'filter', name: 'filter' },
    h('summary', { class: shown ? 'chip on' : 'chip' }, shown ? [label, value] : label),
    h(
      'div',
      { class: 'popover' },
      filterField.element,
      h('p', { class: 'acts' }, clearButton, h('button', { class: 'small' }, text('apply'))),
    ),
  )
}

/** Keep an opened filter within the window, and focus its field. */
function fitAndFocus(details, control) {
  const popover = details.querySelector('.popover')
  popover.classList.remove('to-end')
  popover.classList.toggle('to-end', popover.getBoundingClientRect().right > document.documentElement.clientWidth)
  control.focus()
}

/** Return the value of a filter as its chip shows it; empty if the filter is not in use. */
function shownValue({ control, value }) {
  const current = value()
  if (!current.length) return ''
  if (control instanceof HTMLSelectElement) return control.selectedOptions[0].textContent
  if (control.type === 'datetime-local') return control.value.replace('T', ' ')
  const [first, ...others] = [current].flat().flatMap(words)
  return others.length ? `${first} +${others.length}` : first
}

/**
 * Close a filter or menu when the user clicks outside it, or presses Escape in it. On a phone, the account's menu
 * stays open while the sections are open, because both belong to one menu there.
 */
addEventListener('pointerdown', ({ target }) => {
  const opened = document.querySelectorAll('details.filter[open]:not(:has(> #sections.open) .who)')
  for (const details of opened) details.open = details.contains(target)
})
addEventListener('keydown', ({ key, target }) => {
  if (key !== 'Escape') return
  const details = target.closest?.('details.filter[open]')
  if (!details) return
  details.open = false
  details.querySelector('summary').focus()
})

const GUIDES = {
  users: 'docs/build/mini-program.md',
  events: 'docs/build/events.md',
  signins: 'docs/build/mini-program.md',
  refused: 'docs/manage/console.md',
  services: 'docs/build/siblings.md',
  webhooks: 'docs/build/events.md',
  apps: 'docs/manage/doors.md',
  keys: 'docs/manage/keys.md',
}

/** Return the card for a list without items: what will be there, the list's buttons, and the guide. */
function nothingYet(name, buttons = []) {
  const path = language() === 'zh-CN' ? GUIDES[name].replace('/', '/zh/') : GUIDES[name]
  const guide = h('p', { class: 'quiet' }, text('guide'), ' ', h('code', {}, path))
  const acts = buttons.length ? h('p', { class: 'acts' }, buttons) : null
  const [title, more] = sentences(`empty_${name}`)
  const sign = icon(name === 'refused' ? 'signins' : name)
  return h('div', { class: 'card nothing-yet' }, sign, h('h2', {}, title), h('p', {}, more), acts, guide)
}

/**
 * Return the text for an empty list. If a search has found nothing, return the search, what else to try (the texts with
 * the names `tries`), and a link to all items.
 */
export function nothingFits(section, query, ...tries) {
  const isSearched = [...query].some(([name, value]) => value && name !== 'show')
  const isRefused = query.get('show') === 'refused'
  if (!isSearched) return nothingYet(isRefused ? 'refused' : section)
  const everything = isRefused ? `#/${section}?show=refused` : `#/${section}`
  return [
    h('p', { class: 'title' }, query.get('q') ? text('nothingFound', { q: query.get('q') }) : text('nothingFits')),
    tries.length ? h('ul', { class: 'tries' }, tries.map((name) => h('li', {}, text(name)))) : null,
    h('a', { href: everything }, text('showAll')),
  ].filter(Boolean)
}

/**
 * Show a list that is loaded completely and searched in the browser, below a search field. `buttons`, which act on the
 * list, stand beside the section's title. Return the function that reloads the list. `columns` contains the names of
 * the columns' texts. The other options are those of `list`.
 */
export function searchedList(main, section, query, buttons, { columns, ask, ...options }) {
  const term = query.get('q') ?? ''
  const fits = (item) => JSON.stringify({ ...item, logo: null }).toLowerCase().includes(term.toLowerCase())
  const searchField = field({
    name: 'q',
    label: text('searchFor'),
    type: 'search',
    value: term,
    placeholder: text(`search_${section}`),
  })
  const bar = filters([searchField], section)
  const acts = besideTitle(main, buttons)
  const place = h('div', {})
  let isEmpty = false
  const search = async () => {
    const page = await ask()
    isEmpty = !term && !page.items.length
    bar.hidden = isEmpty
    if (!isEmpty) acts.append(...buttons)
    return { ...page, items: page.items.filter(fits) }
  }
  const reload = () =>
    list({
      place,
      caption: text(section),
      columns: columns.map(text),
      nothing: () => (isEmpty ? nothingYet(section, buttons) : nothingFits(section, query)),
      ask: search,
      ...options,
    })
  main.append(bar, place)
  reload()
  return reload
}
