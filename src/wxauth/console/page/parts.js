// The parts that sections share: lists, dialogs, forms, and the display of loading and failures.

import { h } from './dom.js'
import { actOn, dateAndTime, number, text } from './texts.js'

/** The number of an id's last characters that distinguish users. */
export const SHORT_ID = 8
const LONGEST_LINE = 45 // the number of characters of a code that stays on one line
const SKELETON_LINES = 6
const PRESSED_ITSELF = 'a, button, input, select, textarea, summary, label, pre, [popover]'
const SHOWN_CHOICES = 12 // more choices are folded
const NOTHING = '–'

/** Show in `place` that `ask` is loading, then the result of `render` for its response, or the failure. */
export async function load(place, ask, render) {
  const turn = (place.turn = (place.turn ?? 0) + 1)
  place.setAttribute('aria-busy', 'true')
  place.replaceChildren(skeleton())
  try {
    const answer = await ask()
    if (place.turn !== turn) return // a newer call was faster
    place.replaceChildren(...[render(answer)].flat(2).filter(Boolean))
  } catch (failure) {
    if (place.turn !== turn) return
    const again = isTransient(failure) && h('button', { type: 'button', onclick: () => load(place, ask, render) }, text('tryAgain'))
    place.replaceChildren(h('div', { class: 'state' }, failed(failure), again))
  } finally {
    if (place.turn === turn) place.setAttribute('aria-busy', 'false')
  }
}

/** Return a placeholder, in grey, for content that is loading. */
const skeleton = () =>
  h(
    'div',
    { class: 'skeleton' },
    h('p', { class: 'unseen', role: 'status' }, text('loading')),
    Array.from({ length: SKELETON_LINES }, () => h('div', { 'aria-hidden': 'true' })),
  )

/**
 * Return whether trying again can help, because there was no response, a fault of the service, or too many requests.
 */
const isTransient = ({ status }) => !status || status === 429 || status >= 500

/**
 * Return a failure for the reader, with one sentence, the fault of each field, and the code to look up if action is
 * needed.
 */
export function failed(failure) {
  const errcode = failure.wechatErrcode ? ` · errcode ${failure.wechatErrcode}` : ''
  return h(
    'div',
    { class: 'failure', role: 'alert' },
    h('p', {}, explanationOf(failure)),
    failure.status >= 500 || errcode ? h('code', {}, `${failure.code}${errcode}`) : null,
  )
}

function explanationOf({ code, detail, errors, title }) {
  if (code === 'login_too_old') return text('tooOld')
  if (code === 'offline') return text('offline')
  if (detail === 'there is nothing at this path') return text('notThere')
  const faults = (errors ?? []).map(({ field, message }) => `${field}: ${message}`).join('; ')
  return faults || detail || title || text('failed')
}

/**
 * Return a table. Each row is a list of cells. If the list has the member `open`, a press opens the row. On a narrow
 * screen, a row is a card, and each cell shows its column's name. `nothing` is shown if there are no rows.
 */
export function table(caption, columns, rows, nothing = h('p', {}, text('empty'))) {
  // The roles are explicit, because browsers drop them from a table whose rows are displayed as blocks.
  const headers = columns.map((name) => h('th', { scope: 'col', role: 'columnheader' }, name))
  const row = (cells) => opening(h('tr', { role: 'row' }, cells.map((cell, place) => cellOf(cell, columns[place]))), cells.open)
  const body = h('tbody', { role: 'rowgroup' }, rows.map(row))
  const element = h(
    'table',
    { role: 'table' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, headers)),
    body,
  )
  const empty = h('div', { class: 'state' }, nothing)
  const scroller = h('div', { class: 'scroller', tabIndex: 0, role: 'region', 'aria-label': caption }, element)
  const add = (method) => (more) => {
    body[method](...more.map(row))
    scroller.hidden = !body.children.length
    empty.hidden = !scroller.hidden
  }
  add('append')([])
  return { elements: [scroller, empty], append: add('append'), prepend: add('prepend'), size: () => body.children.length }
}

