"""The statements of an import, which find or write the rows for a whole batch of lines, and the query of an export.

A statement with the parameter `rows` gets the rows to write as one JSON document, which PostgreSQL expands into rows.
For the rows of one batch, this is as fast as COPY into a temporary table. Unlike COPY, it needs no privilege to create
tables, and does not bloat the catalogue with a table for each batch.
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
from wxauth.core.users import IS_ADMINISTRATOR, UserFields
from wxauth.import_export.lines import IdentityKey
from wxauth.sessions.queries import identity_parameters
from wxauth.users.consent_queries import PRESENT_CONSENTS
from wxauth.users.status_queries import LockedUser
from wxauth.users.user_queries import ids_fragment

_PAGE_SIZE: Final = 1000
"""The largest number of exported lines that one request to the database returns."""

Row = TypeVar("Row", bound=tuple[object, ...])
Key = TypeVar("Key")
Value = TypeVar("Value")


class UserToImport(UserFields, LockedUser):
    """A user who is already stored, or whom a batch creates, with all columns that an import reads or writes."""


def new_user(user_id: UUID, created_at: datetime) -> UserToImport:
    """Return a new, active user with only an id and a time of creation."""
    values = {"id": user_id, "created_at": created_at, "roles": [], "status": "active"}
    return model_of(UserToImport, {**dict.fromkeys(UserToImport.model_fields), **values})


class StoredIdentity(NamedTuple):
    """An identity as it is stored, or as earlier lines have changed it."""

    user_id: UUID
    unionid: str | None
    created_at: datetime


ConsentKey = tuple[str, str, datetime]
"""The key of a consent: its document, its version, and the time at which it was given."""


class Wanted(NamedTuple):
    """The ids and phone numbers in the lines of a batch."""

    identities: Sequence[IdentityKey]
    """The key of each line, even of a line without an identity (see `IdentityKey`)."""
    unionids: Sequence[tuple[str, str]]
    """The unionids, each with the app of its line."""
    external_ids: Sequence[str]
    user_ids: Sequence[UUID]
    """The current and former ids of users."""
    phones: Sequence[str]


class Found(NamedTuple):
    """The data that is stored under the ids and phone numbers in a batch."""

    identities: dict[IdentityKey, StoredIdentity]
    unionids: dict[str, UUID]
    openids: dict[tuple[str, str], str]
    """The openids, by app and unionid."""
    external_ids: dict[str, UUID]
    """The id of the user who has each external id as the current external id or as a former one."""
    current_ids: frozenset[UUID]
    """The ids in the batch that are the current id of a user."""
    former_ids: dict[UUID, UUID]
    """The id of the user who has each of these ids as a former id, because of a merge."""
    erased_ids: frozenset[UUID]
    """The ids in the batch that belonged to an erased user, as the current id or as a former id."""
    phone_holders: dict[str, set[UUID]]
    """The users who have verified each phone number."""
    users: Sequence[UserToImport]
    """The users whom the caller has locked."""
    consents: dict[UUID, set[ConsentKey]]
    """Every consent that each locked user has ever given, including withdrawn ones."""
    apps_of_users: dict[UUID, set[str]]
    """For each locked user, the apps that the lines name, and in which the user has an openid."""

    @property
    def user_ids(self) -> frozenset[UUID]:
        """The ids of the stored users whom the batch names. The caller locks these users.

        The batch names a user by an openid, a unionid, a current or former external id, or the user's current id.
        Users whom it names only by a former id are not included.
        """
        owners = (identity.user_id for identity in self.identities.values())
        return frozenset((*owners, *self.unionids.values(), *self.external_ids.values(), *self.current_ids))


RowsByStatement = Mapping[Statement[Nothing], Sequence[object]]
"""The rows to write with each statement, in the order in which the statements must run."""


@dataclass(frozen=True, slots=True)
class ChangedConsents:
    """A user's consents before and after a batch. None means that there are none.

    The keys are the names of the documents, and the values are the versions.
    """

    user_id: UUID
    before: dict[str, str] | None
    after: dict[str, str] | None


_USER_TO_IMPORT: Final = ", ".join(f"users.{name}" for name in columns_of(UserToImport))
# This statement finds the stored identities. `app_ids` and `openids` are parallel arrays.
_IDENTITIES: Final = Statement[tuple[str, str, UUID, str | None, datetime]]("""
SELECT app_id, openid, user_id, i.unionid, created_at
  FROM unnest(:app_ids::text[], :openids::text[]) AS wanted (app_id, openid) JOIN identities i USING (app_id, openid)
