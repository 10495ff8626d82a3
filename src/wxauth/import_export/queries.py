"""The statements of an import, which find or write the rows for a whole batch of lines, and of an export.

The parameter `rows` is one JSON document, whose keys are the names of columns, and which PostgreSQL expands. This is as
fast as COPY into a temporary table, needs no privilege to create tables, and does not bloat the catalogue with a table
for each batch.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final, LiteralString, NamedTuple, TypeVar
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement, columns_of, model_of
from wxauth.core.users import IS_ADMINISTRATOR, LAST_SEEN_AT, UserFields
from wxauth.import_export.lines import IdentityKey
from wxauth.sessions.queries import identity_parameters
from wxauth.users.consent_queries import PRESENT_CONSENTS
from wxauth.users.status_queries import LockedUser
from wxauth.users.user_queries import ids_fragment

_PAGE_SIZE: Final = 1000

Row = TypeVar("Row", bound=tuple[object, ...])
Key = TypeVar("Key")
Value = TypeVar("Value")


class UserToImport(UserFields, LockedUser):
    """A user who is already stored, or whom a batch creates."""


def new_user(user_id: UUID, created_at: datetime) -> UserToImport:
    """Return a new, active user with only an id and a time of creation."""
    values = {"id": user_id, "created_at": created_at, "roles": [], "status": "active"}
    return model_of(UserToImport, {**dict.fromkeys(UserToImport.model_fields), **values})


class IdentityData(NamedTuple):
    """An identity as it is stored, or as the lines so far have added or changed it."""

    user_id: UUID
    unionid: str | None
    created_at: datetime


ConsentKey = tuple[str, str, datetime]  # the document, the version, and the time at which it was given


class Wanted(NamedTuple):
    """The ids and phone numbers in the lines of a batch."""

    identities: Sequence[IdentityKey]  # even of lines without an identity (see `IdentityKey`)
    unionids: Sequence[tuple[str, str]]  # each with the app of its line
    external_ids: Sequence[str]
    user_ids: Sequence[UUID]  # current and former ids
    phones: Sequence[str]


class Found(NamedTuple):
    """The data that is stored under the ids and phone numbers in a batch."""

    identities: dict[IdentityKey, IdentityData]
    unionids: dict[str, UUID]
    openids: dict[tuple[str, str], str]  # by app and unionid
    external_ids: dict[str, UUID]  # current and former ones
    current_ids: frozenset[UUID]
    former_ids: dict[UUID, UUID]
    erased_ids: frozenset[UUID]  # current and former ids of erased users
    phone_holders: dict[str, set[UUID]]  # the users who have verified each number
    users: Sequence[UserToImport]  # those whom the caller has locked
    consents: dict[UUID, set[ConsentKey]]  # all that each locked user has ever given, including withdrawn ones
    apps_of_users: dict[UUID, set[str]]  # those apps of the batch in which each locked user has an openid

    @property
    def user_ids(self) -> frozenset[UUID]:
        """The users whom the batch names not only by a former id. The caller locks them."""
        owners = (identity.user_id for identity in self.identities.values())
        return frozenset((*owners, *self.unionids.values(), *self.external_ids.values(), *self.current_ids))


RowsByStatement = Mapping[Statement[Nothing], Sequence[object]]  # in the order in which the statements must run


@dataclass(frozen=True, slots=True)
class ChangedConsents:
    """A user's consents before and after a batch: versions by document."""

    user_id: UUID
    before: dict[str, str] | None
    after: dict[str, str] | None


_USER_TO_IMPORT: Final = ", ".join(f"users.{name}" for name in columns_of(UserToImport))

