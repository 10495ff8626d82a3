// The parts of every section: lists, dialogs, forms, and how waiting and failures look.

import { h } from './dom.js'
import { dateAndTime, text } from './texts.js'

/** Show in `place` that `ask` is loading, then what `render` makes of its answer, or why it failed. */
export async function load(place, ask, render) {
  const turn = (place.turn = (place.turn ?? 0) + 1)
  place.setAttribute('aria-busy', 'true')
  place.replaceChildren(h('p', { class: 'state', role: 'status' }, text('loading')))
  try {
    const answer = await ask()
    if (place.turn !== turn) return // it has been asked for something else meanwhile
    place.replaceChildren(...[render(answer)].flat(2).filter(Boolean))
  } catch (failure) {
    if (place.turn !== turn) return
    const again = h('button', { type: 'button', onclick: () => load(place, ask, render) }, text('tryAgain'))
    place.replaceChildren(h('div', { class: 'state' }, failed(failure), again))
  } finally {
    if (place.turn === turn) place.setAttribute('aria-busy', 'false')
  }
}

/** A failure for the reader: its title, what was wrong, and the code to look up. */
export function failed(failure) {
  const told =
    failure.code === 'login_too_old'
      ? text('tooOld')
      : failure.code === 'offline'
        ? text('offline')
        : failure.detail === 'there is nothing at this path'
          ? text('notThere')
          : failure.title || text('failed')
  const fields = (failure.errors ?? []).map(({ field, message }) => `${field}: ${message}`)
  const detail = fields.length ? fields.join('; ') : failure.detail
  const errcode = failure.wechatErrcode ? ` · errcode ${failure.wechatErrcode}` : ''
  return h(
    'div',
    { class: 'failure', role: 'alert' },
    h('p', {}, told),
    detail ? h('p', { class: 'quiet' }, detail) : null,
    failure.code ? h('code', {}, `${failure.code}${errcode}`) : null,
  )
}

/** A table. Each row is a list of cells. */
export function table(caption, columns, rows) {
  const headers = columns.map((name) => h('th', { scope: 'col' }, name))
  const body = h('tbody', {}, rows.map(row))
  const element = h(
    'table',
    {},
    h('caption', { class: 'unseen' }, caption),
    h('thead', {}, h('tr', {}, headers)),
    body,
  )
  const empty = h('p', { class: 'state', hidden: rows.length > 0 }, text('empty'))
  const scroller = h('div', { class: 'scroller', tabIndex: 0, role: 'region', 'aria-label': caption }, element)
  scroller.hidden = rows.length === 0
  return {
    elements: [scroller, empty],
    append: (more) => body.append(...more.map(row)),
    prepend(more) {
      body.prepend(...more.map(row))
      scroller.hidden = !body.children.length
      empty.hidden = !scroller.hidden
    },
  }
}

const row = (cells) => h('tr', {}, cells.map((cell) => h('td', {}, [cell ?? '–'].flat())))

/** A list that is loaded by cursor. `ask(cursor)` gives a page, and `cells` the row of an item. */
export function list({ place, caption, columns, ask, cells, onFirst = () => {} }) {
  return load(
    place,
    () => ask(null),
    (page) => {
      const shown = table(caption, columns, page.items.map(cells))
      let cursor = page.next_cursor
      const trouble = h('div', {})
      const more = h('button', { type: 'button', hidden: !cursor }, text('more'))
      more.onclick = () =>
        busy(more, trouble, async () => {
          const next = await ask(cursor)
          shown.append(next.items.map(cells))
          cursor = next.next_cursor
          more.hidden = !cursor
        })
      onFirst(page, shown)
      return [...shown.elements, trouble, h('p', { class: 'more' }, more)]
    },
  )
}

/** Run `act` with its button disabled, and show a failure in `trouble`; whether it succeeded. */
export async function busy(button, trouble, act) {
  button.disabled = true
  button.setAttribute('aria-busy', 'true')
  trouble?.replaceChildren()
  try {
    await act()
    return true
  } catch (failure) {
    if (failure.code !== 'session_over') (trouble ?? toaster()).replaceChildren(failed(failure))
    return false
  } finally {
    button.disabled = false
    button.removeAttribute('aria-busy')
  }
}

const LONGEST_LINE = 45

let toastTimer
const toaster = () => document.getElementById('toast') ?? document.body.appendChild(h('div', { id: 'toast' }))

/** Show a message for a moment. */
export function toast(message) {
  toaster().replaceChildren(h('p', { role: 'status' }, message))
  clearTimeout(toastTimer)
  toastTimer = setTimeout(() => toaster().replaceChildren(), 5000)
}

/** A button that acts without asking first. */
export function act(name, onclick, { kind = '', label } = {}) {
  return h('button', { type: 'button', class: kind, onclick, 'aria-label': label }, text(name))
}