""")
# This statement finds the openid of each unionid in an app. `app_ids` and `unionids` are parallel arrays.
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
# This statement finds the erased ids among `:ids`. An erased id belonged to an erased user, either as the current id or
# as a former id.
_ERASED_IDS: Final = Statement[tuple[UUID]]("""
SELECT user_id AS id FROM events WHERE user_id = ANY (:ids) AND type = 'user.erased'
 UNION
SELECT wanted.id
  FROM unnest(:ids::uuid[]) AS wanted (id)
 WHERE wanted.id::text IN (SELECT jsonb_array_elements_text(data -> 'former_ids') FROM events
                            WHERE type = 'user.erased' AND data -> 'former_ids' <> '[]')
""")
# The statement locks users in the order of their ids, as all code does, because different orders could deadlock.
LOCK: Final = Statement[UserToImport](
    f"SELECT {_USER_TO_IMPORT} FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR NO KEY UPDATE"
)
# A batch needs this statement if a line would remove an administrator. Without the locks on all administrators, other
# transactions might remove the other administrators at the same time.
LOCK_WITH_ADMINISTRATORS: Final = Statement[UserToImport](f"""
SELECT {_USER_TO_IMPORT} FROM users WHERE id = ANY (:user_ids) OR ({IS_ADMINISTRATOR})
 ORDER BY id FOR NO KEY UPDATE
""")
# The result includes consents that are stored under a former id of the user.
_CONSENTS: Final = Statement[tuple[UUID, str, str, datetime]]("""
SELECT all_ids.user_id, document, version, given_at
  FROM (SELECT id, id AS user_id FROM unnest(:user_ids::uuid[]) AS wanted (id)
         UNION ALL
        SELECT id, user_id FROM former_users WHERE user_id = ANY (:user_ids)) AS all_ids
  JOIN consents ON consents.user_id = all_ids.id
""")
_STATUS_COLUMNS: Final = ("roles", "status", "ban_reason", "banned_until")
# In each statement below that has the parameter `rows`, the keys of the rows are the names of the table's columns.
# `_UPDATE_CONSENTS` sets users.consents, and `change_status_and_roles` sets the status and the roles of stored users.
_USER_COLUMNS: Final[list[LiteralString]] = [name for name in columns_of(UserToImport) if name != "consents"]
_CHANGED_COLUMNS: Final[list[LiteralString]] = [name for name in _USER_COLUMNS if name not in ("id", *_STATUS_COLUMNS)]


def _insert_into(table: LiteralString, *columns: LiteralString) -> Statement[Nothing]:
    """Return the statement that adds rows to a table.

    The statement names the columns, so that a column that a newer version has added gets its default.
    """
    named = ", ".join(columns)
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
# A trigger of the users table has already added the unionid in users.unionid, and adding it again would fail.
ADD_UNIONIDS: Final = Statement[Nothing]("""
INSERT INTO unionids (unionid, user_id)
SELECT given.unionid, given.user_id FROM jsonb_populate_recordset(NULL::unionids, :rows) AS given
 WHERE NOT EXISTS (SELECT FROM unionids WHERE unionids.unionid = given.unionid AND unionids.user_id = given.user_id)
