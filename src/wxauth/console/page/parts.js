// The parts that sections share: lists, dialogs, forms, and the display of loading and failures.

import { TypedJson, queryOf } from './api.js'
import { h } from './dom.js'
import { icon } from './icons.js'
import { actOn, dateAndTime, number, text } from './texts.js'

/** The number of characters at the end of an id that distinguish users. */
export const SHORT_ID = 8
const MAX_UNWRAPPED = 45 // the number of characters up to which a code stays on one line
const SKELETON_LINES = 6
const INTERACTIVE = 'a, button, input, select, textarea, summary, label, [popover]'
const MAX_UNFOLDED_CHOICES = 12
const NOTHING = '–'
const DAY_MS = 86_400_000
const COPIED_MS = 2000 // a button says this long that it has copied a value
const SAID_AGAIN_MS = 5000 // the pause between two states of long work that a screen reader says

/**
 * Show in `place` that `ask` is loading, and then what `render` returns for the response: an element, null, or a list
 * of them. If `ask` fails, show the failure, with a button to try again if that can help. `waiting` returns the element
 * that is shown until there is a response.
 */
export async function load(place, ask, render, waiting = skeleton) {
  const call = {}
  place.newestCall = call
  const isOutdated = () => place.newestCall !== call
  place.setAttribute('aria-busy', 'true')
  place.replaceChildren(waiting())
  try {
    const response = await ask()
    if (isOutdated()) return
    place.replaceChildren(...[render(response)].flat(2).filter(Boolean))
  } catch (failure) {
    if (isOutdated()) return
    const tryAgain = h('button', { type: 'button', onclick: () => load(place, ask, render, waiting) }, text('tryAgain'))
    place.replaceChildren(h('div', { class: 'state' }, failed(failure), isTransient(failure) ? tryAgain : null))
  } finally {
    if (!isOutdated()) place.setAttribute('aria-busy', 'false')
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
 * Return a bar for long work: its `element`, and the function `show(words, share)`, which shows how far the work is, in
 * words and as a share from 0 to 1. Without a share, the bar only shows that the work goes on. `name` is the name of
 * the text that says what the work is.
 */
export function progressOf(name) {
  const bar = h('progress', { 'aria-label': text(name) })
  const seen = h('span', { class: 'quiet', 'aria-hidden': 'true' })
  const said = h('span', { class: 'unseen', role: 'status' })
  let saidAt = 0
  const show = (words, share) => {
    if (share === undefined) bar.removeAttribute('value')
    else bar.value = share
    seen.textContent = words
    if (Date.now() - saidAt < SAID_AGAIN_MS) return
    saidAt = Date.now()
    said.textContent = words
  }
  return { element: h('div', { class: 'progress' }, bar, seen, said), show }
}

/**
 * Return whether trying again can help, because there was no response, a fault of the service, or too many requests.
 */
const isTransient = ({ status }) => !status || status === 429 || status >= 500

/**
 * Return an element that explains a failure. It contains the error code if the service has failed, or if WeChat has
 * returned an errcode, because somebody must look up these codes.
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

/** Return a sentence that explains a failure or, if the service has refused some fields, the fault of each field. */
function explanationOf({ code, detail, errors, title }) {
  if (code === 'login_too_old') return text('tooOld')
  if (code === 'offline') return text('offline')
  if (detail === "this path doesn't exist") return text('notThere')
  const faults = (errors ?? []).map(({ field, message }) => `${field}: ${message}`).join('; ')
  return faults || detail || title || text('failed')
}

/**
 * Return a table: its `elements`, functions to `append` and `prepend` further rows, and its `size`, the number of rows.
 * Each row is a list of cells. If the list has the member `open`, the row calls it when the user opens the row. With
 * `hasDetails`, each list has the member `detail`, which returns the element that an opened row shows below itself.
 * On a narrow screen, a row is a card, and each cell shows its column's name. `nothing` is shown if there are no rows.
 */
export function table(caption, columns, rows, nothing = h('p', {}, text('empty')), hasDetails = false) {
  // The roles are explicit, because browsers drop them from a table whose rows are displayed as blocks.
  const headers = [...columns, ...(hasDetails ? [text('raw')] : [])].map((name) => {
    const isSlot = isSlotName(name) || name === text('raw')
    const content = isSlot ? h('span', { class: 'unseen' }, name) : name
    return h('th', { scope: 'col', role: 'columnheader', class: isSlot ? 'slot' : undefined }, content)
  })
  const rowOf = (cells) => {
    const row = h('tr', { role: 'row' }, cells.map((cell, index) => cellOf(cell, columns[index])))
    const open = cells.detail ? addDetail(row, cells.detail) : cells.open
    if (open) makeOpenable(row, open)
    return row
  }
  const body = h('tbody', { role: 'rowgroup' }, rows.map(rowOf))
  const element = h(
    'table',
    { role: 'table' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, headers)),
    body,
  )
  const empty = h('div', { class: 'state' }, nothing)
  const scroller = h('div', { class: 'scroller', tabIndex: 0, role: 'region', 'aria-label': caption }, element)
  const size = () => body.querySelectorAll(':scope > :not(.detail)').length
  const showEither = () => {
    scroller.hidden = size() === 0
    empty.hidden = size() > 0
  }
  const append = (newRows) => {
    body.append(...newRows.map(rowOf))
    showEither()
  }
  const prepend = (newRows) => {
    body.prepend(...newRows.map(rowOf))
    showEither()
  }
  showEither()
  return { elements: [scroller, empty], append, prepend, size }
}

/**
 * Make a row call `open` when the user clicks it or presses Enter. A click on one of its links or buttons, or a click
 * that selects text, does not open the row.
 */
function makeOpenable(row, open) {
  row.className = 'opens'
  row.tabIndex = -1 // reached with the arrow keys, see `keyboard.js`
  row.addEventListener('click', ({ target }) => {
    const hasSelectedText = getSelection().toString() !== ''
    if (!target.closest(INTERACTIVE) && !hasSelectedText) open(row)
  })
  row.addEventListener('keydown', ({ key, target }) => {
    if (key === 'Enter' && target === row) open(row)
  })
}

/** Return whether the column with this name has buttons, which stand at the end of each row. */
const isSlotName = (column) => column === text('acts')

/** Return a cell with the name of its column, which narrow screens show. */
function cellOf(cell, column) {
  const content = [cell].flat().filter((piece) => piece !== null && piece !== undefined && piece !== '')
  const classes = [isSlotName(column) ? 'slot' : '', content.length ? '' : 'nothing'].filter(Boolean)
  return h('td', { role: 'cell', class: classes.join(' ') || undefined, 'data-label': column }, content)
}

/**
 * Add a button at the end of a row that shows or hides the row's detail, an element that is created when it is first
 * shown. Return the function that does the same.
 */
function addDetail(row, detail) {
  const button = h('button', { type: 'button', class: 'small plain unfold', onclick: () => toggle() }, icon('unfold'))
  let detailRow
  const toggle = () => {
    const isShown = button.getAttribute('aria-expanded') === 'true'
    const cell = () => h('td', { role: 'cell', colSpan: row.children.length }, detail())
    detailRow ??= h('tr', { role: 'row', class: 'detail' }, cell())
    if (isShown) detailRow.remove()
    else row.after(detailRow)
    button.setAttribute('aria-expanded', String(!isShown))
  }
  button.setAttribute('aria-label', text('raw'))
  button.setAttribute('aria-expanded', 'false')
  row.append(h('td', { role: 'cell', class: 'slot' }, button))
  return toggle
}

/**
 * Show a list in `place`, page by page, with the number of the items shown. `ask(cursor)` returns a page, which is the
 * first one if the cursor is null, and `cells(item)` returns the cells of an item's row. `open(item)` returns the
 * function that is called with the row when the user opens it, or null. `detail(item)` returns the element that an
 * opened row shows below itself. `nothing()` is shown if there are no items. `onFirst(page, prepend)` is called with
 * the first page, and with a function that adds items above it. A page can be incomplete, because a search stops after
 * a second. The next page continues there.
 */
export function list({ place, caption, columns, ask, cells, open = () => null, detail, nothing, onFirst = () => {} }) {
  const rowOf = (item) => Object.assign(cells(item), { open: open(item), detail: detail && (() => detail(item)) })
  return load(
    place,
    () => ask(null),
    (first) => {
      const rows = first.items.map(rowOf)
      const { elements, append, prepend, size } = table(caption, columns, rows, nothing?.(), Boolean(detail))
      const [scroller, empty] = elements
      const count = h('p', { class: 'count', role: 'status' })
      const trouble = h('div', {})
      const nextButton = h('button', { type: 'button' })
      let last = first
      const showState = () => {
        const isStopped = Boolean(last.incomplete_results)
        let name = last.next_cursor ? 'countSome' : 'countAll'
        if (isStopped) name = 'countStopped'
        const isEmpty = size() === 0
        count.textContent = text(name, { n: number(size()) })
        count.hidden = isEmpty && !isStopped
        empty.hidden = !isEmpty || isStopped
        nextButton.hidden = !last.next_cursor
        nextButton.textContent = text(isStopped ? 'searchOn' : 'more')
      }
      const showNextPage = async () => {
        last = await ask(last.next_cursor)
        append(last.items.map(rowOf))
        showState()
      }
      nextButton.addEventListener('click', () => busy(nextButton, trouble, showNextPage))
      showState()
      onFirst(first, (items) => {
        prepend(items.map(rowOf))
        showState()
      })
      return [count, scroller, empty, trouble, h('p', { class: 'more' }, nextButton)]
    },
  )
}

/**
 * Run `action` with its button disabled. Show a failure in the element `trouble`, or as a toast if that element is null
 * or not on the page any more. The end of the session is not shown, because the page to sign in shows it. Return
 * whether `action` succeeded.
 */
export async function busy(button, trouble, action) {
  button.disabled = true
  button.setAttribute('aria-busy', 'true')
  trouble?.replaceChildren()
  try {
    await action()
    return true
  } catch (failure) {
    if (failure.code === 'session_over') return false
    const place = trouble?.isConnected ? trouble : toaster()
    place.replaceChildren(failed(failure))
    return false
  } finally {
    button.disabled = false
    button.removeAttribute('aria-busy')
  }
}

let toastTimer

/** Return the element that shows toasts. */
const toaster = () => document.getElementById('toast') ?? document.body.appendChild(h('div', { id: 'toast' }))

/**
 * Show a message (a "toast") for five seconds or, if it is longer than 50 characters, for 0.1 seconds per character.
 */
export function toast(message) {
  toaster().replaceChildren(h('p', { role: 'status' }, message))
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => toaster().replaceChildren(), Math.max(5000, 100 * message.length))
}

