// Searching: the search is kept in the URL's fragment.

import { queryOf } from './api.js'
import { h } from './dom.js'
import { field } from './parts.js'
import { text } from './texts.js'

const WIDE = matchMedia('(min-width: 761px)')

/** A form whose fields become the URL's query. The first is the most common one; on a phone the others are folded. */
export function filters(fields, section, kind = 'primary') {
  const [first, ...others] = fields.map((each) => each.element)
  const isUsed = fields.slice(1).some((each) => each.value().length)
  const form = h(
    'form',
    { class: 'filters', role: 'search' },
    first,
    others.length ? folded(others, isUsed) : null,
    h('p', { class: 'acts' }, h('button', { class: kind }, text('search'))),
  )
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const target = `#/${section}${queryOf(Object.fromEntries(fields.map((each) => [each.name, each.value()])))}`
    if (location.hash === target) dispatchEvent(new HashChangeEvent('hashchange'))
    else location.hash = target
  })
  return form
}

function folded(elements, isUsed) {
  const details = h('details', { class: 'others', open: WIDE.matches || isUsed }, h('summary', {}, text('moreFilters')), h('div', {}, elements))
  // A wide screen shows no summary to open it with.
  const unfold = () => details.isConnected ? (details.open ||= WIDE.matches) : WIDE.removeEventListener('change', unfold)
  WIDE.addEventListener('change', unfold)
  return details
}

/** A bar with a search field and other actions, and the filter of the search, for a list that is loaded completely. */
export function searchWithin(section, query, ...others) {
  const wanted = query.get('q') ?? ''
  const fits = (item) => JSON.stringify(item).toLowerCase().includes(wanted.toLowerCase())
  return {
    bar: h(
      'div',
      { class: 'toolbar' },
      filters([field({ name: 'q', label: text('searchFor'), type: 'search', value: wanted })], section, ''),
      others,
    ),
    among: (page) => ({ ...page, items: page.items.filter(fits) }),
  }
}
