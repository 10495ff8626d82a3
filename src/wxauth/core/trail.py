"""The audit trail: who did what to whom, when and from where. Append-only, and without secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypedDict
from uuid import UUID

from sqlalchemy import select
from sqlmodel import col
from uuid_utils.compat import uuid7

from wxauth.core.database import Database, Transaction
from wxauth.core.tables import Event


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from where."""

    name: str
    """The id of a user, or the name of a service client; or one of the three below."""
    ip: str | None = None


SYSTEM: Final = Actor("system")
"""wxauth itself."""
OPERATOR: Final = Actor("operator")
"""Whoever runs commands."""
WECHAT: Final = Actor("wechat")
"""WeChat, by message push."""


class EventType(StrEnum):
    """What may happen."""

    REFRESH_TOKEN_REUSED = "refresh_token_reused"  # noqa: S105 - the name of an event
    SESSIONS_ENDED = "sessions_ended"
    USER_BANNED = "user_banned"
    USER_UNBANNED = "user_unbanned"
    ROLES_CHANGED = "roles_changed"
    RISK_FLAGGED = "risk_flagged"
    NICKNAME_FLAGGED = "nickname_flagged"
    PHONE_BOUND = "phone_bound"
    USER_ERASED = "user_erased"
    USER_MERGED = "user.merged"
    AUTHORIZATION_REVOKED = "authorization_revoked"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    SIGNING_KEY_WITHDRAWN = "signing_key_withdrawn"
    CONSOLE_LINK_MADE = "console.link_made"
    CONSOLE_OPENED = "console.opened"
    APP_ADDED = "app.added"
    APP_CHANGED = "app.changed"
    APP_REMOVED = "app.removed"
    SERVICE_CLIENT_ADDED = "service_client_added"
    SERVICE_CLIENT_REMOVED = "service_client_removed"
    SESSION_KEY_RESET = "session_key_reset"
    ACCESS_TOKEN_READ = "access_token_read"  # noqa: S105 - the name of an event
    ACCESS_TOKEN_FORCED = "access_token_forced"  # noqa: S105 - the name of an event


class EventRow(TypedDict):
    """An event as it is read."""

    id: UUID
    type: str
    at: datetime
    actor: str
    user_id: UUID | None
    app_id: str | None
    ip: object | None
    """An address, as asyncpg reads it."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSearch:
    """Which events are wanted; what is None does not matter."""

    types: Sequence[str] = ()
    """Any of these; with none, any."""
    user_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


# $1 id  $2 type  $3 time  $4 actor  $5 user id  $6 app_id  $7 ip  $8 data
_RECORD: Final = """
INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet, $8::jsonb)
"""
# What was done to the person, and from where they did something to others; not which id they had before, by which
# siblings still know them. $1 user ids
_FORGET: Final = """
UPDATE events
   SET ip = NULL,
       data = CASE WHEN user_id = ANY ($1::uuid[]) AND type <> 'user.merged' THEN '{}' ELSE data END
 WHERE user_id = ANY ($1::uuid[]) OR (actor = ANY ($1::uuid[]::text[]) AND ip IS NOT NULL)
"""
_EVENTS: Final = select(
    col(Event.id),
    col(Event.type),
    col(Event.at),
    col(Event.actor),
    col(Event.user_id),
    col(Event.app_id),
    col(Event.ip),
    col(Event.data),
)


def first_id_at(time: datetime) -> UUID:
    """Before the UUIDv7s of this time, and behind all earlier ones (RFC 9562, section 5.7)."""
    milliseconds = min(max(0, int(time.timestamp() * 1000)), 2**48 - 1)
    return UUID(int=milliseconds << 80)


async def record_event(
    transaction: Transaction,
    kind: EventType,
    *,
    by: Actor,
    at: datetime,
    user_id: UUID | None = None,
    app_id: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add to the trail, in the transaction of what it tells: what was done by whom, and to which user."""
    await transaction.execute(_RECORD, uuid7(), kind, at, by.name, user_id, app_id, by.ip, data or {})


async def forget_person(transaction: Transaction, user_ids: Sequence[UUID]) -> None:
    """Take what is personal out of the events of a person, by whichever of these ids they were known."""
    await transaction.execute(_FORGET, user_ids)


async def find_events(
    database: Database, search: EventSearch, *, before: UUID | None, limit: int
) -> Sequence[EventRow]:
    """The newest events that are wanted, of those before this one. Raises: StorageUnavailable."""
    wanted = _EVENTS.order_by(col(Event.id).desc()).limit(limit)
    if search.types:
        wanted = wanted.where(col(Event.type).in_(search.types))
    if search.user_id is not None:
        wanted = wanted.where(col(Event.user_id) == search.user_id)
    # By their ids, which begin with their time and are in the index.
    if search.since is not None:
        wanted = wanted.where(col(Event.id) >= first_id_at(search.since))
    if search.until is not None:
        wanted = wanted.where(col(Event.id) < first_id_at(search.until))
    if before is not None:
        wanted = wanted.where(col(Event.id) < before)
    found: Sequence[EventRow] = await database.fetch(wanted)
    return found