/** Return a button that calls `onclick`. `name` is the name of its text. */
export function actionButton(name, onclick, { kind = '', label } = {}) {
  return h('button', { type: 'button', class: kind, onclick, 'aria-label': label }, text(name))
}

/**
 * Show a dialog that explains an action, with fields and a button. `name` is the name of the button's text. The button
 * is enabled while `allow(values)` is true, and calls `onsubmit(values)`. If that fails, the dialog stays open and
 * shows the failure. A field with `members` is a group, whose members have the values.
 */
export function dialog({ title, lead, fields = [], name, kind = 'primary', size, onsubmit, allow = () => true }) {
  const trouble = h('div', {})
  const heading = h('h2', { id: 'dialog-title' }, title)
  const submitButton = h('button', { class: kind }, text(name))
  const cancel = h('button', { type: 'button', onclick: () => element.close() }, text('cancel'))
  const submit = async () => {
    if (await busy(submitButton, trouble, () => onsubmit(values()))) element.close()
    else updateButton()
  }
  const form = h(
    'form',
    { method: 'dialog', onsubmit: submit },
    heading,
    [lead ?? []].flat().map((paragraph) => h('p', {}, paragraph)),
    fields.map(({ element }) => element),
    trouble,
    h('p', { class: 'acts' }, cancel, submitButton),
  )
  const fieldsWithValues = fields.flatMap((field) => field.members ?? field)
  const values = () => Object.fromEntries(fieldsWithValues.map(({ name, value }) => [name, value()]))
  const updateButton = () => {
    const isBusy = submitButton.hasAttribute('aria-busy')
    submitButton.disabled = isBusy || !allow(values())
  }
  form.addEventListener('input', updateButton)
  const element = h('dialog', { class: size, 'aria-labelledby': 'dialog-title' }, form)
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  updateButton()
  element.showModal()
  return element
}