_IDENTITIES: Final = Statement[tuple[str, str, UUID, str | None, datetime]]("""
SELECT app_id, openid, user_id, i.unionid, created_at
  FROM unnest(:app_ids::text[], :openids::text[]) AS wanted (app_id, openid) JOIN identities i USING (app_id, openid)
""")
_OPENIDS: Final = Statement[tuple[str, str, str]]("""
SELECT app_id, unionid, openid FROM unnest(:app_ids::text[], :unionids::text[]) AS wanted (app_id, unionid)
  JOIN identities USING (app_id, unionid)
""")
_APPS_OF_USERS: Final = Statement[tuple[UUID, str]](
    "SELECT DISTINCT user_id, app_id FROM identities WHERE user_id = ANY (:user_ids) AND app_id = ANY (:app_ids)"
)
_UNIONIDS: Final = Statement[tuple[str, UUID]]("SELECT unionid, user_id FROM unionids WHERE unionid = ANY (:unionids)")
_EXTERNAL_IDS: Final = Statement[tuple[str, UUID]]("""
SELECT external_id, id FROM users WHERE external_id = ANY (:external_ids)
 UNION ALL
SELECT external_id, user_id FROM former_external_ids WHERE external_id = ANY (:external_ids)
""")
_CURRENT_IDS: Final = Statement[tuple[UUID]]("SELECT id FROM users WHERE id = ANY (:ids)")
_FORMER_IDS: Final = Statement[tuple[UUID, UUID]]("SELECT id, user_id FROM former_users WHERE id = ANY (:ids)")
_PHONE_HOLDERS: Final = Statement[tuple[str, UUID]](
    "SELECT phone, id FROM users WHERE phone = ANY (:phones) AND phone_verified_at IS NOT NULL"
)
_ERASED_IDS: Final = Statement[tuple[UUID]]("""
SELECT user_id AS id FROM events WHERE user_id = ANY (:ids) AND type = 'user.erased'
 UNION
SELECT wanted.id
  FROM unnest(:ids::uuid[]) AS wanted (id)
 WHERE wanted.id::text IN (SELECT jsonb_array_elements_text(data -> 'former_ids') FROM events
                            WHERE type = 'user.erased' AND data -> 'former_ids' <> '[]')
""")
# Users are locked in the order of their ids, as everywhere, because different orders could deadlock.
LOCK: Final = Statement[UserToImport](
    f"SELECT {_USER_TO_IMPORT} FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR NO KEY UPDATE"
)
# If a line would remove an administrator, others might remove the other administrators at the same time.
LOCK_WITH_ADMINISTRATORS: Final = Statement[UserToImport](f"""
SELECT {_USER_TO_IMPORT} FROM users WHERE id = ANY (:user_ids) OR ({IS_ADMINISTRATOR})
 ORDER BY id FOR NO KEY UPDATE
""")
_CONSENTS: Final = Statement[tuple[UUID, str, str, datetime]]("""
SELECT all_ids.user_id, document, version, given_at
  FROM (SELECT id, id AS user_id FROM unnest(:user_ids::uuid[]) AS wanted (id)
         UNION ALL
        -- consents stay under the id of the user who gave them, even after a merge
        SELECT id, user_id FROM former_users WHERE user_id = ANY (:user_ids)) AS all_ids
  JOIN consents ON consents.user_id = all_ids.id
""")
_STATUS_COLUMNS: Final = ("roles", "status", "ban_reason", "banned_until")
# `_UPDATE_CONSENTS` sets users.consents.
_USER_COLUMNS: Final[list[LiteralString]] = [name for name in columns_of(UserToImport) if name != "consents"]
# `change_status_and_roles` sets the status and the roles of stored users.
_CHANGED_COLUMNS: Final[list[LiteralString]] = [name for name in _USER_COLUMNS if name not in ("id", *_STATUS_COLUMNS)]


def _insert_into(table: LiteralString, *columns: LiteralString) -> Statement[Nothing]:
    named = ", ".join(columns)  # a column that a newer version has added gets its default
    return Statement[Nothing](f"""
INSERT INTO {table} ({named}) SELECT {named} FROM jsonb_populate_recordset(NULL::{table}, :rows)
""")


