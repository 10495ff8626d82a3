// The section about service clients, which call the service's API, and sites, whose users log in with wxauth.

import { claims, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { appField } from './known.js'
import {
  actionButton,
  actionButtonFor,
  bodyOf,
  claimsField,
  code,
  copier,
  dialog,
  facts,
  field,
  logoField,
  menu,
  named,
  optionsOf,
  pictured,
  popUp,
  showSecret,
  confirmingButtonFor,
  tag,
  ticks,
  time,
  toast,
  words,
} from './parts.js'
import { searchedList } from './search.js'
import { actOn, text } from './texts.js'

const SERVICE_SCOPES = [
  'introspect',
  'users',
  'phones',
  'unionids',
  'events',
  'attributes',
  'access_token',
  'sign',
  'moderate',
  'js_sign',
]
const SITE_SCOPES = ['openid', 'profile', 'phone', 'email', 'roles', 'offline_access']
const isSite = ({ redirect_uris, device, phone_id_token }) => redirect_uris.length > 0 || device || phone_id_token
const isOurs = ({ name }) => name.startsWith('wxauth') // the service refuses to change the clients of its own pages
const path = ({ name }) => `/clients/${encodeURIComponent(name)}`

// For each scope of a service client, a request to try it out, which follows the issuer's URL in a curl command.
const FIRST_CALLS = {
  users: '/v1/users/USER_ID',
  introspect: '/v1/introspect --data token=TOKEN',
  events: '/v1/events',
  access_token: '/v1/apps/APP_ID/access-token',
  sign: `/v1/apps/APP_ID/signatures --json '{"openid": "OPENID", "data": "TEXT"}'`,
  attributes: `/v1/users/USER_ID/attributes --request PATCH --json '{"tier": "gold"}'`,
  moderate: '/v1/users/USER_ID/sessions --request DELETE',
  js_sign: `/v1/apps/APP_ID/js-signatures --json '{"url": "https://PAGE"}'`,
  phones: '/v1/users/USER_ID # with the scope users, too',
  unionids: `/v1/users/lookup --json '{"unionids": ["UNIONID"]}' # with the scope users, too`,
}

// The endpoints that a site's settings ask for, under the names that most products give them.
const ENDPOINTS = {
  Discovery: '.well-known/openid-configuration',
  Authorization: 'v1/authorize',
  Token: 'v1/token',
  Userinfo: 'v1/userinfo',
  JWKS: '.well-known/jwks.json',
  'End session': 'v1/end_session',
}

export function showServices(main, { query }) {
  const add = actionButton('add', () => chooseKind(reload), { kind: 'primary add' })
  const reload = searchedList(main, 'services', query, [add], {
    columns: ['name', 'scopes', 'redirectUris', 'created', 'acts'],
    ask: () => get('/clients'),
    open: (client) => (isOurs(client) ? null : () => edit(client, reload, isSite(client))),
    cells: (client) => [
      named(
        pictured(isSite(client) ? 'site' : 'service', client.logo),
        client.title,
        client.name,
        client.is_public ? text('isPublic').split(/[:：]/)[0] : text('isConfidential'), // the text explains the word
        ...(client.device ? [text('isDevice')] : []),
      ),
      client.scopes.map((scope) => tag(scope)),
      client.redirect_uris.map((uri) => h('div', {}, code(uri))),
      time(client.created_at),
      isOurs(client) ? null : acts(client, reload),
    ],
  })
}

function acts(client, reload) {
  const { name } = client
  const renewSecret = async (values) => {
    const { client_secret } = await post(`${path(client)}/secret`, values)
    showSecret(name, client_secret)
  }
  const fields = () => [field({ name: 'at_once', label: text('atOnce'), type: 'checkbox' })]
  const removeClient = async () => {
    await remove(path(client))
    reload()
  }
  const buttons = [
    actionButtonFor('change', name, () => edit(client, reload, isSite(client))),
    actionButtonFor('connect', name, () => connect(client)),
    client.is_public
      ? null
      : confirmingButtonFor('newSecret', name, 'sureNewSecret', renewSecret, { kind: 'small', fields }),
    confirmingButtonFor('remove', name, 'sureRemoveClient', removeClient),
  ]
  return menu(name, buttons.filter(Boolean))
}

/** Show the values to enter in the client's own settings, in the forms that most products use. */
function connect(client) {
  const { name, is_public } = client
  const { iss } = claims()
  const settings = isSite(client) ? settingsOfSite(client, iss) : firstCall(client, iss)
  const endpoints = Object.entries(ENDPOINTS).map(([label, endpoint]) => [label, code(`${iss}/${endpoint}`)])
  const content = [
    is_public ? null : h('p', {}, text('connectSecret')),
    h('pre', {}, settings),
    isSite(client) ? facts(endpoints) : null,
  ]
  popUp(text('connectTitle', { name }), content, { acts: [copier(settings)], size: 'wide' })
}

/** Return the environment variables for a site. The administrator fills in the secret. */
function settingsOfSite({ name, is_public, scopes }, issuer) {
  const lines = [
    `OIDC_ISSUER=${issuer}`,
    `OIDC_CLIENT_ID=${name}`,
    is_public ? null : 'OIDC_CLIENT_SECRET=',
    `OIDC_SCOPES="${scopes.join(' ')}"`,
  ]
  return lines.filter(Boolean).join('\n')
}

/** Return a command that tries out a scope of a service client; empty if there is none for its scopes. */
function firstCall({ name, scopes }, issuer) {
  const scope = Object.keys(FIRST_CALLS).find((each) => scopes.includes(each))
  return scope ? `curl --user '${name}:SECRET' ${issuer}${FIRST_CALLS[scope]}` : ''
}

/** Ask whether to add a service client or a site, because each kind has its own fields. */
function chooseKind(reload) {
  const choice = (name, ofSite) => {
    const onclick = () => {
      choices.close()
      edit(null, reload, ofSite)
    }
    const label = h('div', { class: 'lines' }, h('strong', {}, text(name)), h('small', {}, text(`${name}Hint`)))
    return h('button', { type: 'button', class: 'chip', onclick }, label)
  }
  const choices = popUp(text('addService'), [choice('aService', false), choice('aSite', true)], { kind: '' })
}

/**
 * Show the dialog that changes a client or, without one, adds a client. `ofSite` says whether it has a site's fields.
 */
function edit(client, reload, ofSite) {
  const stored = client ?? { scopes: ofSite ? ['openid', 'profile'] : ['introspect'] }
  const logo = logoField()
  const lines = (name, label, hint) =>
    field({
      name,
      label: text(label),
      type: 'textarea',
      value: stored[name]?.join('\n'),
      hint: text(hint),
      read: words,
    })
  const line = (name, label) => field({ name, label: text(label), value: stored[name], hint: text('optional') })
  const tick = (name, label) => field({ name, label: text(label), type: 'checkbox', value: stored[name] })
  const scopeTicks = (name, label, known) => ticks({ name, label: text(label), value: stored.scopes, known })
  const app = (name, label, none, kind) =>
    appField({ name, label: text(label), value: stored[name] ?? '', none: text(none), kinds: [kind] })
  const resources = lines('resources', 'resources', 'resourcesHint')
  const mainFields = [
    line('title', 'clientTitle'),
    logo,
    lines('redirect_uris', 'redirectUris', 'onePerLine'),
    scopeTicks('scopes', 'scopes', SITE_SCOPES),
  ]
  const furtherFields = [
    scopeTicks('service_scopes', 'serviceScopes', SERVICE_SCOPES),
    lines('logout_uris', 'logoutUris', 'onePerLine'),
    line('backchannel_logout_uri', 'backchannelLogoutUri'),
    app('app_id', 'app', 'defaultApp', 'mini_program'),
    app('account_app_id', 'accountApp', 'none', 'official_account'),
    app('website_app_id', 'websiteApp', 'none', 'website'),
    line('email_domain', 'emailDomain'),
    tick('omit_email_verified', 'omitEmailVerified'),
    tick('i_verify_this_address', 'verifyAddress'),
    field({
      name: 'id_token_ttl',
      label: text('idTokenTtl'),
      type: 'number',
      value: stored.id_token_ttl,
      min: 60,
      hint: text('idTokenTtlHint'),
      read: (typed) => (typed ? Number(typed) : ''),
    }),
    field({
      name: 'id_token_alg',
      label: text('idTokenAlg'),
      type: 'select',
      value: stored.id_token_alg === 'ES256' ? 'ES256' : '',
      options: [
        ['', 'RS256'],
        ['ES256', 'ES256'],
      ],
    }),
    field({
      name: 'pkce',
      label: text('pkce'),
      type: 'select',
      value: stored.pkce === 'optional' ? 'optional' : '',
      options: optionsOf({ '': 'required', optional: 'optional' }),
    }),
    ...(client ? [] : [tick('is_public', 'isPublic')]),
    tick('device', 'isDevice'),
    tick('near', 'near'),
    tick('user_code', 'userCode'),
    tick('link', 'link'),
    tick('sso', 'sso'),
    claimsField(stored.claims, 'claimsHint'),
    tick('phone_id_token', 'phoneIdToken'),
    resources,
  ]
  const furtherElements = furtherFields.map(({ element }) => element)
  const further = {
    members: furtherFields,
    element: h(
      'details',
      { open: Boolean(client) },
      h('summary', {}, text('furtherFields')),
      h('div', { class: 'stack' }, furtherElements),
    ),
  }
  const fields = [
    client ? null : field({ name: 'name', label: text('name'), required: true, pattern: '[a-z0-9][a-z0-9_\\-]{0,63}' }),
    ...(ofSite ? [...mainFields, further] : [scopeTicks('scopes', 'scopes', SERVICE_SCOPES), resources]),
  ].filter(Boolean)
  dialog({
    title: client ? actOn('change', client.name) : actOn('add', text(ofSite ? 'aSite' : 'aService')),
    fields,
    name: client ? 'save' : 'add',
    // Without one of these values, the service would store the site as a service client.
    allow: (values) => !ofSite || Boolean(values.redirect_uris.length || values.device || values.phone_id_token),
    onsubmit: async ({ service_scopes = [], scopes, ...values }) => {
      const body = bodyOf({ ...values, scopes: [...scopes, ...service_scopes] }, { ...client, logo: null })
      body.logo = await logo.picture()
      const response = client ? await patch(path(client), body) : await post('/clients', body)
      if (response.client_secret) showSecret(response.name, response.client_secret)
      else toast(text('done'))
      reload()
    },
  })
}