/** Ask for confirmation of an action that cannot be undone. */
export const confirmAction = (title, lead, name, onsubmit, fields = []) =>
  dialog({ title, lead, fields, name, kind: 'danger', onsubmit })

/** Return a small button for the action `what` on the object with this name, which the button's label contains. */
export const actionButtonFor = (what, name, onclick) =>
  actionButton(what, onclick, { kind: 'small', label: actOn(what, name) })

/**
 * Like `actionButtonFor`, for an action that cannot be undone. The button first asks for confirmation with the text
 * `lead`.
 */
export function confirmingButtonFor(what, name, lead, onsubmit, { kind = 'small danger', fields = () => [] } = {}) {
  const title = actOn(what, name)
  return actionButton(what, () => confirmAction(title, text(lead), what, onsubmit, fields()), { kind, label: title })
}

/** Return a menu with the buttons for the object with this name, and the button that opens the menu. */
export function menu(name, buttons) {
  const popover = h('div', { class: 'row-menu', popover: 'auto' }, buttons)
  const label = actOn('acts', name)
  const properties = { type: 'button', class: 'small plain', popoverTargetElement: popover, 'aria-label': label }
  const button = h('button', properties, icon('more'))
  popover.addEventListener('beforetoggle', () => {
    const { left, right, bottom } = button.getBoundingClientRect()
    const { clientWidth } = document.documentElement
    const nearerSide = left < clientWidth / 2 ? { left: `${left}px` } : { right: `${clientWidth - right}px` }
    Object.assign(popover.style, { top: `${bottom + scrollY}px`, ...nearerSide })
  })
  popover.addEventListener('click', () => popover.hidePopover())
  return [button, popover]
}