ADD_USERS: Final = _insert_into("users", *_USER_COLUMNS)
CHANGE_USERS: Final = Statement[Nothing](f"""
UPDATE users
   SET {", ".join(f"{name} = given.{name}" for name in _CHANGED_COLUMNS)}
  FROM jsonb_populate_recordset(NULL::users, :rows) AS given
 WHERE users.id = given.id
""")
ADD_IDENTITIES: Final = _insert_into(
    "identities", "app_id", "openid", "unionid", "user_id", "created_at", "awaits_login"
)
ADD_FORMER_IDS: Final = _insert_into("former_users", "id", "user_id", "merged_at")
ADD_FORMER_EXTERNAL_IDS: Final = _insert_into("former_external_ids", "external_id", "user_id")
ADD_CONSENTS: Final = _insert_into(
    "consents", "id", "user_id", "document", "version", "given_at", "withdrawn_at", "app_id", "ip"
)
ADD_UNIONIDS: Final = Statement[Nothing]("""
INSERT INTO unionids (unionid, user_id)
SELECT given.unionid, given.user_id FROM jsonb_populate_recordset(NULL::unionids, :rows) AS given
 -- a trigger of the users table has already added the unionid in users.unionid, and adding it again would fail
 WHERE NOT EXISTS (SELECT FROM unionids WHERE unionids.unionid = given.unionid AND unionids.user_id = given.user_id)
""")
CHANGE_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities SET unionid = given.unionid, created_at = given.created_at
  FROM jsonb_populate_recordset(NULL::identities, :rows) AS given
 WHERE identities.app_id = given.app_id AND identities.openid = given.openid
""")
# A login whose openid and unionid are both stored does not check whether they belong to one user. If an imported openid
# is a user's unionid, one of the two is probably wrong, so the user's next login checks it.
_CHECK_AT_NEXT_LOGIN: Final = Statement[Nothing]("""
UPDATE users SET identity_lost_at = now()  -- the database's clock, with which a login compares this time
  FROM unnest(:app_ids::text[], :openids::text[]) AS given (app_id, openid)
  JOIN identities USING (app_id, openid) JOIN unionids ON unionids.unionid = openid
 WHERE awaits_login AND users.id = unionids.user_id