/** Make a row open by Enter, and by a press anywhere except on its links and buttons. */
function opening(row, open) {
  if (!open) return row
  row.className = 'opens'
  row.tabIndex = -1 // reached with the arrow keys, see `keyboard.js`
  row.addEventListener('click', ({ target }) => target.closest(PRESSED_ITSELF) || getSelection().toString() || open(row))
  row.addEventListener('keydown', ({ key, target }) => key === 'Enter' && target === row && open(row))
  return row
}

function cellOf(cell, column) {
  const shown = [cell ?? NOTHING].flat()
  if (!shown.length) shown.push(NOTHING)
  const kind = shown.every((each) => each === NOTHING) ? 'nothing' : undefined
  return h('td', { role: 'cell', class: kind, 'data-label': column }, shown)
}

/**
 * Return a list that is loaded by cursor, with a count of the items shown. `ask(cursor)` returns a page, and `cells`
 * the row of an item. `open(item)` returns a function that opens the item, called with its row, or null. `nothing()` is
 * shown if there are no items. A page can be incomplete, because a search stops after a second. The next page continues
 * there.
 */
export function list({ place, caption, columns, ask, cells, open = () => null, nothing, onFirst = () => {} }) {
  const row = (item) => Object.assign(cells(item), { open: open(item) })
  return load(
    place,
    () => ask(null),
    (first) => {
      const shown = table(caption, columns, first.items.map(row), nothing?.())
      const [scroller, empty] = shown.elements
      const count = h('p', { class: 'count', role: 'status' })
      const trouble = h('div', {})
      const more = h('button', { type: 'button' })
      let last = first
      const tell = () => {
        const isStopped = Boolean(last.incomplete_results)
        const name = isStopped ? 'countStopped' : last.next_cursor ? 'countSome' : 'countAll'
        count.textContent = text(name, { n: number(shown.size()) })
        count.hidden = !shown.size() && !isStopped
        empty.hidden = Boolean(shown.size()) || isStopped
        more.hidden = !last.next_cursor
        more.textContent = text(isStopped ? 'searchOn' : 'more')
      }
      const next = async () => {
        last = await ask(last.next_cursor)
        shown.append(last.items.map(row))
        tell()
      }
      more.addEventListener('click', () => busy(more, trouble, next))
      tell()
      const prepend = (items) => {
        shown.prepend(items.map(row))
        tell()
      }
      onFirst(first, prepend)
      return [count, scroller, empty, trouble, h('p', { class: 'more' }, more)]
    },
  )
}

/**
 * Run `act` with its button disabled. Show a failure in the element `trouble`, or as a message if the page no longer
 * contains that element. Return whether `act` succeeded.
 */
export async function busy(button, trouble, act) {
  button.disabled = true
  button.setAttribute('aria-busy', 'true')
  trouble?.replaceChildren()
  try {
    await act()
    return true
  } catch (failure) {
    if (failure.code !== 'session_over') (trouble?.isConnected ? trouble : toaster()).replaceChildren(failed(failure))
    return false
  } finally {
    button.disabled = false
    button.removeAttribute('aria-busy')
  }
}

let toastTimer
const toaster = () => document.getElementById('toast') ?? document.body.appendChild(h('div', { id: 'toast' }))

/** Show a message for a moment, and a long message for longer. */
export function toast(message) {
  toaster().replaceChildren(h('p', { role: 'status' }, message))
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => toaster().replaceChildren(), Math.max(5000, 100 * message.length))
}

/** Return a button that acts without confirmation. */
export function act(name, onclick, { kind = '', label } = {}) {
  return h('button', { type: 'button', class: kind, onclick, 'aria-label': label }, text(name))
}