/** Return the options of a field, from an object that maps each value to the name of its text. */
export const optionsOf = (names) => Object.entries(names).map(([value, name]) => [value, text(name)])

/**
 * Return a field of a form: its `name`, its `element` with label, hint and `control`, and the function `value`. `type`
 * is the type of an input, or `textarea`, or `select` with `options`, a list of values with their labels. `read` turns
 * the trimmed text into the value. The value of a checkbox is a boolean. Other properties become those of the control.
 */
export function field({
  name,
  label,
  hint,
  type = 'text',
  value = '',
  options = [],
  required = false,
  read = (typed) => typed,
  ...others
}) {
  const id = `field-${name}`
  const description = hint ? { 'aria-describedby': `${id}-hint` } : {}
  const properties = { id, name, required, ...description, ...others }
  let control
  if (type === 'select') {
    const optionOf = ([optionValue, optionLabel]) => h('option', { value: optionValue }, optionLabel)
    control = h('select', properties, options.map(optionOf))
  } else if (type === 'textarea') {
    control = h('textarea', { ...properties, rows: 3, spellcheck: false })
  } else {
    const autocomplete = type === 'password' ? 'new-password' : 'off'
    control = h('input', { ...properties, type, autocomplete, spellcheck: false })
  }
  if (type === 'checkbox') control.checked = Boolean(value)
  else control.value = value ?? ''
  const small = hint ? h('small', { id: `${id}-hint` }, hint) : null
  const labelElement = h('label', { htmlFor: id }, label)
  const element = h('div', { class: type === 'checkbox' ? 'field tick' : 'field' }, labelElement, control, small)
  const currentValue = () => (type === 'checkbox' ? control.checked : read(control.value.trim()))
  return { name, element, control, value: currentValue }
}

const isEmptyValue = (value) => [null, '', false].includes(value) || (Array.isArray(value) && !value.length)

/**
 * Return the body of a request that stores a form's values. Values that are empty now and in `stored` are left out. A
 * text that the user has emptied becomes null, which clears the stored value.
 */
