// Searching: what is looked for stands in the URL's fragment.

import { queryOf } from './api.js'
import { h } from './dom.js'
import { field } from './parts.js'
import { text } from './texts.js'

const WIDE = matchMedia('(min-width: 761px)')

/** A form whose fields become the query of the URL. The first is what is mostly asked for; on a phone the others are folded. */
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
  // A wide screen has no summary to open it by.
  const unfold = () => details.isConnected ? (details.open ||= WIDE.matches) : WIDE.removeEventListener('change', unfold)
  WIDE.addEventListener('change', unfold)
  return details
}

/** A search field over a list that comes whole: a bar with it and what else may be done, and what of a page fits. */
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
