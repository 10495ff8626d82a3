// The sentences that describe events.

import { serviceOf } from './names.js'
import { code } from './parts.js'
import { dateAndTime, isText, namesOf, number, phrase, text } from './texts.js'

/** The types of events in the audit trail, in the order of their texts. */
export const TYPES = namesOf('event_')

/** The types that other services receive, also by webhook. */
export const SENT_TYPES = TYPES.filter(
  (type) => /^(user|identity|consent|session)\./.test(type) && type !== 'user.exported',
)

/** Return each of these types of events in a pair with its meaning in words. */
export const withMeaning = (types) => types.map((type) => [type, text(`event_${type}`)])

/**
 * Return an event's sentence in pieces, which are texts and elements. An unknown type has no pieces. `link` returns a
 * link to the user with an id.
 */
export function sentence({ type, data, actor }, link) {
  if (!isText(`event_${type}`)) return []
  const isImport = type === 'user.created' && actor === 'operator'
  const details = Object.hasOwn(DETAILS, type) ? DETAILS[type](data, link, actor) : subjectOf(data)
  return [text(isImport ? 'imported' : `event_${type}`), ...details]
}

/** The functions that return the rest of the sentence, for the types whose data needs words of its own. */
const DETAILS = {
  'user.created': ({ roles, hook }) => [
    roles?.length ? text('rolesAdded', { roles: roles.join(', ') }) : '',
    hook ? text('hookNotAsked') : '',
  ],
  'user.merged': ({ former_id, by }, link) => [
    { phone: text('byPhone'), operator: text('byOperator') }[by] ?? '',
    ...(former_id ? phrase('fromUser', { id: link(former_id) }) : []),
  ],
  'user.split': ({ new_user_id }, link) => (new_user_id ? phrase('intoUser', { id: link(new_user_id) }) : []),
  'user.banned': ({ until, reason }) => [
    until ? text('banEnds', { until: dateAndTime(until) }) : '',
    reason ? text('because', { reason }) : '',
  ],
  'user.leaving': ({ erase_at }) => [erase_at ? text('erasedThen', { at: dateAndTime(erase_at) }) : ''],
  'user.roles_changed': ({ before = [], after = [] }) => [
    rolesOnlyIn(after, before, 'rolesAdded'),
    rolesOnlyIn(before, after, 'rolesTaken'),
  ],
  'user.phone_removed': ({ reason }) => [
    isText(`removed_${reason}`) ? text('because', { reason: text(`removed_${reason}`) }) : '',
  ],
  'session.ended': ({ session_ids = [], reason }, _link, actor) => [
    session_ids.length > 1 ? text('sessionsEnded', { n: number(session_ids.length) }) : '',
    isText(`ended_${reason}`) ? text('because', { reason: text(whyEnded(reason, actor)) }) : '',
  ],
  'staff.searched': ({ term, found, count }) => [
    term
      ? text('searchedBy', { term: text(`term_${term}`), n: number(found) })
      : text('manyTimes', { n: number(count) }), // one event for many searches
  ],
  'staff.read': ({ what, user_ids }) => [
    text(`read_${what}`),
    user_ids ? text('readOfMany', { n: number(user_ids.length) }) : '',
  ],
  'console.opened': ({ by }) => [{ scan: text('openedByScan'), link: text('openedByLink') }[by] ?? ''],
}

/** Return the name of the text that says why an actor's change ended a session. */
function whyEnded(reason, actor) {
  if (reason !== 'administrator') return `ended_${reason}`
  if (actor === 'operator') return 'endedByOperator'
  return serviceOf(actor) === null ? 'endedByStaff' : 'endedByService'
}

/** Return the text `name` with the roles of the first list that the second list lacks; empty if there are none. */
function rolesOnlyIn(first, second, name) {
  const roles = first.filter((role) => !second.includes(role))
  return roles.length ? text(name, { roles: roles.join(', ') }) : ''
}

/** Return what an event is about, in pieces: a document, a client, a key, or the changed fields. */
function subjectOf({ document, version, name, client_id, kid, fields, names, label }) {
  const subjects = [
    document ? `${document} ${version}` : null,
    name ?? client_id,
    kid ? code(kid) : null,
    (fields ?? names)?.join(', '),
    label === undefined ? null : String(label),
  ].filter(Boolean)
  if (!subjects.length) return []
  const [first, ...others] = subjects
  return [...phrase('named', { name: first }), ...others.map((other) => `, ${other}`)]
}