""")
_UPDATE_CONSENTS: Final = Statement[ChangedConsents](f"""
WITH updated AS (
    UPDATE users SET consents = {PRESENT_CONSENTS} WHERE id = ANY (:user_ids) RETURNING id, consents
)
-- this query does not see the changes of the UPDATE, so it finds the old value of users.consents
SELECT id AS user_id, users.consents AS before, updated.consents AS after FROM updated JOIN users USING (id)
""")
# An exported line has these under other names or in another form, except `phone_verified_at`, because an imported
# number counts as unverified.
_NOT_COPIED: Final = frozenset({"id", "unionid", "external_id", "phone_verified_at", "consents", "last_refresh_at"})
_COPIED: Final = ", ".join(f"users.{name}" for name in columns_of(UserFields) if name not in _NOT_COPIED)
# The first columns have the order of the example in docs/start/import-file.md.
_EXPORTED_LINES: Final = Statement[Mapping[str, object]](f"""
SELECT line.app_id, line.openid, line.unionid, users.external_id, {_COPIED},
       {LAST_SEEN_AT} AS last_seen_at, users.id AS user_id, line.created_at AS identity_created_at,
       COALESCE(
           (SELECT jsonb_agg(jsonb_build_object(
                       'document', document, 'version', version,
                       -- the times are in UTC, whichever time zone the connection has.
                       'given_at', (to_jsonb(given_at AT TIME ZONE 'UTC') #>> '{{}}') || 'Z',
                       'withdrawn_at', (to_jsonb(withdrawn_at AT TIME ZONE 'UTC') #>> '{{}}') || 'Z',
                       'app_id', app_id, 'ip', abbrev(ip))
                   ORDER BY given_at, document, version, app_id, ip)
              FROM consents
             WHERE consents.user_id = ANY ({ids_fragment("users.id")})), '[]') AS consents,
       ARRAY (SELECT id FROM former_users WHERE former_users.user_id = users.id ORDER BY merged_at, id) AS former_ids,
       users.ban_reason, users.banned_until,
       (SELECT array_agg(former.external_id ORDER BY former.external_id)
          FROM former_external_ids former WHERE former.user_id = users.id) AS former_external_ids
  FROM (SELECT app_id, openid, unionid, user_id, created_at FROM identities
         UNION ALL
        -- a unionid of none of its user's identities becomes a line without an identity, after all others
        SELECT NULL, NULL, unionid, user_id, NULL FROM unionids
         WHERE NOT EXISTS (SELECT FROM identities own
                            WHERE own.user_id = unionids.user_id AND own.unionid = unionids.unionid)) line
  JOIN users ON users.id = line.user_id
 ORDER BY line.created_at NULLS LAST, line.app_id, line.openid, users.created_at, users.id, line.unionid
""")


async def find(transaction: Transaction, wanted: Wanted, users: Sequence[UserToImport] = ()) -> Found:
    """Return what is stored under the ids and numbers of a batch, and about `users`, whom the caller has locked."""

    async def look_up(statement: Statement[Row], **keys: Sequence[object]) -> Sequence[Row]:
        return await transaction.rows(statement, **keys) if all(keys.values()) else ()

    # This query always has keys, because even a line without an identity has a key (see `IdentityKey`).
    identities = await transaction.rows(_IDENTITIES, **identity_parameters(wanted.identities))
    current_ids = frozenset(chain.from_iterable(await look_up(_CURRENT_IDS, ids=wanted.user_ids)))
    other_ids = list(set(wanted.user_ids) - current_ids)
    former_ids = await look_up(_FORMER_IDS, ids=other_ids)
    erased_ids = await look_up(_ERASED_IDS, ids=other_ids)
    wanted_unionids = [unionid for _, unionid in wanted.unionids]
    unionids = await look_up(_UNIONIDS, unionids=wanted_unionids)
    openids = await look_up(_OPENIDS, app_ids=[app_id for app_id, _ in wanted.unionids], unionids=wanted_unionids)
    external_ids = await look_up(_EXTERNAL_IDS, external_ids=wanted.external_ids)
    phone_holders = await look_up(_PHONE_HOLDERS, phones=wanted.phones)
    locked_ids = [user.id for user in users]
    app_ids = list({app_id for app_id, _ in wanted.identities})
    consents = await look_up(_CONSENTS, user_ids=locked_ids)
    apps_of_users = await look_up(_APPS_OF_USERS, user_ids=locked_ids, app_ids=app_ids)
    return Found(
        identities={
            IdentityKey(app_id, openid): IdentityData(user_id, unionid, created_at)
            for app_id, openid, user_id, unionid, created_at in identities
        },
        unionids=dict(unionids),
        openids={(app_id, unionid): openid for app_id, unionid, openid in openids},
        external_ids=dict(external_ids),
        current_ids=current_ids,
        former_ids=dict(former_ids),
        erased_ids=frozenset(chain.from_iterable(erased_ids)),
        phone_holders=_grouped(phone_holders),
        users=users,
        consents=_grouped((user_id, (document, version, at)) for user_id, document, version, at in consents),
        apps_of_users=_grouped(apps_of_users),
    )


def _grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, set[Value]]:
    groups: dict[Key, set[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, set()).add(value)
    return groups


async def store(
    transaction: Transaction,
    rows_by_statement: RowsByStatement,
    *,
    identities: Collection[IdentityKey],
    consenting_user_ids: Sequence[UUID],
) -> Sequence[ChangedConsents]:
    """Write the rows, and update and return the consents of users. `identities` are all those in the batch.

    Raises: one of `core.outages.CONFLICTS`, if another transaction has written the same data.
    """
    for statement, rows in rows_by_statement.items():
        if rows:
            await transaction.run(statement, rows=rows)
    await transaction.run(_CHECK_AT_NEXT_LOGIN, **identity_parameters(identities))
    return await transaction.rows(_UPDATE_CONSENTS, user_ids=consenting_user_ids) if consenting_user_ids else ()


async def all_identities(database: Database) -> AsyncIterator[Sequence[Mapping[str, object]]]:
    """Yield pages of one snapshot, with each identity and its user. Unionids without an identity come last."""
    async with database.snapshot() as state, aclosing(state.pages(_EXPORTED_LINES, _PAGE_SIZE)) as pages:
        async for rows in pages:
            yield rows