/**
 * Show a dialog that explains an action, with fields and a button. The button calls `onsubmit(values)`. If that fails,
 * the dialog stays open and shows the failure.
 */
export function dialog({ title, lead, fields = [], name, kind = 'primary', size, onsubmit, allow = () => true }) {
  const trouble = h('div', {})
  const heading = h('h2', { id: 'dialog-title' }, title)
  const go = h('button', { class: kind }, text(name))
  const cancel = h('button', { type: 'button', onclick: () => element.close() }, text('cancel'))
  const submit = async () => {
    if (await busy(go, trouble, () => onsubmit(values()))) element.close()
    else updateButton()
  }
  const form = h(
    'form',
    { method: 'dialog', noValidate: false, onsubmit: submit },
    heading,
    [lead ?? []].flat().map((each) => h('p', {}, each)),
    fields.map((each) => each.element),
    trouble,
    h('p', { class: 'acts' }, cancel, go),
  )
  const values = () => Object.fromEntries(fields.flatMap((each) => each.members ?? each).map((each) => [each.name, each.value()]))
  const updateButton = () => (go.disabled = go.hasAttribute('aria-busy') || !allow(values()))
  form.addEventListener('input', updateButton)
  const element = h('dialog', { class: size, 'aria-labelledby': 'dialog-title' }, form)
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  updateButton()
  element.showModal()
  return element
}

/** Ask for confirmation of an action that cannot be undone. */
export const sure = (title, lead, name, onsubmit, fields = []) => dialog({ title, lead, fields, name, kind: 'danger', onsubmit })

/** Return a small button about the object with this name, which its label contains. */
export const actAbout = (what, name, onclick) => act(what, onclick, { kind: 'small', label: actOn(what, name) })

/** Return a small button for an action that cannot be undone, which asks for confirmation first. */
export const sureAbout = (what, name, lead, onsubmit, { kind = 'small danger', fields = () => [] } = {}) =>
  act(what, () => sure(actOn(what, name), text(lead), what, onsubmit, fields()), { kind, label: actOn(what, name) })

/** Return the actions on the object with this name. A single action is a button, and several are behind one button. */
export function menu(name, acts) {
  if (acts.length < 2) return acts
  const list = h('div', { class: 'row-menu', popover: 'auto' }, acts)
  const button = h('button', { type: 'button', class: 'small', popoverTargetElement: list, 'aria-label': actOn('acts', name) }, '⋯')
  list.addEventListener('beforetoggle', () => {
    const { left, right, bottom } = button.getBoundingClientRect()
    const { clientWidth } = document.documentElement
    const side = left < clientWidth / 2 ? { left: `${left}px` } : { right: `${clientWidth - right}px` }
    Object.assign(list.style, { top: `${bottom + scrollY}px`, ...side })
  })
  list.addEventListener('click', () => list.hidePopover())
  return [button, list]
}

/** Return the options of a field, from the names of their texts by value. */
export const optionsOf = (names) => Object.entries(names).map(([value, name]) => [value, text(name)])

/**
 * Return a field of a form, with its label. `type` is the type of an input, `textarea`, or `select` with `options`.
 * `read` turns the text into a value.
 */
export function field({ name, label, hint, type = 'text', value = '', options = [], required = false, read = (typed) => typed, ...others }) {
  const id = `field-${name}`
  const hinted = hint ? { 'aria-describedby': `${id}-hint` } : {}
  const given = { id, name, required, ...hinted, ...others }
  let control
  if (type === 'select')
    control = h('select', given, options.map(([each, shown]) => h('option', { value: each }, shown)))
  else if (type === 'textarea') control = h('textarea', { ...given, rows: 3, spellcheck: false })
  else control = h('input', { ...given, type, autocomplete: type === 'password' ? 'new-password' : 'off', spellcheck: false })
  if (type === 'checkbox') control.checked = Boolean(value)
  else control.value = value ?? ''
  const small = hint ? h('small', { id: `${id}-hint` }, hint) : null
  const named = h('label', { htmlFor: id }, label)
  const element = h('div', { class: type === 'checkbox' ? 'field tick' : 'field' }, named, control, small)
  return { name, element, control, value: () => (type === 'checkbox' ? control.checked : read(control.value.trim())) }
}

