// The apps.

import { get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { knownRoles } from './known.js'
import { forgetTitles } from './names.js'
import { report } from './overview.js'
import { act, actAbout, bodyOf, claimsField, code, copier, dialog, field, load, logoField, menu, optionsOf, popUp, sureAbout, tag, time, toast, withChoices, words } from './parts.js'
import { searchedList } from './search.js'
import { actOn, text } from './texts.js'

const path = ({ app_id }) => `/apps/${encodeURIComponent(app_id)}`

export function showApps(main, { query }) {
  const add = act('add', () => edit(null, reload), { kind: 'primary' })
  const reload = searchedList(main, 'apps', query, [add], {
    columns: ['app', 'state', 'signUp', 'wechatToken', 'push', 'acts'],
    ask: () => (forgetTitles(), get('/apps')),
    open: (app) => (app.source === 'settings' ? null : () => edit(app, reload)),
    cells: (app) => [
      [
        app.logo ? h('img', { class: 'picture small', src: app.logo, alt: '' }) : null,
        app.title ? h('strong', {}, app.title, ' ') : null,
        code(app.app_id),
        h('small', {}, app.is_default ? `${text(app.kind)} · ${text('isDefault')}` : text(app.kind)),
      ].filter(Boolean),
      app.is_enabled ? tag(text('enabled'), 'ok') : tag(text('disabled'), 'bad'),
      text(SIGN_UPS[app.sign_up ?? '']),
      wechatToken(app.wechat_token),
      push(app),
      acts(app, reload),
    ],
  })
}

function wechatToken(state) {
  if (state?.error) return tag(state.error, 'bad')
  return state?.expires_at ? [text('tokenUntil'), ' ', time(state.expires_at)] : text('tokenNone')
}

function push(app) {
  const mode = app.has_push_aes_key ? 'pushAes' : app.has_push_token ? 'pushPlain' : 'pushOff'
  return [
    tag(text(mode), app.has_push_aes_key ? 'ok' : app.has_push_token ? 'note' : ''),
    copier(app.push_url, actOn('copy', app.push_url)),
  ]
}

function acts(app, reload) {
  const check = actAbout('check', app.app_id, () => showReport(app))
  if (app.source === 'settings') return [check, h('small', {}, text('inSettings'))]
  return menu(app.app_id, [
    check,
    actAbout('change', app.app_id, () => edit(app, reload)),
    sureAbout('remove', app.app_id, 'sureRemoveApp', async () => (await remove(path(app)), reload())),
  ])
}

function showReport(app) {
  const place = h('div', {})
  popUp(actOn('check', app.app_id), place, { size: 'wide' })
  load(place, () => post(`${path(app)}/check`), report)
}

const STAFF = ['admin', 'support'] // the roles that new users must not get
const KINDS = ['mini_program', 'official_account', 'website', 'mobile_app']
const SIGN_UPS = { '': 'signUpDefault', open: 'signUpOpen', closed: 'signUpClosed' }
const UNIONIDS = { required: 'unionidRequired', optional: 'unionidOptional' }

/** Show the dialog that changes an app or, without one, adds an app. */
function edit(app, reload) {
  const known = { is_enabled: true, check: true, ...app }
  const several = (typed) => typed && words(typed)
  const secret = (name, label, isThere, required = false) =>
    field({ name, label, type: 'password', required, hint: isThere ? text('leaveEmpty') : required ? undefined : text('optional') })
  const logo = logoField()
  const fields = [
    app ? null : field({ name: 'app_id', label: text('appId'), required: true, pattern: '[A-Za-z0-9_\\-]{1,64}' }),
    app ? null : field({ name: 'kind', label: text('appKind'), type: 'select', value: 'mini_program', options: KINDS.map((kind) => [kind, text(kind)]) }),
    field({ name: 'title', label: text('clientTitle'), value: known.title, hint: text('appTitleHint') }),
    logo,
    secret('app_secret', text('appSecret'), Boolean(app), !app),
    secret('push_token', `${text('push').split(' ')[0]} ${text('pushToken')}`, known.has_push_token),
    secret('push_aes_key', text('pushAesKey'), known.has_push_aes_key),
    field({ name: 'push_forward', label: text('pushForward'), type: 'url', value: known.push_forward, hint: text('pushForwardHint') }),
    field({ name: 'unionid', label: 'unionid', type: 'select', value: known.unionid, options: optionsOf({ ...(app ? {} : { '': 'unionidDefault' }), ...UNIONIDS }) }),
    field({ name: 'sign_up', label: text('signUp'), type: 'select', value: known.sign_up, options: optionsOf(SIGN_UPS) }),
    withChoices(
      field({ name: 'sign_up_roles', label: text('signUpRoles'), value: known.sign_up_roles?.join(', '), hint: text('signUpRolesHint'), read: several }),
      knownRoles().then((roles) => roles.filter((role) => !STAFF.includes(role)).map((role) => [role])),
    ),
    field({ name: 'js_hosts', label: text('jsHosts'), value: known.js_hosts?.join(', '), hint: text('jsHostsHint'), read: several }),
    field({ name: 'max_sessions', label: text('maxSessions'), type: 'number', value: known.max_sessions, hint: text('maxSessionsHint'), read: (typed) => typed && Number(typed) }),
    claimsField(known.claims, 'appClaimsHint'),
    field({ name: 'is_enabled', label: text('enabled'), type: 'checkbox', value: known.is_enabled }),
    field({ name: 'check', label: text('checkFirst'), type: 'checkbox', value: known.check }),
  ].filter(Boolean)
  dialog({
    title: app ? actOn('change', app.app_id) : text('operation_add_app'),
    fields,
    name: app ? 'save' : 'add',
    onsubmit: async (values) => {
      const body = bodyOf(values, { ...known, logo: null })
      body.logo = await logo.picture()
      if (app?.unionid === body.unionid) delete body.unionid // the unionid in force is shown even if it is not set
      await (app ? patch(path(app), body) : post('/apps', body))
      toast(text('done'))
      reload()
    },
  })
}
