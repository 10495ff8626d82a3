// The section about apps.

import { get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { knownRoles } from './known.js'
import { forgetTitles } from './names.js'
import { report } from './overview.js'
import {
  actionButton,
  actionButtonFor,
  bodyOf,
  claimsField,
  code,
  copier,
  dialog,
  failed,
  field,
  load,
  logoField,
  menu,
  named,
  optionsOf,
  pictured,
  popUp,
  progressOf,
  confirmingButtonFor,
  tag,
  time,
  toast,
  whole,
  withChoices,
  words,
} from './parts.js'
import { searchedList } from './search.js'
import { actOn, number, text } from './texts.js'

const STAFF_ROLES = ['admin', 'support'] // new users must not get these roles
const KINDS = ['mini_program', 'official_account', 'website', 'mobile_app']
const SIGN_UPS = { '': 'signUpDefault', open: 'signUpOpen', closed: 'signUpClosed' }
const UNIONIDS = { required: 'unionidRequired', optional: 'unionidOptional' }

const path = ({ app_id }) => `/apps/${encodeURIComponent(app_id)}`

export function showApps(main, { query }) {
  let enabled = []
  const add = actionButton('add', () => edit(null, reload), { kind: 'primary add' })
  const note = h('p', { class: 'quiet', hidden: true }, text('inSettings'))
  const checkAllButton = actionButton('checkAll', () => checkAll(enabled))
  const reload = searchedList(main, 'apps', query, [checkAllButton, add], {
    columns: ['app', 'state', 'signUp', 'wechatToken', 'push', 'acts'],
    ask: async () => {
      forgetTitles() // they might have changed since
      const page = await get('/apps')
      enabled = page.items.filter(({ is_enabled }) => is_enabled)
      checkAllButton.hidden = enabled.length < 2
      note.hidden = page.items.every(({ source }) => source !== 'settings')
      return page
    },
    open: (app) => (app.source === 'settings' ? null : () => edit(app, reload)),
    cells: (app) => [
      named(
        pictured('apps', app.logo),
        app.title,
        app.app_id,
        app.is_default ? `${text(app.kind)} · ${text('isDefault')}` : text(app.kind),
      ),
      app.is_enabled ? tag(text('enabled'), 'ok') : tag(text('disabled'), 'bad'),
      whole(text(SIGN_UPS[app.sign_up ?? ''])),
      wechatToken(app.wechat_token),
      push(app),
      acts(app, reload),
    ],
  })
  main.append(note)
}

/** Return the state of the access token with which the service calls WeChat. `token` is null if there is none. */
function wechatToken(token) {
  if (token?.error) return tag(token.error, 'bad')
  return token?.expires_at ? [text('tokenUntil'), ' ', time(token.expires_at)] : text('tokenNone')
}

/** Return how WeChat's messages about an app arrive, and a button that copies the URL to which WeChat sends them. */
function push(app) {
  let mode = tag(text('pushOff'))
  if (app.has_push_aes_key) mode = tag(text('pushAes'), 'ok')
  else if (app.has_push_token) mode = tag(text('pushPlain'), 'note')
  return h('div', { class: 'pair' }, mode, copier(app.push_url, actOn('copyUrl', app.push_url), 'copyUrl'))
}

/** Return the menu of an app. An app from the settings can only be checked. */
function acts(app, reload) {
  const check = actionButtonFor('check', app.app_id, () => showReport(app))
  const isReadOnly = app.source === 'settings'
  if (isReadOnly) return menu(app.app_id, [check])
  return menu(app.app_id, [
    check,
    actionButtonFor('change', app.app_id, () => edit(app, reload)),
    confirmingButtonFor('remove', app.app_id, 'sureRemoveApp', async () => {
      await remove(path(app))
      reload()
    }),
  ])
}

/** Show a dialog with the results of a check of the app's configuration. */
function showReport(app) {
  const place = h('div', {})
  popUp(actOn('check', app.app_id), place, { size: 'wide' })
  load(place, () => post(`${path(app)}/check`), report)
}

/** Show a dialog that checks one app after the other, with how far it is, until the user closes it. */
async function checkAll(apps) {
  const { element, show } = progressOf('checkAll')
  const reports = h('div', { class: 'stack' })
  const of = number(apps.length)
  const shown = popUp(text('checkAll'), [element, reports], { size: 'wide' })
  for (const [index, app] of apps.entries()) {
    show(text('appsChecked', { n: number(index), of }), index / apps.length)
    const findings = await post(`${path(app)}/check`).then(report, failed)
    if (!shown.isConnected) return
    reports.append(h('section', {}, h('h3', {}, app.title ? `${app.title} ` : null, code(app.app_id)), findings))
  }
  show(text('appsChecked', { n: of, of }), 1)
}

/** Show the dialog that changes an app or, without one, adds an app. */
function edit(app, reload) {
  const stored = { is_enabled: true, check: true, ...app }
  const wordsOrEmpty = (typed) => (typed ? words(typed) : '')
  const numberOrEmpty = (typed) => (typed ? Number(typed) : '')
  const secret = (name, label, isStored) =>
    field({ name, label, type: 'password', hint: text(isStored ? 'leaveEmpty' : 'optional') })
  const logo = logoField()
  const fields = [
    app ? null : field({ name: 'app_id', label: text('appId'), required: true, pattern: '[A-Za-z0-9_\\-]{1,64}' }),
    app
      ? null
      : field({
          name: 'kind',
          label: text('appKind'),
          type: 'select',
          value: 'mini_program',
          options: KINDS.map((kind) => [kind, text(kind)]),
        }),
    field({ name: 'title', label: text('clientTitle'), value: stored.title, hint: text('appTitleHint') }),
    logo,
    app
      ? secret('app_secret', text('appSecret'), true)
      : field({ name: 'app_secret', label: text('appSecret'), type: 'password', required: true }),
    secret('push_token', text('pushToken'), stored.has_push_token),
    secret('push_aes_key', text('pushAesKey'), stored.has_push_aes_key),
    field({
      name: 'push_forward',
      label: text('pushForward'),
      type: 'url',
      value: stored.push_forward,
      hint: text('pushForwardHint'),
    }),
    field({
      name: 'unionid',
      label: 'unionid',
      type: 'select',
      value: stored.unionid,
      options: optionsOf(app ? UNIONIDS : { '': 'unionidDefault', ...UNIONIDS }),
    }),
    field({
      name: 'sign_up',
      label: text('signUp'),
      type: 'select',
      value: stored.sign_up,
      options: optionsOf(SIGN_UPS),
    }),
    withChoices(
      field({
        name: 'sign_up_roles',
        label: text('signUpRoles'),
        value: stored.sign_up_roles?.join(', '),
        hint: text('signUpRolesHint'),
        read: wordsOrEmpty,
      }),
      knownRoles().then((roles) => roles.filter((role) => !STAFF_ROLES.includes(role)).map((role) => [role])),
    ),
    field({
      name: 'js_hosts',
      label: text('jsHosts'),
      value: stored.js_hosts?.join(', '),
      hint: text('jsHostsHint'),
      read: wordsOrEmpty,
    }),
    field({
      name: 'max_sessions',
      label: text('maxSessions'),
      type: 'number',
      value: stored.max_sessions,
      hint: text('maxSessionsHint'),
      read: numberOrEmpty,
    }),
    claimsField(stored.claims, 'appClaimsHint'),
    field({ name: 'is_enabled', label: text('enabled'), type: 'checkbox', value: stored.is_enabled }),
    field({ name: 'check', label: text('checkFirst'), type: 'checkbox', value: stored.check }),
  ].filter(Boolean)
  dialog({
    title: app ? actOn('change', app.app_id) : text('operation_add_app'),
    fields,
    name: app ? 'save' : 'add',
    onsubmit: async (values) => {
      const body = bodyOf(values, { ...stored, logo: null })
      body.logo = await logo.picture()
      // The form also shows the value of the default. Without a change, it must not be stored.
      if (app?.unionid === body.unionid) delete body.unionid
      if (app) await patch(path(app), body)
      else await post('/apps', body)
      toast(text('done'))
      reload()
    },
  })
}