const isEmpty = (value) => value === null || value === '' || value === false || (Array.isArray(value) && !value.length)

/**
 * Return a request's body, with a form's values, except empty ones that were empty before. A value that was not empty
 * is cleared by null.
 */
export const bodyOf = (values, known) =>
  Object.fromEntries(
    Object.entries(values)
      .filter(([name, value]) => !isEmpty(value) || !isEmpty(known[name] ?? ''))
      .map(([name, value]) => [name, value === '' ? null : value]),
  )

/**
 * Return a field for a small picture. `picture()` returns its `data:` URL, or undefined (unchanged) if none is chosen.
 */
export function logoField() {
  const made = field({ name: 'logo', label: text('logo'), type: 'file', accept: 'image/png, image/jpeg, image/webp', hint: text('logoHint') })
  made.value = () => ''
  made.picture = () =>
    new Promise((resolve) => {
      const [file] = made.control.files
      const reader = new FileReader()
      reader.onload = () => resolve(reader.result)
      if (file) reader.readAsDataURL(file)
      else resolve()
    })
  return made
}

/** Return a field for a template of claims. */
export const claimsField = (claims, hint) =>
  field({ name: 'claims', label: text('claims'), type: 'textarea', value: claims && JSON.stringify(claims), hint: text(hint), read: (typed) => typed && typedJson(typed) })