""")
CHANGE_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities SET unionid = given.unionid, created_at = given.created_at
  FROM jsonb_populate_recordset(NULL::identities, :rows) AS given
 WHERE identities.app_id = given.app_id AND identities.openid = given.openid
""")
# A login whose openid and unionid are both stored does not check whether they belong to the same user. If an imported
# openid equals the unionid of a user, one of the two is probably wrong. This statement makes the user's next login
# check the openid. The time is the database's, because other statements compare the column with now(), too.
_CHECK_AT_NEXT_LOGIN: Final = Statement[Nothing]("""
UPDATE users SET identity_lost_at = now()
  FROM unnest(:app_ids::text[], :openids::text[]) AS given (app_id, openid)
  JOIN identities USING (app_id, openid) JOIN unionids ON unionids.unionid = openid
 WHERE awaits_login AND users.id = unionids.user_id
""")
# The outer query returns the old value of users.consents, because it does not see the changes of the UPDATE.
_UPDATE_CONSENTS: Final = Statement[ChangedConsents](f"""
WITH updated AS (
    UPDATE users SET consents = {PRESENT_CONSENTS} WHERE id = ANY (:user_ids) RETURNING id, consents
)
SELECT id AS user_id, users.consents AS before, updated.consents AS after FROM updated JOIN users USING (id)
""")
_NOT_COPIED: Final = frozenset({"id", "unionid", "external_id", "phone_verified_at", "consents"})
"""The columns that `_EXPORTED_LINES` names explicitly, and `phone_verified_at`, which is not exported."""
_COPIED: Final = ", ".join(f"users.{name}" for name in columns_of(UserFields) if name not in _NOT_COPIED)
# The columns are the fields of an exported line. The first ones have the order of the example in
# docs/start/import-file.md. If no identity of a user has one of the user's unionids, the unionid becomes a line without
# an identity. These lines come after all other lines.
_EXPORTED_LINES: Final = Statement[Mapping[str, object]](f"""
SELECT line.app_id, line.openid, line.unionid, users.external_id, {_COPIED},
       users.id AS user_id, line.created_at AS identity_created_at,
       COALESCE(
           (SELECT jsonb_agg(jsonb_build_object(
                       'document', document, 'version', version,
                       -- The times are in UTC, whichever time zone the connection has.
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
        SELECT NULL, NULL, unionid, user_id, NULL FROM unionids
         WHERE NOT EXISTS (SELECT FROM identities own
                            WHERE own.user_id = unionids.user_id AND own.unionid = unionids.unionid)) line
  JOIN users ON users.id = line.user_id
 ORDER BY line.created_at NULLS LAST, line.app_id, line.openid, users.created_at, users.id, line.unionid
""")


async def find(transaction: Transaction, wanted: Wanted, users: Sequence[UserToImport] = ()) -> Found:
    """Return the data that is stored under the ids and phone numbers in a batch, and the data of `users`.

    The caller must have locked `users`.
    """

    async def look_up(statement: Statement[Row], **keys: Sequence[object]) -> Sequence[Row]:
        """Return the rows that a statement finds for these keys. If a list of keys is empty, send no query."""
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
            IdentityKey(app_id, openid): StoredIdentity(user_id, unionid, created_at)
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
    """Return the second values of the pairs by their first values."""
    groups: dict[Key, set[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, set()).add(value)
    return groups


async def store(
    transaction: Transaction,
    rows_by_statement: RowsByStatement,
    *,
    identities: Collection[IdentityKey],
    givers: Sequence[UUID],
) -> Sequence[ChangedConsents]:
    """Run each statement with its rows, and update and return the consents of `givers`.

    `givers` are the users who have given new consents. `identities` are the identities in the batch. If nobody has
    logged in with one of these identities yet, and its openid is also the unionid of a user, this function makes the
    next login of that user check the identity, because one of the two ids is probably wrong.

    Raises: one of `core.database_errors.CONFLICTS`, if another transaction has written the same data.
    """
    for statement, rows in rows_by_statement.items():
        if rows:
            await transaction.run(statement, rows=rows)
    await transaction.run(_CHECK_AT_NEXT_LOGIN, **identity_parameters(identities))
    return await transaction.rows(_UPDATE_CONSENTS, user_ids=givers) if givers else ()


async def all_identities(database: Database) -> AsyncIterator[Sequence[Mapping[str, object]]]:
    """Yield every identity with its user, in pages of one snapshot.

    The last pages contain every unionid that no identity of its user has.
    """
    async with database.snapshot() as state, aclosing(state.pages(_EXPORTED_LINES, _PAGE_SIZE)) as pages:
        async for rows in pages:
            yield rows