export function bodyOf(values, stored) {
  const body = {}
  for (const [name, value] of Object.entries(values))
    if (!isEmptyValue(value) || !isEmptyValue(stored[name] ?? '')) body[name] = value === '' ? null : value
  return body
}

/**
 * Return a field for a small picture. `picture()` returns a promise of the picture's `data:` URL, or of undefined if
 * the user has chosen none, so that the request leaves the stored picture unchanged. `value()` is always empty.
 */
export function logoField() {
  const logo = field({
    name: 'logo',
    label: text('logo'),
    type: 'file',
    accept: 'image/png, image/jpeg, image/webp',
    hint: text('logoHint'),
  })
  const picture = () =>
    new Promise((resolve) => {
      const [file] = logo.control.files
      const reader = new FileReader()
      reader.onload = () => resolve(reader.result)
      if (file) reader.readAsDataURL(file)
      else resolve()
    })
  return { ...logo, value: () => '', picture }
}

/** Return a field for a template of claims, which is JSON. `hint` is the name of its hint's text. */
export const claimsField = (claims, hint) =>
  field({
    name: 'claims',
    label: text('claims'),
    type: 'textarea',
    value: claims && JSON.stringify(claims),
    hint: text(hint),
    read: (typed) => (typed ? typedJson(typed) : ''),
  })

/**
 * Return the value of the JSON that the user has typed. Text that is not JSON is returned as text, and so is a number
 * that would be printed differently, such as 1.10 or an ID of 19 digits.
 */
export function typedJson(typed) {
  let value
  try {
    value = JSON.parse(typed)
  } catch {
    return typed
  }
  if (typeof value === 'number') return String(value) === typed && !typed.includes('e') ? value : typed
  return value instanceof Object ? new TypedJson(typed) : value
}

/**
 * Add a button for each known word to a field of several words, and return the field. A button adds its word to the
 * field, or removes the word. `known` is a list, or a promise of a list, in which each item is a list of a word and,
 * optionally, the word's meaning.
 */
export function withChoices(wordsField, known) {
  const { control, element } = wordsField
  const place = h('div', {})
  element.append(place)
  Promise.resolve(known).then(
    (choices) => {
      if (choices.length) place.append(chipsFor(control, choices))
    },
    () => {}, // without choices, the words can still be typed
  )
  return wordsField
}

