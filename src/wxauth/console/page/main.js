// The frame around the sections, and the page to sign in. The URL's fragment names the current view, so that a user can
// send the URL to a colleague.

import { currentUser, mayAdminister, noteUse, openSession, resume, signOut, whenSessionEnds } from './api.js'
import { showApps } from './apps.js'
import { h } from './dom.js'
import { showEvents } from './events.js'
import { icon } from './icons.js'
import { listenToKeys } from './keyboard.js'
import { showKeys } from './keys.js'
import { displayName, forgetTitles } from './names.js'
import { showOverview } from './overview.js'
import { busy, copier, failed } from './parts.js'
import { showPerson } from './person.js'
import { beginScan, takeScanResult } from './scan.js'
import { showSignIns } from './signins.js'
import { showServices } from './services.js'
import { chooseLanguage, language, nextLanguage, sentences, text, toggleLanguage } from './texts.js'
import { showUsers } from './users.js'
import { showWebhooks } from './webhooks.js'

const SECTIONS = {
  overview: showOverview,
  users: showUsers,
  events: showEvents,
  signins: showSignIns,
  services: showServices,
  webhooks: showWebhooks,
  apps: showApps,
  keys: showKeys,
}
const SECTIONS_OF_SUPPORT = ['overview', 'users', 'events', 'signins']
const COMMAND = 'wxauth admin link' // prints a link to sign in

let stopTimers = () => {} // of the current section

const sections = () => (mayAdminister() ? Object.keys(SECTIONS) : SECTIONS_OF_SUPPORT)

/**
 * Return the section, id and query in the fragment, such as `#/webhooks/NAME` or `#/users?status=disabled`. The section
 * is `overview` if the fragment names none, or one that the user may not see.
 */
function whereTo() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  const [section, id] = path.split('/')
  return { section: sections().includes(section) ? section : 'overview', id, query: new URLSearchParams(query) }
}

/** Return the frame for the section that the fragment names: the sections, the account, and an empty main part. */
function frame() {
  const { section } = whereTo()
  const links = sections().map((name) =>
    h(
      'li',
      {},
      h('a', { href: `#/${name}`, 'aria-current': name === section ? 'page' : undefined }, icon(name), text(name)),
    ),
  )
  const nav = h('nav', { id: 'sections', 'aria-label': text('sections') }, h('ul', {}, links))
  const closed = { 'aria-label': text('menu'), 'aria-expanded': 'false', 'aria-controls': 'sections' }
  const menu = h('button', { type: 'button', class: 'menu', ...closed }, icon('menu'))
  menu.addEventListener('click', () => {
    const isOpen = nav.classList.toggle('open')
    account.open = isOpen // on a phone, sections and account are one menu
    menu.setAttribute('aria-expanded', String(isOpen))
  })
  nav.addEventListener('click', () => {
    nav.classList.remove('open')
    menu.setAttribute('aria-expanded', 'false')
  })
  const user = currentUser()
  const leaveConsole = async () => {
    await signOut()
    showSignIn(text('signedOut'))
  }
  const signOutButton = h('button', { type: 'button' }, text('signOut'))
  signOutButton.addEventListener('click', () => busy(signOutButton, null, leaveConsole))
  const account = h(
    'details',
    { class: 'filter who' },
    h('summary', { title: user.id }, h('span', { class: 'unseen' }, text('signedInAs'), ' '), displayName(user)),
    h('div', { class: 'popover to-end' }, languageButton(), signOutButton),
  )
  return h(
    'div',
    { class: 'frame' },
    h('a', { class: 'skip', href: '#content', onclick: skip }, text('skip')),
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'brand', href: '#/overview' }, mark(), 'wxauth'),
      menu,
      account,
    ),
    nav,
    h('main', { id: 'content', tabIndex: -1 }),
  )
}

const mark = (size = 24) => h('img', { src: '../v1/pages/icon.svg', width: size, height: size, alt: '' })

/** Return the button that switches the page to the next language. */
function languageButton() {
  const onclick = async () => {
    await toggleLanguage()
    if (currentUser()) show()
    else showSignIn()
  }
  const [tag, name] = nextLanguage()
  return h('button', { type: 'button', lang: tag, onclick }, name)
}

/** Focus the content. The browser would change the fragment instead. */
function skip(event) {
  event.preventDefault()
  document.getElementById('content').focus()
}

