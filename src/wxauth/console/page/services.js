// The section about service clients and sites.

import { claims, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { appField } from './known.js'
import { act, actAbout, bodyOf, claimsField, code, copier, dialog, facts, field, logoField, menu, optionsOf, popUp, showSecret, sureAbout, tag, ticks, time, toast, words } from './parts.js'
import { searchedList } from './search.js'
import { actOn, text } from './texts.js'

const path = ({ name }) => `/clients/${encodeURIComponent(name)}`
const SERVICE_SCOPES = ['introspect', 'users', 'phones', 'unionids', 'events', 'attributes', 'access_token', 'sign', 'moderate', 'js_sign']
const SITE_SCOPES = ['openid', 'profile', 'phone', 'email', 'roles', 'offline_access']
const isSite = ({ redirect_uris, device, phone_id_token }) => redirect_uris.length > 0 || device || phone_id_token
const isOurs = ({ name }) => name.startsWith('wxauth') // the service refuses to change the clients of its own pages

export function showServices(main, { query }) {
  const add = act('add', () => chooseKind(reload), { kind: 'primary' })
  const reload = searchedList(main, 'services', query, [add], {
    columns: ['name', 'scopes', 'redirectUris', 'acts'],
    ask: () => get('/clients'),
    open: (client) => (isOurs(client) ? null : () => edit(client, reload, isSite(client))),
    cells: (client) => [
      [
        client.logo ? h('img', { class: 'picture small', src: client.logo, alt: '' }) : null,
        client.title ? h('strong', { class: 'title' }, client.title) : null,
        h('code', {}, client.name),
        client.is_public ? h('div', {}, tag(text('isPublic').split(/[:：]/)[0])) : null,
        client.device ? h('div', {}, tag(text('isDevice'))) : null,
        h('small', { class: 'whole' }, `${text('created')} `, time(client.created_at)),
      ].filter(Boolean),
      client.scopes.map((scope) => tag(scope)),
      client.redirect_uris.map((uri) => h('div', {}, code(uri))),
      isOurs(client) ? null : acts(client, reload),
    ],
  })
}

function acts(client, reload) {
  const { name } = client
  const renew = async (values) => showSecret(name, (await post(`${path(client)}/secret`, values)).client_secret)
  const fields = () => [field({ name: 'at_once', label: text('atOnce'), type: 'checkbox' })]
  return menu(name, [
    actAbout('change', name, () => edit(client, reload, isSite(client))),
    actAbout('connect', name, () => connect(client)),
    client.is_public ? null : sureAbout('newSecret', name, 'sureNewSecret', renew, { kind: 'small', fields }),
    sureAbout('remove', name, 'sureRemoveClient', async () => (await remove(path(client)), reload())),
  ].filter(Boolean))
}

// A request to try out each scope of a service client, without the beginning of its URL.
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

/** Show the values to enter in the client's own settings, in the forms that most products use. */
function connect(client) {
  const { name, is_public, scopes } = client
  const { iss } = claims()
  const basic = `curl --user '${name}:SECRET' ${iss}`
  const lines = isSite(client)
    ? [`OIDC_ISSUER=${iss}`, `OIDC_CLIENT_ID=${name}`, is_public ? null : 'OIDC_CLIENT_SECRET=', `OIDC_SCOPES="${scopes.join(' ')}"`].filter(Boolean)
    : Object.entries(FIRST_CALLS).filter(([scope]) => scopes.includes(scope)).slice(0, 1).map(([, call]) => basic + call)
  const ends = { Discovery: '.well-known/openid-configuration', Authorization: 'v1/authorize', Token: 'v1/token', Userinfo: 'v1/userinfo', JWKS: '.well-known/jwks.json', 'End session': 'v1/end_session' }
  const written = lines.join('\n')
  const content = [
    is_public ? null : h('p', {}, text('connectSecret')),
    h('pre', {}, written),
    isSite(client) ? facts(Object.entries(ends).map(([what, end]) => [what, code(`${iss}/${end}`)])) : null,
  ]
  popUp(text('connectTitle', { name }), content, { acts: [copier(written)], size: 'wide' })
}

/** Ask first what to add, because each kind has its own fields. */
function chooseKind(reload) {
  const choice = (name, ofSite) =>
    h('button', { type: 'button', class: 'chip', onclick: () => (choices.close(), edit(null, reload, ofSite)) }, h('div', { class: 'lines' }, h('strong', {}, text(name)), h('small', {}, text(`${name}Hint`))))
  const choices = popUp(text('addService'), [choice('aService', false), choice('aSite', true)], { kind: '' })
}

/** Show the dialog that changes a client or, without one, adds a client. `ofSite` says whether it has a site's fields. */
function edit(client, reload, ofSite) {
  const known = client ?? { scopes: ofSite ? ['openid', 'profile'] : ['introspect'] }
  const logo = logoField()
  const lines = (name, label, hint) => field({ name, label: text(label), type: 'textarea', value: known[name]?.join('\n'), hint: text(hint), read: words })
  const line = (name, label, hint = 'optional') => field({ name, label: text(label), value: known[name], hint: text(hint) })
  const tick = ([name, label]) => field({ name, label: text(label), type: 'checkbox', value: known[name] })
  const app = (name, label, none, kind) => appField({ name, label: text(label), value: known[name] ?? '', none: text(none), kinds: [kind] })
  const resources = lines('resources', 'resources', 'resourcesHint')
  const shown = [
    line('title', 'clientTitle'),
    logo,
    lines('redirect_uris', 'redirectUris', 'onePerLine'),
    ticks({ name: 'scopes', label: text('scopes'), value: known.scopes, known: SITE_SCOPES }),
  ]
  const further = [
    ticks({ name: 'service_scopes', label: text('serviceScopes'), value: known.scopes, known: SERVICE_SCOPES }),
    lines('logout_uris', 'logoutUris', 'onePerLine'),
    line('backchannel_logout_uri', 'backchannelLogoutUri'),
    app('app_id', 'app', 'defaultApp', 'mini_program'),
    app('account_app_id', 'accountApp', 'none', 'official_account'),
    app('website_app_id', 'websiteApp', 'none', 'website'),
    line('email_domain', 'emailDomain'),
    field({ name: 'id_token_alg', label: text('idTokenAlg'), type: 'select', value: known.id_token_alg === 'ES256' ? 'ES256' : '', options: [['', 'RS256'], ['ES256', 'ES256']] }),
    field({ name: 'pkce', label: text('pkce'), type: 'select', value: known.pkce === 'optional' ? 'optional' : '', options: optionsOf({ '': 'required', optional: 'optional' }) }),
    ...(client ? [] : [['is_public', 'isPublic']]).map(tick),
    ...Object.entries({ device: 'isDevice', near: 'near', user_code: 'userCode', link: 'link', sso: 'sso' }).map(tick),
    claimsField(known.claims, 'claimsHint'),
    tick(['phone_id_token', 'phoneIdToken']),
    resources,
  ]
  const more = { members: further, element: h('details', { open: Boolean(client) }, h('summary', {}, text('furtherFields')), h('div', { class: 'stack' }, further.map((each) => each.element))) }
  const fields = [
    client ? null : field({ name: 'name', label: text('name'), required: true, pattern: '[a-z0-9][a-z0-9_\\-]{0,63}' }),
    ...(ofSite ? [...shown, more] : [ticks({ name: 'scopes', label: text('scopes'), value: known.scopes, known: SERVICE_SCOPES }), resources]),
  ].filter(Boolean)
  dialog({
    title: client ? actOn('change', client.name) : actOn('add', text(ofSite ? 'aSite' : 'aService')),
    fields,
    name: client ? 'save' : 'add',
    // Without one of these values, the service would store a service client.
    allow: (values) => !ofSite || Boolean(values.redirect_uris.length || values.device || values.phone_id_token),
    onsubmit: async ({ service_scopes = [], scopes, ...values }) => {
      const body = bodyOf({ ...values, scopes: [...scopes, ...service_scopes] }, { ...client, logo: null })
      body.logo = await logo.picture()
      const answer = client ? await patch(path(client), body) : await post('/clients', body)
      if (answer.client_secret) showSecret(answer.name, answer.client_secret)
      else toast(text('done'))
      reload()
    },
  })
}
