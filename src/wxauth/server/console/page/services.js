// The section about service clients and sites.

import { claims, get, patch, post, remove } from './api.js'
import { h } from './dom.js'
import { appField } from './known.js'
import { act, code, copier, dialog, facts, field, list, logoField, popUp, showSecret, sure, tag, ticks, time, toast, typedJson, words } from './parts.js'
import { searchWithin } from './search.js'
import { actOn, text } from './texts.js'

const path = ({ name }) => `/clients/${encodeURIComponent(name)}`
const SERVICE_SCOPES = ['introspect', 'users', 'phones', 'unionids', 'events', 'attributes', 'access_token', 'sign', 'moderate', 'js_sign']
const SITE_SCOPES = ['openid', 'profile', 'phone', 'email', 'roles', 'offline_access']
const isSite = ({ redirect_uris, device, phone_id_token }) => redirect_uris.length > 0 || device || phone_id_token
const isOurs = ({ name }) => name.startsWith('wxauth') // the service refuses to change the clients of its own pages

export function showServices(main, { query }) {
  const search = searchWithin('services', query, act('add', () => chooseKind(reload), { kind: 'primary' }))
  const place = h('div', {})
  const reload = () =>
    list({
      place,
      caption: text('services'),
      nothing: search.nothing,
      columns: ['clientName', 'scopes', 'redirectUris', 'acts'].map(text),
      ask: async (cursor) => search.among(await get('/clients', { cursor })),
      open: (client) => (isOurs(client) ? null : () => ask(client, reload, isSite(client))),
      cells: (client) => [
        [
          client.logo ? h('img', { class: 'picture small', src: client.logo, alt: '' }) : null,
          client.title ? h('strong', { class: 'title' }, client.title) : null,
          h('code', {}, client.name),
          client.is_public ? tag(text('isPublic').split(/[:：]/)[0]) : null,
          client.device ? tag(text('isDevice')) : null,
          h('small', { class: 'whole' }, `${text('created')} `, time(client.created_at)),
        ].filter(Boolean),
        client.scopes.map((scope) => tag(scope)),
        client.redirect_uris.map((uri) => h('div', {}, code(uri))),
        isOurs(client) ? null : acts(client, reload),
      ],
    })
  main.append(search.bar, place)
  reload()
}

function acts(client, reload) {
  const of = (name) => actOn(name, client.name)
  const newSecret = act(
    'newSecret',
    () =>
      sure(of('newSecret'), text('sureNewSecret'), 'newSecret', async (values) => {
        const answer = await post(`${path(client)}/secret`, values)
        showSecret(client.name, answer.client_secret)
      }, [field({ name: 'at_once', label: text('atOnce'), type: 'checkbox' })]),
    { kind: 'small', label: of('newSecret') },
  )
  return [
    act('change', () => ask(client, reload, isSite(client)), { kind: 'small', label: of('change') }),
    act('connect', () => connect(client), { kind: 'small', label: of('connect') }),
    client.is_public ? null : newSecret,
    act(
      'remove',
      () =>
        sure(of('remove'), text('sureRemoveClient'), 'remove', async () => {
          await remove(path(client))
          reload()
        }),
      { kind: 'small danger', label: of('remove') },
    ),
  ].filter(Boolean)
}

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

/** What to enter at the client's end, in the forms that most products have. */
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

/** Ask first what is added: each kind has fields of its own. */
function chooseKind(reload) {
  const choice = (name, ofSite) =>
    h('button', { type: 'button', class: 'chip', onclick: () => (asked.close(), ask(null, reload, ofSite)) }, h('div', { class: 'lines' }, h('strong', {}, text(name)), h('small', {}, text(`${name}Hint`))))
  const asked = popUp(text('addService'), [choice('aService', false), choice('aSite', true)], { kind: '' })
}