/**
 * A dialog that says what will happen, with fields and a button. The button calls `onsubmit(values)`. If that fails,
 * the dialog stays open and says why.
 */
export function dialog({ title, lead, fields = [], name, kind = 'primary', onsubmit, allow = () => true }) {
  const trouble = h('div', {})
  const heading = h('h2', { id: 'dialog-title' }, title)
  const go = h('button', { class: kind }, text(name))
  const cancel = h('button', { type: 'button', onclick: () => element.close() }, text('cancel'))
  const form = h(
    'form',
    { method: 'dialog', noValidate: false },
    heading,
    lead ? h('p', {}, lead) : null,
    fields.map((each) => each.element),
    trouble,
    h('p', { class: 'acts' }, cancel, go),
  )
  const values = () => Object.fromEntries(fields.flatMap((each) => each.members ?? each).map((each) => [each.name, each.value()]))
  const look = () => (go.disabled = !allow(values()))
  form.addEventListener('input', look)
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    if (await busy(go, trouble, () => onsubmit(values()))) element.close()
  })
  const element = h('dialog', { 'aria-labelledby': 'dialog-title' }, form)
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  look()
  element.showModal()
  return element
}

/** Ask whether to do something that cannot be taken back. */
export const sure = (title, lead, name, onsubmit) => dialog({ title, lead, name, kind: 'danger', onsubmit })

/** A field of a form, with its label. `type` is that of an input, `textarea`, or `select` with `options`. */
export function field({ name, label, hint, type = 'text', value = '', options = [], required = false, ...others }) {
  const id = `field-${name}`
  const hinted = hint ? { 'aria-describedby': `${id}-hint` } : {}
  const given = { id, name, required, ...hinted, ...others }
  let control
  if (type === 'select')
    control = h('select', given, options.map(([each, shown]) => h('option', { value: each }, shown)))
  else if (type === 'textarea') control = h('textarea', { ...given, rows: 3, spellcheck: false })
  else control = h('input', { ...given, type, autocomplete: type === 'password' ? 'new-password' : 'off', spellcheck: false })
  if (type === 'checkbox') control.checked = Boolean(value)
  else control.value = value
  const small = hint ? h('small', { id: `${id}-hint` }, hint) : null
  const named = h('label', { htmlFor: id }, label)
  const element = h('div', { class: type === 'checkbox' ? 'field tick' : 'field' }, named, control, small)
  return { name, element, control, value: () => (type === 'checkbox' ? control.checked : control.value.trim()) }
}

/** Fields of a form that belong together, by what they are for. */
export const group = (title, members) => ({
  members,
  element: h('fieldset', {}, h('legend', {}, title), members.map((each) => each.element)),
})

/** The words of a typed text, which may be on several lines. */
export const words = (typed) => typed.split(/[\s,，]+/).filter(Boolean)

/** Show a secret, which cannot be shown again. */
export function showSecret(title, secret) {
  const input = h('input', { id: 'secret', type: 'password', readOnly: true, value: secret, autocomplete: 'off' })
  const show = act('showSecret', () => (input.type = input.type === 'password' ? 'text' : 'password'))
  const element = h(
    'dialog',
    { 'aria-labelledby': 'dialog-title' },
    h('h2', { id: 'dialog-title' }, title),
    h('p', {}, text('secretOnce')),
    h('div', { class: 'field' }, h('label', { htmlFor: 'secret' }, text('secret')), input),
    h('p', { class: 'acts' }, show, copier(secret), act('close', () => element.close(), { kind: 'primary' })),
  )
  element.addEventListener('close', () => element.remove())
  document.body.append(element)
  element.showModal()
}

/** A button that copies a value. */
export function copier(value, label) {
  const button = act(
    'copy',
    async () => {
      await navigator.clipboard.writeText(value)
      button.textContent = text('copied')
      setTimeout(() => (button.textContent = text('copy')), 2000)
    },
    { kind: 'small', label },
  )
  return button
}

/** A time in the reader's zone. Its tooltip says it in UTC. */
export const time = (iso) => (iso ? h('time', { dateTime: iso, title: iso }, dateAndTime(iso)) : '–')

/** Text to be read letter by letter. It is kept on one line if it is no longer than an id. */
export const code = (value) => (value ? h('code', { class: value.length > LONGEST_LINE ? '' : 'whole' }, value) : '–')

export const tag = (name, kind = '') => h('span', { class: `tag ${kind}` }, name)

/** Terms with their values, in two columns. */
export const facts = (pairs) =>
  h('dl', { class: 'facts' }, pairs.filter(Boolean).map(([term, value]) => [h('dt', {}, term), h('dd', {}, [value ?? '–'].flat())]))

/** A part of a section, with its heading. */
export const part = (title, ...content) => h('section', { class: 'card' }, h('h2', {}, title), ...content)

/** Let the browser download a file. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }))
  h('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 1000)
}