/** Show the section that the fragment names. */
function show() {
  stopTimers()
  document.documentElement.lang = language()
  const { section, id, query } = whereTo()
  const newFrame = frame()
  document.body.replaceChildren(newFrame, ...document.querySelectorAll('#toast')) // a message stays in the next view
  const main = newFrame.querySelector('main')
  const isPerson = section === 'users' && id
  const title = h('h1', { tabIndex: -1 }, text(isPerson ? 'person' : section))
  main.append(title)
  document.title = `${title.textContent} · wxauth`
  const showSection = isPerson ? showPerson : SECTIONS[section]
  stopTimers = showSection(main, { id, query }) ?? (() => {})
  title.focus({ preventScroll: true })
}

/** Show the page to sign in, with a message if there is one. Its `role` is `alert` if something went wrong. */
function showSignIn(message, role = 'status') {
  stopTimers()
  stopTimers = () => {}
  forgetTitles()
  document.documentElement.lang = language()
  document.title = `${text('signIn')} · wxauth`
  for (const dialog of document.querySelectorAll('dialog')) dialog.remove()
  const trouble = h('div', {})
  const scan = h('button', { type: 'button', class: 'primary' }, icon('wechat'), text('scan'))
  const [who, how] = sentences('scanHow')
  scan.addEventListener('click', () => busy(scan, trouble, beginScan))
  document.body.replaceChildren(
    h(
      'main',
      { class: 'sign-in', id: 'content' },
      mark(48),
      h('h1', {}, text('signIn')),
      message ? h('p', { role, class: role === 'alert' ? 'failure' : '' }, message) : null,
      h('p', { class: 'quiet' }, who, h('span', { class: 'on-computer' }, ' ', how)),
      scan,
      trouble,
      h(
        'details',
        {},
        h('summary', {}, text('signInByLink')),
        h(
          'div',
          { class: 'stack' },
          h('p', {}, text('signInHow')),
          h('p', { class: 'beside command' }, h('code', {}, COMMAND), copier(COMMAND)),
          linkForm(),
        ),
      ),
      h('p', {}, languageButton()),
    ),
  )
}

/** Return the form into which the user pastes a link, or only its secret. */
function linkForm() {
  const trouble = h('div', {})
  const input = h('input', { id: 'link', type: 'password', autocomplete: 'off', required: true })
  const open = h('button', {}, text('open'))
  const onsubmit = () =>
    busy(open, trouble, async () => {
      await openSession({ secret: input.value.trim().replace(/^.*#link=/, '') })
      show()
    })
  return h(
    'form',
    { class: 'field', onsubmit },
    h('label', { htmlFor: 'link' }, text('signInPaste')),
    h('div', { class: 'beside' }, input, open),
    trouble,
  )
}

async function start() {
  const scanned = takeScanResult()
  await chooseLanguage() // the language of the URL that the browser has returned to
  document.documentElement.lang = language()
  whenSessionEnds((reason) => showSignIn(text(reason === 'role' ? 'endedRole' : 'endedOver'), 'alert'))
  for (const kind of ['pointerdown', 'keydown']) addEventListener(kind, noteUse, { passive: true })
  const secret = /^#link=(.+)$/.exec(location.hash)?.[1]
  // The link's secret must not stay in the address bar or in the history.
  if (secret) history.replaceState(null, '', `${location.pathname}${location.search}#/overview`)
  addEventListener('hashchange', showNewFragment)
  listenToKeys()
  try {
    if (scanned?.refused) return showSignIn(text(scanned.refused), 'alert')
    if (scanned) await openSession(scanned.opening)
    else if (secret) await openSession({ secret })
    else if (!(await resume())) return showSignIn()
    show()
  } catch (failure) {
    if (failure.code === 'insufficient_role') showSignIn(text('notAdministrator'), 'alert')
    else if (failure.status && failure.status < 500) showSignIn(text(scanned ? 'scanIsOver' : 'linkIsOver'), 'alert')
    else document.body.replaceChildren(h('main', { class: 'sign-in' }, h('h1', {}, 'wxauth'), failed(failure)))
  }
}

/** Show the view of a new fragment. If the fragment is a link to sign in, start the page again. */
function showNewFragment() {
  if (location.hash.startsWith('#link=')) location.reload()
  else if (currentUser()) show()
}

start()
