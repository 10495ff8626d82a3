"""Webhooks as they are stored, and their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.server.events.feed_rows import PlacedEvent

_COLUMNS: Final = "id, name, url, types, is_enabled, secret, former_secret, former_secret_until, created_at"
_ALL: Final = f"SELECT {_COLUMNS} FROM webhooks ORDER BY name"  # noqa: S608 - a constant
_FIND: Final = f"SELECT {_COLUMNS} FROM webhooks WHERE name = $1"  # noqa: S608 - a constant
# $1 id  $2 name  $3 url  $4 types  $5 secret  $6 now
_ADD: Final = f"""
INSERT INTO webhooks (id, name, url, types, secret, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant
# $1 name  $2 url  $3 types  $4 whether it is enabled; NULL changes nothing
_CHANGE: Final = f"""
UPDATE webhooks SET url = COALESCE($2, url), types = COALESCE($3, types), is_enabled = COALESCE($4, is_enabled)
 WHERE name = $1
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant
# There is one former secret at most: the present one replaces it.
# $1 id  $2 the new secret  $3 until when the former one signs
_RENEW: Final = f"""
UPDATE webhooks SET secret = $2, former_secret = secret, former_secret_until = $3 WHERE id = $1
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant
_REMOVE: Final = "DELETE FROM webhooks WHERE name = $1 RETURNING id"
# Of several answers 410 at once, only the first disables the webhook and is recorded. $1 id
_DISABLE: Final = "UPDATE webhooks SET is_enabled = false WHERE id = $1 AND is_enabled RETURNING name"

_WHICH_WANT: Final = "SELECT id, types FROM webhooks WHERE is_enabled"
# The numbers are those of `Priority`. $1 ids  $2 webhooks  $3 events  $4 types  $5 now
_QUEUED_PART: Final = """
INSERT INTO deliveries (id, webhook_id, event_id, type, priority, next_at, at)
SELECT id, webhook_id, event_id, type,
       CASE WHEN type = 'user.banned' THEN 0
            WHEN type IN ('user.erased', 'user.merged', 'user.split') THEN 1
            WHEN type <> 'session.ended' THEN 3
            WHEN EXISTS (SELECT FROM events
                          WHERE events.id = event_id AND data ->> 'reason' IN ('banned', 'administrator')) THEN 0
            ELSE 2 END,
       $5, $5
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS new (id, webhook_id, event_id, type)"""
_QUEUE: Final = f"{_QUEUED_PART} ON CONFLICT DO NOTHING"
# Queue events again. A delivery that a process holds right now is left alone: that process delivers it.
_QUEUE_AGAIN: Final = f"""{_QUEUED_PART}
ON CONFLICT (webhook_id, event_id) DO UPDATE
   SET id = excluded.id, state = 'pending', attempts = 0, status = NULL, error = NULL, next_at = excluded.next_at,
       at = excluded.at, is_taken = false
 WHERE NOT (deliveries.is_taken AND deliveries.next_at > $5)
"""  # noqa: S608 - put together from constants
# $1 event
_PLACED_EVENT: Final = "SELECT position, event_id, type FROM feed WHERE event_id = $1"
# From the newest to the oldest. Every event's time is compared, because places are only nearly in the order of time: an
# event gets its place after its commit. No transaction lasts a day, so behind an older event none is wanted.
# $1 before which position  $2 how many events are looked at  $3 since when
_PLACED_SINCE: Final = """
SELECT f.position, f.event_id, f.type, e.at >= $3 AS is_wanted, e.at < $3 - interval '1 day' AS is_end
  FROM (SELECT position, event_id, type FROM feed WHERE position < $1 ORDER BY position DESC LIMIT $2) f
  JOIN events e ON e.id = f.event_id
 ORDER BY f.position DESC
"""

# The order makes PostgreSQL use the index, whatever it estimates. EXISTS would read all that are due, and a limit
# without an order the table. $1 now
_DUE: Final = """
SELECT w.id, priority
  FROM webhooks w CROSS JOIN generate_series(0, 3) AS priority CROSS JOIN LATERAL (
       SELECT FROM deliveries d
        WHERE d.webhook_id = w.id AND d.priority = priority.priority AND d.state = 'pending' AND d.next_at <= $1
        ORDER BY d.next_at LIMIT 1) due
 WHERE is_enabled
 ORDER BY priority
"""
# A delivery goes to one process: rows that another process has locked are skipped, and a delivery that it has taken is
# not due before its lease ends. $1 webhook  $2 priority  $3 now  $4 until when this process has the delivery
_TAKE: Final = """
WITH due AS (
    SELECT webhook_id, event_id FROM deliveries
     WHERE webhook_id = $1 AND priority = $2 AND state = 'pending' AND next_at <= $3
       AND EXISTS (SELECT FROM webhooks WHERE id = $1 AND is_enabled)
     ORDER BY next_at LIMIT 1
       FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE deliveries d SET attempts = attempts + 1, next_at = $4, is_taken = true
      FROM due WHERE d.webhook_id = due.webhook_id AND d.event_id = due.event_id
    RETURNING d.webhook_id, d.event_id, d.attempts
)
SELECT t.webhook_id, t.event_id, t.attempts, w.name, w.url, w.secret, w.former_secret, w.former_secret_until,
       e.id, e.type, e.at, e.user_id, e.app_id, e.actor, e.data
  FROM taken t JOIN webhooks w ON w.id = t.webhook_id LEFT JOIN events e ON e.id = t.event_id
"""
# `attempts` differs if the lease was over and another process has taken the delivery since: then nothing is stored.
# $1 webhook  $2 event  $3 attempts  $4 state  $5 status  $6 error  $7 when to try again  $8 now
_SETTLE: Final = """
WITH settled AS (
    UPDATE deliveries SET state = $4, status = $5, error = $6, next_at = $7, is_taken = false
     WHERE webhook_id = $1 AND event_id = $2 AND attempts = $3 AND state = 'pending'
    RETURNING state
)
UPDATE webhooks SET delivered_at = $8
  FROM settled
 WHERE webhooks.id = $1 AND settled.state = 'delivered'
   AND (delivered_at IS NULL OR delivered_at < $8::timestamptz - interval '1 minute')
"""
# $1 webhook  $2 states  $3 before this one  $4 how many
_DELIVERIES: Final = """
SELECT d.* FROM unnest($2::text[]) AS wanted CROSS JOIN LATERAL (
       SELECT id, event_id, type, state, attempts, status, error, next_at, at FROM deliveries
        WHERE webhook_id = $1 AND state = wanted AND ($3::uuid IS NULL OR id < $3)
        ORDER BY id DESC LIMIT $4) d
 ORDER BY d.id DESC LIMIT $4
"""
# The oldest deliveries of each webhook and state, by the index. Of a removed webhook all of them go.
# $1 when the kept ones began  $2 how many
_SWEEP: Final = """
WITH RECURSIVE known (webhook_id) AS (
    (SELECT webhook_id FROM deliveries ORDER BY webhook_id LIMIT 1)
     UNION ALL
    SELECT (SELECT d.webhook_id FROM deliveries d WHERE d.webhook_id > known.webhook_id ORDER BY d.webhook_id LIMIT 1)
      FROM known WHERE known.webhook_id IS NOT NULL
)
DELETE FROM deliveries USING (
    SELECT old.webhook_id, old.event_id
      FROM known CROSS JOIN unnest('{delivered,failed,pending}'::text[]) AS settled
           CROSS JOIN LATERAL (
               SELECT d.webhook_id, d.event_id, d.at FROM deliveries d
                WHERE d.webhook_id = known.webhook_id AND d.state = settled
                ORDER BY d.id LIMIT $2 FOR UPDATE SKIP LOCKED) old
     WHERE NOT EXISTS (SELECT FROM webhooks w WHERE w.id = known.webhook_id)
        OR (settled <> 'pending' AND old.at < $1)
     LIMIT $2
) swept
 WHERE deliveries.webhook_id = swept.webhook_id AND deliveries.event_id = swept.event_id
"""
# $1 prefix of what is sealed with the current secret key
_SEALED_OTHERWISE: Final = """
SELECT id, secret, former_secret FROM webhooks
 WHERE substring(secret FOR octet_length($1::bytea)) <> $1
    OR substring(former_secret FOR octet_length($1::bytea)) <> $1
"""
# Changes nothing if the secrets are no longer those that were read: somebody has renewed them.
# $1 id  $2 and $3 the secrets as they were read  $4 and $5 the same, sealed anew
_RESEAL: Final = """
UPDATE webhooks SET secret = $4, former_secret = $5
 WHERE id = $1 AND secret = $2 AND former_secret IS NOT DISTINCT FROM $3
RETURNING id
"""


class WebhookRow(TypedDict):
    """A webhook as it is stored."""

    id: UUID
    name: str
    url: str
    types: list[str]
    is_enabled: bool
    secret: bytes
    former_secret: bytes | None
    former_secret_until: datetime | None
    created_at: datetime


class State(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Priority(IntEnum):
    """The order of deliveries. Those of one priority have places of their own, and wait for no other.

    So what one person can repeat delays nothing that is above it.
    """

    BAN = 0
    """Bans, and the sessions that a ban or an administrator has ended. Nobody can cause these for themselves."""
    ERASURE = 1
    """Erasures, merges, splits. A person may erase themselves and come back, as often as WeChat lets them log in."""
    SESSION = 2
    """Other ends of sessions. A person may log in and out all day."""
    ORDINARY = 3


class DeliveryRow(TypedDict):
    """A delivery as it is listed."""

    id: UUID
    event_id: UUID
    type: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    next_at: datetime | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a try."""

    state: State
    status: int | None = None
    error: str | None = None
    next_at: datetime | None = None


async def all_webhooks(database: Database) -> Sequence[WebhookRow]:
    """Every webhook, by name. Raises: StorageUnavailable."""
    found: Sequence[WebhookRow] = await database.fetch(_ALL)
    return found


async def find_webhook(database: Database, name: str) -> WebhookRow | None:
    """The webhook of this name. Raises: StorageUnavailable."""
    found: WebhookRow | None = await database.fetchrow(_FIND, name)
    return found


async def add_webhook(
    database: Database,
    webhook_id: UUID,
    name: str,
    *,
    url: str,
    types: Sequence[str],
    secret: bytes,
    by: Actor,
    now: datetime,
) -> WebhookRow | None:
    """Add a webhook; None if the name is taken. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        added: WebhookRow | None = await transaction.fetchrow(_ADD, webhook_id, name, url, list(types), secret, now)
        if added is not None:
            await _record(transaction, EventType.WEBHOOK_ADDED, added, by=by, now=now)
    return added


async def change_webhook(
    database: Database,
    name: str,
    *,
    url: str | None,
    types: Sequence[str] | None,
    is_enabled: bool | None,
    by: Actor,
    now: datetime,
) -> WebhookRow | None:
    """Change a webhook's given fields; None if there is no such webhook. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        wanted = None if types is None else list(types)
        changed: WebhookRow | None = await transaction.fetchrow(_CHANGE, name, url, wanted, is_enabled)
        if changed is not None:
            await _record(transaction, EventType.WEBHOOK_CHANGED, changed, by=by, now=now)
    return changed


async def renew_secret(
    database: Database, webhook: WebhookRow, secret: bytes, *, former_until: datetime, by: Actor, now: datetime
) -> WebhookRow | None:
    """Give a webhook another secret; None if the webhook is gone. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        renewed: WebhookRow | None = await transaction.fetchrow(_RENEW, webhook["id"], secret, former_until)
        if renewed is not None:
            data = {"name": renewed["name"]}
            await record_event(transaction, EventType.WEBHOOK_SECRET_RENEWED, by=by, at=now, data=data)
    return renewed


async def remove_webhook(database: Database, name: str, *, by: Actor, now: datetime) -> bool:
    """Remove a webhook; whether there was one. Its deliveries are swept away later.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if await transaction.fetchval(_REMOVE, name) is None:
            return False
        await record_event(transaction, EventType.WEBHOOK_REMOVED, by=by, at=now, data={"name": name})
        return True


async def disable_webhook(database: Database, webhook_id: UUID, *, now: datetime) -> bool:
    """Disable a webhook that has answered 410 (Gone); whether it was enabled.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        name = await transaction.fetchval(_DISABLE, webhook_id)
        if name is None:
            return False
        await record_event(transaction, EventType.WEBHOOK_DISABLED, by=SYSTEM, at=now, data={"name": name})
        return True


def is_wanted(event: PlacedEvent, *, by: WebhookRow) -> bool:
    """Whether a webhook is sent events of this type."""
    return not by["types"] or event.type in by["types"]


async def queue_deliveries(transaction: Transaction, events: Sequence[PlacedEvent], *, now: datetime) -> int:
    """Queue the deliveries of events that are just given their places; how many deliveries."""
    webhooks = await transaction.fetch(_WHICH_WANT) if events else ()
    wanted = [(webhook["id"], event) for event in events for webhook in webhooks if is_wanted(event, by=webhook)]
    return await _queue(transaction, _QUEUE, wanted, now=now) if wanted else 0


async def queue_again(
    transaction: Transaction, webhook_id: UUID, events: Sequence[PlacedEvent], *, now: datetime
) -> int:
    """Queue events once more for one webhook; how many, without those that are just being delivered."""
    return await _queue(transaction, _QUEUE_AGAIN, [(webhook_id, event) for event in events], now=now)


async def placed_event(database: Database, event_id: UUID) -> PlacedEvent | None:
    """An event that siblings are told of. Raises: StorageUnavailable."""
    row = await database.fetchrow(_PLACED_EVENT, event_id)
    return None if row is None else PlacedEvent(row["event_id"], row["type"])


async def placed_since(
    database: Database, since: datetime, *, before: int, size: int
) -> tuple[Sequence[PlacedEvent], int | None]:
    """Look at `size` events before a position: those since a time, and the position before which there may be more.

    Raises: StorageUnavailable.
    """
    rows = await database.fetch(_PLACED_SINCE, before, size, since)
    events = [PlacedEvent(row["event_id"], row["type"]) for row in rows if row["is_wanted"]]
    return events, rows[-1]["position"] if rows and not rows[-1]["is_end"] else None


async def due_webhooks(database: Database, *, now: datetime) -> Sequence[tuple[UUID, Priority]]:
    """The enabled webhooks with a delivery due, for each priority that one has. Raises: StorageUnavailable."""
    return [(row["id"], Priority(row["priority"])) for row in await database.fetch(_DUE, now)]


async def take_delivery(
    database: Database, webhook_id: UUID, priority: Priority, *, now: datetime, until: datetime
) -> Any | None:
    """Take a webhook's next due delivery of a priority, with webhook and event, for this process alone until that time.

    Raises: StorageUnavailable.
    """
    return await database.fetchrow(_TAKE, webhook_id, priority, now, until)


async def settle_delivery(
    database: Database, webhook_id: UUID, event_id: UUID, *, attempts: int, outcome: Outcome, now: datetime
) -> None:
    """Store the outcome of a try. Raises: StorageUnavailable."""
    values = outcome.state, outcome.status, outcome.error, outcome.next_at
    await database.fetchrow(_SETTLE, webhook_id, event_id, attempts, *values, now)


async def list_deliveries(
    database: Database, webhook_id: UUID, states: Sequence[State], *, before: UUID | None, limit: int
) -> Sequence[DeliveryRow]:
    """The newest deliveries in these states, older than `before`. Raises: StorageUnavailable."""
    found: Sequence[DeliveryRow] = await database.fetch(_DELIVERIES, webhook_id, list(states), before, limit)
    return found


async def sweep_deliveries(database: Database, *, before: datetime, size: int) -> int:
    """Delete some settled before that time, or of removed webhooks; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP, before, size)


async def sealed_otherwise(database: Database, *, prefix: bytes) -> Sequence[WebhookRow]:
    """Webhooks with a secret that does not begin with the prefix: `id`, `secret`, `former_secret`.

    Raises: StorageUnavailable.
    """
    found: Sequence[WebhookRow] = await database.fetch(_SEALED_OTHERWISE, prefix)
    return found


async def replace_secrets(database: Database, webhook: WebhookRow, secret: bytes, former: bytes | None) -> bool:
    """Replace a webhook's secrets if they are still those that were read; whether. Raises: StorageUnavailable."""
    before = webhook["secret"], webhook["former_secret"]
    return await database.fetchrow(_RESEAL, webhook["id"], *before, secret, former) is not None


async def _queue(
    transaction: Transaction, statement: str, wanted: Sequence[tuple[UUID, PlacedEvent]], *, now: datetime
) -> int:
    return await transaction.execute(
        statement,
        [new_id(now) for _ in wanted],
        [webhook_id for webhook_id, _ in wanted],
        [event.event_id for _, event in wanted],
        [event.type for _, event in wanted],
        now,
    )


async def _record(transaction: Transaction, kind: EventType, webhook: WebhookRow, *, by: Actor, now: datetime) -> None:
    data = {name: webhook[name] for name in ("name", "url", "types", "is_enabled")}
    await record_event(transaction, kind, by=by, at=now, data=data)
