"""The audit trail: who did what to whom, when and from where. Append-only, and without secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from wxauth.core.database import Database

SYSTEM: Final = "system"
"""The actor of what wxauth does by itself."""
OPERATOR: Final = "operator"
"""The actor of what is done by command."""
WECHAT: Final = "wechat"
"""The actor of what WeChat tells by message push."""


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
    AUTHORIZATION_REVOKED = "authorization_revoked"
    SERVICE_CLIENT_ADDED = "service_client_added"
    SERVICE_CLIENT_REMOVED = "service_client_removed"
    SESSION_KEY_RESET = "session_key_reset"
    ACCESS_TOKEN_READ = "access_token_read"  # noqa: S105 - the name of an event
    ACCESS_TOKEN_FORCED = "access_token_forced"  # noqa: S105 - the name of an event


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to be recorded."""

    type: EventType
    at: datetime
    actor: str
    """The id of the user or the name of the service client that did it, or `SYSTEM`, `OPERATOR`, `WECHAT`."""
    user_id: UUID | None = None
    """To whom."""
    app_id: str | None = None
    ip: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSearch:
    """Which events are wanted; what is None does not matter."""

    type: str | None = None
    user_id: UUID | None = None


_RECORD: Final = text("""
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    VALUES (:id, :type, :at, :actor, :user_id, :app_id, CAST(CAST(:ip AS text) AS inet), CAST(:data AS jsonb))
""")
# What was done to the person, and from where they did something to others.
_FORGET: Final = text("""
    UPDATE events SET ip = NULL, data = CASE WHEN user_id = :user_id THEN '{}' ELSE data END
     WHERE user_id = :user_id OR (actor = CAST(:user_id AS text) AND ip IS NOT NULL)
""")


_CONDITIONS: Final = {"type": "type = :type", "user_id": "user_id = :user_id", "before": "id < :before"}


async def record_event(transaction: AsyncConnection, event: NewEvent) -> None:
    """Add to the trail, in the transaction of what it tells."""
    await transaction.execute(
        _RECORD,
        {
            "id": uuid7(),
            "type": event.type,
            "at": event.at,
            "actor": event.actor,
            "user_id": event.user_id,
            "app_id": event.app_id,
            "ip": event.ip,
            "data": to_json(event.data).decode(),
        },
    )


async def forget_person(transaction: AsyncConnection, user_id: UUID) -> None:
    """Take what is personal out of the events of a user."""
    await transaction.execute(_FORGET, {"user_id": user_id})


async def find_events(
    database: Database, search: EventSearch, *, before: UUID | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """The newest events that are wanted, of those before this one. Raises: StorageUnavailable."""
    values = {**asdict(search), "before": before}
    where = " AND ".join(_CONDITIONS[name] for name, value in values.items() if value is not None) or "TRUE"
    statement = text(
        "SELECT id, type, at, actor, user_id, app_id, ip, data FROM events"  # noqa: S608 - of the constants above
        f" WHERE {where} ORDER BY id DESC LIMIT :limit"
    )
    async with database.begin() as transaction:
        rows = await transaction.execute(statement, {**values, "limit": limit})
        return [row._asdict() for row in rows]