/** Return the JSON that the user has typed, or the text, which the service then refuses. */
export function typedJson(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/**
 * Add a button for each known word to a field of several words. It adds or removes the word. `known` is a list of
 * words, each optionally with its meaning, or a promise of such a list.
 */
export function withChoices(typed, known, separator = ', ') {
  const { control, element } = typed
  const place = h('div', {})
  element.append(place)
  Promise.resolve(known).then(
    (there) => there.length && place.append(choices(control, there, separator)),
    () => {}, // the word can still be typed
  )
  return typed
}

function choices(control, there, separator) {
  const chips = there.map(([word, meaning]) => {
    const shown = meaning ? [meaning, h('code', {}, word)] : word
    const chip = h('button', { type: 'button', class: 'small chip' }, shown)
    chip.addEventListener('click', () => {
      const chosen = words(control.value)
      const next = chosen.includes(word) ? chosen.filter((each) => each !== word) : [...chosen, word]
      control.value = next.join(separator)
      control.dispatchEvent(new Event('input', { bubbles: true }))
    })
    return [chip, word]
  })
  const markChosen = () => {
    const chosen = words(control.value)
    for (const [chip, word] of chips) chip.setAttribute('aria-pressed', String(chosen.includes(word)))
  }
  control.addEventListener('input', markChosen)
  markChosen()
  const all = h('div', { class: 'chips', role: 'group', 'aria-label': text('choose') }, chips.map(([chip]) => chip))
  return there.length > SHOWN_CHOICES ? h('details', {}, h('summary', {}, text('choose')), all) : all
}

/**
 * Return a field for a time in the reader's zone, with a button for each of these numbers of days from now. Its value
 * has an offset, or is empty.
 */
export function moment({ value, days = [], ...others }) {
  const made = field({ ...others, type: 'datetime-local', value: local(value) })
  const typed = made.value
  made.value = () => (typed() ? new Date(typed()).toISOString() : '')
  const buttons = days.map((n) => {
    const button = h('button', { type: 'button', class: 'small chip' }, text('days', { n }))
    button.addEventListener('click', () => (made.control.value = local(new Date(Date.now() + n * 86_400_000).toISOString())))
    return button
  })
  if (days.length) made.element.append(h('div', { class: 'chips', role: 'group', 'aria-label': text('choose') }, buttons))
  return made
}

/** Return a time in the form of an input's value, in the reader's zone. */
function local(iso) {
  const at = new Date(iso ?? NaN)
  return Number.isNaN(at.getTime()) ? '' : new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}

/** Return a field of words that are ticked, not typed. */
export function ticks({ name, label, value, known }) {
  const made = known.map((word) => field({ name: `${name}-${word}`, label: h('code', {}, word), type: 'checkbox', value: value.includes(word) }))
  const ticked = () => known.filter((_, place) => made[place].value())
  return { name, value: ticked, element: h('fieldset', { class: 'tiles' }, h('legend', {}, label), made.map(({ element }) => element)) }
}

/** Return the words of a typed text, which can have several lines. */
export const words = (typed) => typed.split(/[\s,，]+/).filter(Boolean)

/** Show a secret, which cannot be shown again. */
export function showSecret(name, secret) {
  const input = h('input', { id: 'secret', type: 'password', readOnly: true, value: secret, autocomplete: 'off' })
  const show = act('showSecret', () => (input.type = input.type === 'password' ? 'text' : 'password'))
  const labelled = h('div', { class: 'field' }, h('label', { htmlFor: 'secret' }, text('secret')), input)
  popUp(text('secretOf', { name }), [h('p', {}, text('secretOnce')), labelled], { acts: [show, copier(secret)] })
}

/** Show content in a dialog that has no action except closing. */
export function popUp(title, content, { acts = [], size, kind = 'primary' } = {}) {
  const close = act('close', () => element.close(), { kind })
  const heading = h('h2', { id: 'dialog-title' }, title)
  const element = h('dialog', { class: size, 'aria-labelledby': 'dialog-title' }, heading, content, h('p', { class: 'acts' }, acts, close))
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  element.showModal()
  return element
}

/** Return a button that copies a value. */
export function copier(value, label) {
  const button = act(
    'copy',
    async () => {
      await navigator.clipboard.writeText(value)
      button.textContent = text('copied')
      setTimeout(() => (button.textContent = text('copy')), 2000)
    },
    { kind: 'small copier', label },
  )
  return button
}

/** Return a time in the reader's zone, with UTC as its tooltip. */
export const time = (iso) => (iso ? h('time', { dateTime: iso, title: iso }, dateAndTime(iso)) : NOTHING)

/** Return a text to be read letter by letter. It stays on one line if it is no longer than an id. */
export const code = (value) => (value ? h('code', { class: value.length > LONGEST_LINE ? '' : 'whole' }, value) : NOTHING)

/** Return the last letters of an id, which distinguish users. A press copies the whole id. */
export function shortId(id) {
  const button = h('button', { type: 'button', class: 'id', title: id }, h('span', { class: 'unseen' }, `${text('copy')} `), id.slice(-SHORT_ID))
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(id)
    toast(text('copied'))
  })
  return button
}

/** Return a number, an address or a similar value, which is never wrapped. */
export const whole = (value) => (value ? h('span', { class: 'whole' }, value) : NOTHING)

export const tag = (name, kind = '') => h('span', { class: `tag ${kind}` }, name)

/** Return terms with their values, in two columns. */
export const facts = (pairs) =>
  h('dl', { class: 'facts' }, pairs.filter(Boolean).map(([term, value]) => [h('dt', {}, term), h('dd', {}, [value ?? NOTHING].flat())]))

/** Return a part of a section, with its heading. */
export const part = (title, ...content) => h('section', { class: 'card' }, h('h2', {}, title), ...content)

/** Go to this fragment, or show it again if it is already shown. */
export function goTo(target) {
  if (location.hash === target) dispatchEvent(new HashChangeEvent('hashchange'))
  else location.hash = target
}

/** Make the browser download a file. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }))
  h('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 1000)
}
