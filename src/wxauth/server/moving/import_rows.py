"""The statements of an import. Each finds or writes rows for a whole batch of lines.

A batch is sent as one JSON document, which PostgreSQL turns into rows. For so few rows that is as quick as COPY into a
temporary table. It needs no right to create tables, and does not bloat the catalogue with a table for each batch.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from wxauth.server.consents.rows import PRESENT_CONSENTS
from wxauth.server.core.database import Transaction
from wxauth.server.core.users import USER, UserRow

# $1 app_ids and $2 openids, in pairs
_IDENTITIES: Final = """
SELECT app_id, openid, i.unionid, user_id, created_at
  FROM unnest($1::text[], $2::text[]) AS wanted (app_id, openid) JOIN identities i USING (app_id, openid)
"""
# The openid that has each unionid in an app. $1 app_ids and $2 unionids, in pairs
_OPENIDS: Final = """
SELECT app_id, unionid, openid FROM unnest($1::text[], $2::text[]) AS wanted (app_id, unionid)
  JOIN identities USING (app_id, unionid)
"""
# $1 user ids  $2 app_ids
_APPS_OF_USERS: Final = "SELECT DISTINCT user_id, app_id FROM identities WHERE user_id = ANY ($1) AND app_id = ANY ($2)"
_UNIONIDS: Final = "SELECT unionid, user_id FROM unionids WHERE unionid = ANY ($1)"
_EXTERNAL_IDS: Final = """
SELECT external_id, id FROM users WHERE external_id = ANY ($1)
 UNION ALL
SELECT external_id, user_id FROM former_external_ids WHERE external_id = ANY ($1)
"""
_IDS: Final = "SELECT id FROM users WHERE id = ANY ($1)"
_FORMER_IDS: Final = "SELECT id, user_id FROM former_users WHERE id = ANY ($1)"
_PROVED: Final = "SELECT phone, id FROM users WHERE phone = ANY ($1) AND phone_proved_at IS NOT NULL"
# Which of these ids were erased: a user's own id, and the ids that had been merged into that user. $1 ids
_ERASED: Final = """
SELECT user_id AS id FROM events WHERE user_id = ANY ($1) AND type = 'user.erased'
 UNION
SELECT wanted.id
  FROM unnest($1::uuid[]) AS wanted (id)
 WHERE wanted.id::text IN (SELECT jsonb_array_elements_text(data -> 'former_ids') FROM events
                            WHERE type = 'user.erased' AND data -> 'former_ids' <> '[]')
"""
# In the order of ids: everybody locks users in this order, or two transactions would deadlock.
_LOCK: Final = f"""
SELECT {USER}, ban_reason, banned_until FROM users WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608 - put together from constants
_LOCK_WITH_ADMINISTRATORS: Final = f"""
SELECT {USER}, ban_reason, banned_until
  FROM users WHERE id = ANY ($1) OR ('admin' = ANY (roles) AND status = 'active')
 ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608 - put together from constants
# Also those given under an id that was merged away. $1 user ids
_CONSENTS: Final = """
SELECT known.user_id, document, version, given_at
  FROM (SELECT id, id AS user_id FROM unnest($1::uuid[]) AS wanted (id)
         UNION ALL
        SELECT id, user_id FROM former_users WHERE user_id = ANY ($1)) AS known
  JOIN consents ON consents.user_id = known.id
"""

_USERS_COLUMNS: Final = (
    "id, unionid, nickname, avatar_url, phone, phone_proved_at, roles, status, ban_reason, banned_until, created_at,"
    " last_login_at, external_id"
)


def _adding(table: str, columns: str) -> str:
    return f"""
INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1)
"""  # noqa: S608 - put together from constants


# Of each of the statements below: $1 the rows, with the names of the table's columns
_ADD_USERS: Final = _adding("users", _USERS_COLUMNS)
_CHANGE_USERS: Final = """
UPDATE users
   SET unionid = given.unionid, nickname = given.nickname, avatar_url = given.avatar_url, phone = given.phone,
       phone_proved_at = given.phone_proved_at, created_at = given.created_at, last_login_at = given.last_login_at,
       external_id = given.external_id
  FROM jsonb_populate_recordset(NULL::users, $1) AS given
 WHERE users.id = given.id
"""
# A trigger of the users table has already added the unionid in users.unionid: adding it again would fail.
_ADD_UNIONIDS: Final = """
INSERT INTO unionids (unionid, user_id)
SELECT given.unionid, given.user_id FROM jsonb_populate_recordset(NULL::unionids, $1) AS given
 WHERE NOT EXISTS (SELECT FROM unionids WHERE unionids.unionid = given.unionid AND unionids.user_id = given.user_id)
"""
_ADD_IDENTITIES: Final = _adding("identities", "app_id, openid, user_id, unionid, created_at")
_CHANGE_IDENTITIES: Final = """
UPDATE identities SET unionid = given.unionid, created_at = given.created_at
  FROM jsonb_populate_recordset(NULL::identities, $1) AS given
 WHERE identities.app_id = given.app_id AND identities.openid = given.openid