function ask(client, reload, ofSite) {
  const known = client ?? { scopes: ofSite ? ['openid', 'profile'] : ['introspect'] }
  const logo = logoField()
  const resources = field({ name: 'resources', label: text('resources'), type: 'textarea', value: (known.resources ?? []).join('\n'), hint: text('resourcesHint') })
  const shown = [
    field({ name: 'title', label: text('clientTitle'), value: known.title ?? '', hint: text('optional') }),
    logo,
    field({ name: 'redirect_uris', label: text('redirectUris'), type: 'textarea', value: (known.redirect_uris ?? []).join('\n'), hint: text('onePerLine') }),
    ticks({ name: 'scopes', label: text('scopes'), value: known.scopes, known: SITE_SCOPES }),
  ]
  const further = [
    ticks({ name: 'service_scopes', label: text('serviceScopes'), value: known.scopes, known: SERVICE_SCOPES }),
    field({ name: 'logout_uris', label: text('logoutUris'), type: 'textarea', value: (known.logout_uris ?? []).join('\n'), hint: text('onePerLine') }),
    field({ name: 'backchannel_logout_uri', label: text('backchannelLogoutUri'), value: known.backchannel_logout_uri ?? '', hint: text('optional') }),
    appField({ name: 'app_id', label: text('app'), value: known.app_id ?? '', none: text('defaultApp'), kinds: ['mini_program'] }),
    appField({ name: 'account_app_id', label: text('accountApp'), value: known.account_app_id ?? '', none: text('noApp'), kinds: ['official_account'] }),
    appField({ name: 'website_app_id', label: text('websiteApp'), value: known.website_app_id ?? '', none: text('noApp'), kinds: ['website'] }),
    field({ name: 'email_domain', label: text('emailDomain'), value: known.email_domain ?? '', hint: text('optional') }),
    field({ name: 'id_token_alg', label: text('idTokenAlg'), type: 'select', value: known.id_token_alg === 'ES256' ? 'ES256' : '', options: [['', 'RS256'], ['ES256', 'ES256']] }),
    field({ name: 'pkce', label: text('pkce'), type: 'select', value: known.pkce === 'optional' ? 'optional' : '', options: [['', text('required')], ['optional', text('optional')]] }),
    client ? null : field({ name: 'is_public', label: text('isPublic'), type: 'checkbox', value: false }),
    field({ name: 'device', label: text('isDevice'), type: 'checkbox', value: known.device }),
    field({ name: 'near', label: text('near'), type: 'checkbox', value: known.near }),
    field({ name: 'user_code', label: text('userCode'), type: 'checkbox', value: known.user_code }),
    field({ name: 'link', label: text('link'), type: 'checkbox', value: known.link }),
    field({ name: 'sso', label: text('sso'), type: 'checkbox', value: known.sso }),
    field({ name: 'claims', label: text('claims'), type: 'textarea', value: known.claims ? JSON.stringify(known.claims) : '', hint: text('claimsHint') }),
    field({ name: 'phone_id_token', label: text('phoneIdToken'), type: 'checkbox', value: known.phone_id_token }),
    resources,
  ].filter(Boolean)
  const more = { members: further, element: h('details', { open: Boolean(client) }, h('summary', {}, text('furtherFields')), h('div', { class: 'stack' }, further.map((each) => each.element))) }
  const fields = [
    client ? null : field({ name: 'name', label: text('clientName'), required: true, pattern: '[a-z0-9][a-z0-9_\\-]{0,63}' }),
    ...(ofSite ? [...shown, more] : [ticks({ name: 'scopes', label: text('scopes'), value: known.scopes, known: SERVICE_SCOPES }), resources]),
  ].filter(Boolean)
  dialog({
    title: client ? actOn('change', client.name) : actOn('add', text(ofSite ? 'aSite' : 'aService')),
    fields,
    name: client ? 'save' : 'add',
    allow: (values) => !ofSite || Boolean(values.redirect_uris || values.device || values.phone_id_token), // what makes it one
    onsubmit: async ({ service_scopes = '', scopes, ...values }) => {
      const body = bodyOf({ ...values, scopes: `${scopes} ${service_scopes}`, logo: '' }, { ...client, logo: '' }, Boolean(client))
      body.logo = await logo.picture()
      const answer = client ? await patch(path(client), body) : await post('/clients', body)
      if (answer.client_secret) showSecret(answer.name, answer.client_secret)
      else toast(text('done'))
      reload()
    },
  })
}

const LISTS = ['scopes', 'resources', 'redirect_uris', 'logout_uris']

/** The request's body: the form's values, except empty ones that were empty before. */
function bodyOf(values, known, isChange) {
  const given = Object.entries(values).map(([name, value]) => [name, LISTS.includes(name) ? words(value) : name === 'claims' && value ? typedJson(value) : value])
  const isEmpty = (value) => value === '' || value === false || (Array.isArray(value) && !value.length)
  const wasEmpty = (name) => isEmpty(known[name] ?? '')
  return Object.fromEntries(
    given
      .filter(([name, value]) => !isEmpty(value) || (isChange && !wasEmpty(name)))
      .map(([name, value]) => [name, value === '' ? null : value]),
  )
}
