// The search, in one row with the search field and a chip for each filter. The URL's fragment stores the search.

import { queryOf } from './api.js'
import { h } from './dom.js'
import { nameOf } from './names.js'
import { act, field, goTo, list, words } from './parts.js'
import { text } from './texts.js'

/**
 * Return a form whose fields become the URL's query. The first field is the most common one. Each other field is behind
 * a chip with its name, and with its value if it is in use. `kept` are parameters that a search does not change, and
 * `others` further elements of the row.
 */
export function filters(fields, section, { kept = {}, others = [] } = {}) {
  const [first, ...rest] = fields
  const go = (values) => goTo(`#/${section}${queryOf({ ...kept, ...values })}`)
  const values = () => Object.fromEntries(fields.map((each) => [each.name, each.value()]))
  const chips = rest.map((each) => filter(each, () => go({ ...values(), [each.name]: '' })))
  const isUsed = fields.some((each) => each.value().length)
  const form = h(
    'form',
    { class: 'filters', role: 'search', onsubmit: () => go(values()) },
    h('div', { class: 'search' }, first.element, h('kbd', { 'aria-hidden': 'true' }, '/'), h('button', {}, text('search'))),
    chips,
    isUsed && rest.length ? act('clearFilters', () => go({}), { kind: 'plain' }) : null,
    others.length ? h('div', { class: 'others' }, others) : null,
  )
  first.element.querySelector('label').className = 'unseen'
  asPlaceholder(first)
  for (const [place, each] of rest.entries()) {
    if (each.control instanceof HTMLSelectElement) each.control.addEventListener('change', () => go(values()))
    chips[place].addEventListener('toggle', () => chips[place].open && fitAndFocus(chips[place], each.control))
  }
  return form
}

/**
 * Show the example of the search field, or its label, as its placeholder. Screen readers read label and hint as before.
 */
function asPlaceholder({ control, element }) {
  control.placeholder ||= element.querySelector('label').textContent
  const hint = element.querySelector('small')
  if (hint) hint.className = 'unseen'
}

/** Return a chip that opens a filter, with a button that calls `clear` if the filter is in use. */
function filter(made, clear) {
  const label = made.element.querySelector('label').textContent
  const shown = shownValue(made)
  const value = h('strong', {}, shown)
  nameOf(shown).then((name) => name && (value.textContent = name))
  const details = h(
    'details',
    { class: 'filter', name: 'filter' },
    h('summary', { class: shown ? 'chip on' : 'chip' }, shown ? [label, value] : label),
    h(
      'div',
      { class: 'popover' },
      made.element,
      h('p', { class: 'acts' }, shown ? act('clear', clear, { kind: 'small' }) : null, h('button', { class: 'small' }, text('apply'))),
    ),
  )
  return details
}

/** Keep an opened filter within the window, and focus its field. */
function fitAndFocus(details, control) {
  const popover = details.querySelector('.popover')
  popover.classList.remove('to-end')
  popover.classList.toggle('to-end', popover.getBoundingClientRect().right > document.documentElement.clientWidth)
  control.focus()
}

/** Return the value of a filter as its chip shows it. */
function shownValue({ control, value }) {
  const given = value()
  if (!given.length) return ''
  if (control instanceof HTMLSelectElement) return control.selectedOptions[0].textContent
  if (control.type === 'datetime-local') return control.value.replace('T', ' ')
  const all = [given].flat().flatMap(words)
  return all.length > 1 ? `${all[0]} +${all.length - 1}` : all[0]
}

/**
 * Close a filter or menu when the user presses outside it, or presses Escape in it. On a phone, the account's menu stays
 * open while the sections are open, because both belong to one menu there.
 */
addEventListener('pointerdown', ({ target }) => {
  for (const open of document.querySelectorAll('details.filter[open]:not(:has(> #sections.open) .who)')) open.open = open.contains(target)
})
addEventListener('keydown', ({ key, target }) => {
  const open = key === 'Escape' && target.closest?.('details.filter[open]')
  if (!open) return
  open.open = false
  open.querySelector('summary').focus()
})

/** Return the text for an empty list or, if nothing matches, the search, what else to try, and a link to all items. */
export function nothingFits(section, query, ...tries) {
  const isSearched = [...query].some(([name, value]) => value && name !== 'show')
  const isRefused = query.get('show') === 'refused'
  if (!isSearched) return h('p', {}, text(`empty_${isRefused ? 'refused' : section}`))
  const all = isRefused ? `#/${section}?show=refused` : `#/${section}`
  return [
    h('p', { class: 'title' }, query.get('q') ? text('nothingFound', { q: query.get('q') }) : text('nothingFits')),
    tries.length ? h('ul', { class: 'tries' }, tries.map((each) => h('li', {}, text(each)))) : null,
    h('a', { href: all }, text('showAll')),
  ].filter(Boolean)
}

/**
 * Return a list that is loaded completely, below a search field and `others`, which act on it. The result reloads it.
 * `how` is as for `list`, with the names of the columns' texts.
 */
export function searchedList(main, section, query, others, { columns, ask, ...how }) {
  const wanted = query.get('q') ?? ''
  const fits = (item) => JSON.stringify({ ...item, logo: null }).toLowerCase().includes(wanted.toLowerCase())
  const bar = filters([field({ name: 'q', label: text('searchFor'), type: 'search', value: wanted, placeholder: text(`search_${section}`) })], section, { others })
  const place = h('div', {})
  const among = (page) => {
    bar.querySelector('.search').hidden = !wanted && !page.items.length
    return { ...page, items: page.items.filter(fits) }
  }
  const reload = () =>
    list({
      place,
      caption: text(section),
      columns: columns.map(text),
      nothing: () => nothingFits(section, query),
      ask: async () => among(await ask()),
      ...how,
    })
  main.append(bar, place)
  reload()
  return reload
}