/** Return a chip for each choice. Each chip shows whether its word is in the control. Many chips are folded. */
function chipsFor(control, choices) {
  const chips = choices.map(([word, meaning]) => {
    const label = meaning ? [meaning, h('code', {}, word)] : word
    const chip = h('button', { type: 'button', class: 'small chip' }, label)
    chip.addEventListener('click', () => {
      const chosen = words(control.value)
      const newWords = chosen.includes(word) ? chosen.filter((other) => other !== word) : [...chosen, word]
      control.value = newWords.join(', ')
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
  return choices.length > MAX_UNFOLDED_CHOICES ? h('details', {}, h('summary', {}, text('choose')), all) : all
}

/**
 * Return a field for a time in the reader's zone, with a button for each of these numbers of days from now. The value
 * is in ISO 8601 and UTC, or empty.
 */
export function moment({ value, days = [], ...others }) {
  const timeField = field({ ...others, type: 'datetime-local', value: localTime(value) })
  const { control, element } = timeField
  const buttons = days.map((n) => {
    const inDays = () => new Date(Date.now() + n * DAY_MS).toISOString()
    const onclick = () => (control.value = localTime(inDays()))
    return h('button', { type: 'button', class: 'small chip', onclick }, text('days', { n }))
  })
  if (days.length) element.append(h('div', { class: 'chips', role: 'group', 'aria-label': text('choose') }, buttons))
  const toIso = (typed) => (typed ? new Date(typed).toISOString() : '')
  return { ...timeField, value: () => toIso(timeField.value()) }
}

/**
 * Return an ISO 8601 time as `datetime-local` inputs have it, in the reader's zone; empty for any other text, or null.
 */
function localTime(iso) {
  const at = new Date(iso ?? NaN)
  if (Number.isNaN(at.getTime())) return ''
  const shifted = new Date(at - at.getTimezoneOffset() * 60_000) // its UTC time looks like the local time
  return shifted.toISOString().slice(0, 'YYYY-MM-DDTHH:MM'.length)
}

/** Return a field whose value is the list of the ticked words, with a checkbox for each known word. */
export function ticks({ name, label, value, known }) {
  const boxes = known.map((word) =>
    field({ name: `${name}-${word}`, label: h('code', {}, word), type: 'checkbox', value: value.includes(word) }),
  )
  const ticked = () => known.filter((_word, index) => boxes[index].value())
  const elements = boxes.map(({ element }) => element)
  return { name, value: ticked, element: h('fieldset', { class: 'tiles' }, h('legend', {}, label), elements) }
}

/**
 * Return a field for several words. Each word is a chip with a button that removes the word. Enter, a comma and a space
 * make a chip of the typed word, and Backspace in the empty input removes the last chip. `known` is a promise of a list
 * of words that the browser suggests.
 */
export function tokens({ name, label, value, hint, known }) {
  const { element, control } = field({ name, label, hint })
  const suggestions = h('datalist', { id: `known-${name}` })
  const box = h('div', { class: 'tokens' })
  const chipsByWord = new Map()
  const drop = (word) => {
    chipsByWord.get(word).remove()
    chipsByWord.delete(word)
    control.focus()
    control.dispatchEvent(new Event('input', { bubbles: true }))
  }
  const add = (word) => {
    if (chipsByWord.has(word)) return
    const button = actionButton('remove', () => drop(word), { label: actOn('remove', word) })
    button.replaceChildren('×')
    const chip = h('span', { class: 'token' }, word, button)
    chipsByWord.set(word, chip)
    control.before(chip)
  }
  const addTyped = () => {
    for (const word of words(control.value)) add(word)
    control.value = ''
  }
  control.replaceWith(box)
  box.append(control, suggestions)
  value.forEach(add)
  control.setAttribute('list', suggestions.id)
  control.addEventListener('keydown', (event) => {
    if (event.isComposing) return
    if (event.key === 'Enter' && control.value.trim()) {
      event.preventDefault() // adds the word instead of submitting the form
      addTyped()
    } else if (event.key === 'Backspace' && !control.value && chipsByWord.size) drop([...chipsByWord.keys()].at(-1))
  })
  control.addEventListener('input', ({ inputType }) => {
    const isChosen = inputType === 'insertReplacementText' // from the browser's suggestions
    if (isChosen || /[\s,，]$/.test(control.value)) addTyped()
  })
  known.then(
    (suggested) => suggestions.append(...suggested.map((word) => h('option', { value: word }))),
    () => {}, // without suggestions, the words can still be typed
  )
  return { name, element, control, value: () => [...new Set([...chipsByWord.keys(), ...words(control.value)])] }
}

/** Return the words of a typed text, which are separated by spaces, line ends, or commas of either language. */
export const words = (typed) => typed.split(/[\s,，]+/).filter(Boolean)

/** Show the new secret of the object with this name. The service cannot show the secret again. */
export function showSecret(name, secret) {
  const input = h('input', { id: 'secret', type: 'password', readOnly: true, value: secret, autocomplete: 'off' })
  const showOrHide = () => (input.type = input.type === 'password' ? 'text' : 'password')
  const showButton = actionButton('showSecret', showOrHide)
  const labelled = h('div', { class: 'field' }, h('label', { htmlFor: 'secret' }, text('secret')), input)
  const content = [h('p', {}, text('secretOnce')), labelled]
  popUp(text('secretOf', { name }), content, { acts: [showButton, copier(secret)] })
}

/** Show content in a dialog, which the user can only close. `acts` are buttons next to the one that closes it. */
export function popUp(title, content, { acts = [], size, kind = 'primary' } = {}) {
  const close = actionButton('close', () => element.close(), { kind })
  const heading = h('h2', { id: 'dialog-title' }, title)
  const buttons = h('p', { class: 'acts' }, acts, close)
  const element = h('dialog', { class: size, 'aria-labelledby': 'dialog-title' }, heading, content, buttons)
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  element.showModal()
  return element
}

/** Return a button that copies a value. `name` is the name of its text. */
export function copier(value, label, name = 'copy') {
  const button = actionButton(
    name,
    async () => {
      await navigator.clipboard.writeText(value)
      button.textContent = text('copied')
      setTimeout(() => (button.textContent = text(name)), COPIED_MS)
    },
    { kind: 'small copier', label },
  )
  return button
}

/** Return a time in the reader's zone, with its ISO 8601 form as a tooltip; null without a time. */
export const time = (iso) => (iso ? h('time', { dateTime: iso, title: iso }, dateAndTime(iso)) : null)

/**
 * Return a code, such as an id. It stays on one line unless it is long. A URL is wrapped after a slash. Without a value,
 * return null.
 */
export function code(value) {
  if (!value) return null
  const [first, ...others] = value.includes('://') ? value.split(/(?<=[^/]\/)(?=[^/])/) : [value]
  const pieces = [first, others.map((piece) => [h('wbr'), piece])]
  return h('code', { class: value.length > MAX_UNWRAPPED ? '' : 'whole' }, pieces)
}

/** Return an IP address, linked to the logins from there; null without an address. */
export const address = (ip) =>
  ip ? h('a', { class: 'whole', href: `#/signins${queryOf({ network: ip })}`, title: text('loginsFrom') }, ip) : null

/** Return a button with the end of a user's id, which distinguishes users. It copies the whole id. */
export function shortId(id) {
  const copy = async () => {
    await navigator.clipboard.writeText(id)
    toast(text('copied'))
  }
  const action = h('span', { class: 'unseen' }, `${text('copy')} `) // for screen readers
  return h('button', { type: 'button', class: 'id', title: id, onclick: copy }, action, id.slice(-SHORT_ID))
}

/** Return a number, an address or a similar value, which is never wrapped; null without a value. */
export const whole = (value) => (value ? h('span', { class: 'whole' }, value) : null)

/** Return a tag. `kind` is `ok`, `note`, `bad` or another class, which sets its color. */
export const tag = (name, kind = '') => h('span', { class: `tag ${kind}` }, name)

/**
 * Return terms with their values, in two columns. Pairs that are null are left out. A value that is null shows a dash.
 * If `kind` is `columns`, each value is below its term, and a wide page has several columns of both.
 */
export function facts(pairs, kind = '') {
  const pairOf = ([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value ?? NOTHING))
  return h('dl', { class: `facts ${kind}` }, pairs.filter(Boolean).map(pairOf))
}

/** Move a section's title into a row, and add `elements` at the end of the row. Return the place of the elements. */
export function besideTitle(main, elements) {
  const title = main.querySelector('h1')
  const place = h('div', { class: 'acts' }, elements)
  const head = h('div', { class: 'title-row' })
  title.replaceWith(head)
  head.append(title, place)
  return place
}

/** Return a logo; the icon of this name if there is none. */
export const pictured = (iconName, logo) =>
  logo
    ? h('img', { class: 'picture small', src: logo, alt: '' })
    : h('span', { class: 'picture small', 'aria-hidden': 'true' }, icon(iconName))

/** Return a cell with a picture, the title of an app or a client, and below it the id and its kinds. */
export function named(image, title, id, ...kinds) {
  const below = [title ? h('code', {}, id) : null, ...kinds.map((kind) => h('span', {}, kind))].filter(Boolean)
  const separated = below.flatMap((element, index) => (index ? [' · ', element] : element))
  const name = h('strong', { class: 'title' }, title ?? id)
  return h('div', { class: 'named' }, image, h('div', {}, name, h('small', {}, separated)))
}

/** Return a part of a section, with its heading. */
export const part = (title, ...content) => h('section', { class: 'card' }, h('h2', {}, title), ...content)

/** Go to the view that a fragment names. If it is already shown, show it again. */
export function goTo(fragment) {
  if (location.hash === fragment) dispatchEvent(new HashChangeEvent('hashchange'))
  else location.hash = fragment
}

/** Make the browser download a file. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }))
  h('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 1000) // by then, the browser has read the content
}