"""
_ADD_FORMER_IDS: Final = _adding("former_users", "id, user_id, merged_at")
_ADD_FORMER_EXTERNAL_IDS: Final = _adding("former_external_ids", "external_id, user_id")
_ADD_CONSENTS: Final = _adding("consents", "id, user_id, document, version, given_at, withdrawn_at, app_id, ip")
_ADD_EVENTS: Final = _adding("events", "id, type, at, actor, user_id, app_id, data")
# $1 user ids
_NOTE_CONSENTS: Final = f"""
UPDATE users SET consents = {PRESENT_CONSENTS} WHERE id = ANY ($1)
"""  # noqa: S608 - put together from constants

Rows = Sequence[Mapping[str, Any]]


class UserToImport(UserRow):
    """A stored user whom a batch concerns."""

    ban_reason: str | None
    banned_until: datetime | None


class FoundIdentity(NamedTuple):
    """An identity that is stored already."""

    user_id: UUID
    unionid: str | None
    created_at: datetime


class Wanted(NamedTuple):
    """The names and ids in a batch."""

    identities: Sequence[tuple[str, str]]
    unionids: Sequence[tuple[str, str]]
    """Each with the app of its line."""
    external_ids: Sequence[str]
    ids: Sequence[UUID]
    phones: Sequence[str]


class Found(NamedTuple):
    """What is stored already under the names and ids of a batch."""

    identities: dict[tuple[str, str], FoundIdentity]
    unionids: dict[str, UUID]
    openids: dict[tuple[str, str], str]
    """By app and unionid."""
    external_ids: dict[str, UUID]
    """Whose each is now, also where it was the id of a user who was merged into them."""
    ids: frozenset[UUID]
    former_ids: dict[UUID, UUID]
    erased_ids: frozenset[UUID]
    proved: dict[str, list[UUID]]
    """By phone number, the users who have proved it."""

    @property
    def user_ids(self) -> frozenset[UUID]:
        """Every stored user whom the batch concerns."""
        owners = (identity.user_id for identity in self.identities.values())
        return frozenset((*owners, *self.unionids.values(), *self.external_ids.values(), *self.ids))


async def find(transaction: Transaction, wanted: Wanted) -> Found:
    """Find what is stored under the names and ids of a batch."""
    identities = await transaction.fetch(
        _IDENTITIES, [app_id for app_id, _ in wanted.identities], [openid for _, openid in wanted.identities]
    )
    ids = {row["id"] for row in await transaction.fetch(_IDS, wanted.ids)} if wanted.ids else set()
    missing = [user_id for user_id in wanted.ids if user_id not in ids]
    proved: dict[str, list[UUID]] = {}
    for row in await transaction.fetch(_PROVED, wanted.phones) if wanted.phones else ():
        proved.setdefault(row["phone"], []).append(row["id"])
    in_apps = [app_id for app_id, _ in wanted.unionids], [unionid for _, unionid in wanted.unionids]
    erased = await transaction.fetch(_ERASED, missing) if missing else ()
    return Found(
        identities={
            (row["app_id"], row["openid"]): FoundIdentity(row["user_id"], row["unionid"], row["created_at"])
            for row in identities
        },
        unionids=dict(await transaction.fetch(_UNIONIDS, in_apps[1])) if wanted.unionids else {},
        openids={
            (row["app_id"], row["unionid"]): row["openid"]
            for row in (await transaction.fetch(_OPENIDS, *in_apps) if wanted.unionids else ())
        },
        external_ids=dict(await transaction.fetch(_EXTERNAL_IDS, wanted.external_ids)) if wanted.external_ids else {},
        ids=frozenset(ids),
        former_ids=dict(await transaction.fetch(_FORMER_IDS, missing)) if missing else {},
        erased_ids=frozenset(row["id"] for row in erased),
        proved=proved,
    )


async def lock(
    transaction: Transaction, user_ids: Sequence[UUID], *, with_administrators: bool
) -> Sequence[UserToImport]:
    """Lock those of these users who exist, and all administrators, where that is wanted.

    Nobody else changes them until the transaction ends.
    """
    statement = _LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK
    rows: Sequence[UserToImport] = await transaction.fetch(statement, user_ids)
    return rows


async def consents_known(
    transaction: Transaction, user_ids: Sequence[UUID]
) -> Sequence[tuple[UUID, str, str, datetime]]:
    """User, document, version and time of every consent that these users ever gave."""
    return [tuple(row) for row in await transaction.fetch(_CONSENTS, user_ids)]


async def apps_of_users(
    transaction: Transaction, user_ids: Sequence[UUID], app_ids: Sequence[str]
) -> Sequence[tuple[UUID, str]]:
    """Each of these users with each of these apps in which they have an openid."""
    return [tuple(row) for row in await transaction.fetch(_APPS_OF_USERS, user_ids, app_ids)]


async def store(
    transaction: Transaction,
    *,
    new_users: Rows,
    changed_users: Rows,
    unionids: Rows,
    new_identities: Rows,
    changed_identities: Rows,
    former_ids: Rows,
    former_external_ids: Rows,
    consents: Rows,
    events: Rows,
) -> None:
    """Write a batch. Raises: one of `CONFLICTS`."""
    for statement, rows in (
        (_ADD_USERS, new_users),
        (_CHANGE_USERS, changed_users),
        (_ADD_UNIONIDS, unionids),
        (_ADD_IDENTITIES, new_identities),
        (_CHANGE_IDENTITIES, changed_identities),
        (_ADD_FORMER_IDS, former_ids),
        (_ADD_FORMER_EXTERNAL_IDS, former_external_ids),
        (_ADD_CONSENTS, consents),
        (_ADD_EVENTS, events),
    ):
        if rows:
            await transaction.execute(statement, rows)
    if consents:
        await transaction.execute(_NOTE_CONSENTS, list({consent["user_id"] for consent in consents}))
