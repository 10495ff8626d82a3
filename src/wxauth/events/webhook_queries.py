"""The statements for webhooks, and for the deliveries to them and to sites."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, LiteralString
from uuid import UUID

from sqlmodel import Field, SQLModel

from wxauth.core.clock import LAST_ID, new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement, columns_of, fragment
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.upkeep import Reseal, Sweep
from wxauth.events.feed_queries import EventToSend, PlacedEvent
from wxauth.events.models import DeliveryRow, DeliveryState, Webhook


class Priority(IntEnum):
    """The order in which due deliveries start, lowest first. Negative values are for sites, the others for webhooks.

    Each priority has its own limits, so that what a user can cause repeatedly never delays more urgent events about
    others. It can delay events about the same user, whose first attempts to a webhook are made one after the other. The
    database stores the values.
    """

    BAN_LOGOUT = -2  # the session ended for the reason `banned` or `administrator`, which users cannot cause
    LOGOUT = -1
    BAN = 0  # a ban, or a session that ended for one of these two reasons
    ERASURE = 1  # also merges and splits; users can erase themselves and return as often as WeChat lets them log in
    SESSION = 2  # a session that ended for another reason; users can log in and out as often as they like
    ORDINARY = 3

    @property
    def sql(self) -> LiteralString:
        return str(self.value)  # pyrefly: ignore[bad-return]  # a number


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    state: DeliveryState
    status: int | None = None
    error: str | None = None  # why nothing was sent or answered; None for a site
    next_at: datetime | None = None  # None if the delivery is finished


class LeasedEvent(EventToSend):
    """A leased delivery of an event to a webhook.

    If the event was deleted by age (`is_swept`), its fields except `user_id` are None, unlike their types.
    """

    receiver_id: UUID
    event_id: UUID
    attempts: int  # with the present one, but without those that `RESUME_DELIVERIES` has subtracted
    name: str
    url: str
    secret: bytes = Field(repr=False)
    former_secret: bytes | None = Field(repr=False)
    former_secret_until: datetime | None
    delivered_at: datetime | None  # the last success before the lease, up to a minute too early
    is_swept: bool


class LeasedLogout(SQLModel):
    receiver_id: UUID
    event_id: UUID  # the id of the ended session, which a database trigger stores in place of an event's
    attempts: int  # with the present one
    user_id: UUID
    client_id: str | None  # None if the site was removed
    url: str  # empty if the site was removed, or no longer has a URI for logout tokens
    id_token_alg: str | None  # None if the site was removed


_COLUMNS_OF_WEBHOOK: Final = ", ".join(columns_of(Webhook))
ALL_WEBHOOKS: Final = Statement[Webhook](f"SELECT {_COLUMNS_OF_WEBHOOK} FROM webhooks ORDER BY name")
FIND_WEBHOOK: Final = Statement[Webhook](f"SELECT {_COLUMNS_OF_WEBHOOK} FROM webhooks WHERE name = :name")
_ADD: Final = Statement[Webhook](f"""
INSERT INTO webhooks (id, name, url, types, secret, created_at) VALUES (:id, :name, :url, :types, :secret, :created_at)
ON CONFLICT DO NOTHING
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
_CHANGE: Final = Statement[Webhook](f"""
UPDATE webhooks SET url = COALESCE(:url, url), types = COALESCE(:types, types),
                    is_enabled = COALESCE(:is_enabled, is_enabled)
 WHERE name = :name
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
# The current secret becomes the former secret, and replaces an older former secret.
_RENEW: Final = Statement[Webhook](f"""
UPDATE webhooks SET secret = :secret, former_secret = secret, former_secret_until = :former_until WHERE id = :id
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
_DELETE: Final = Statement[Webhook](f"DELETE FROM webhooks WHERE name = :name RETURNING {_COLUMNS_OF_WEBHOOK}")
# Of several simultaneous answers with 410, only the first disables the webhook and records the event.
_DISABLE: Final = Statement[Webhook](f"""
UPDATE webhooks SET is_enabled = false WHERE id = :id AND is_enabled
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
# A caller of `write_webhook` or `change_webhook` gives the values of these parameters.
_CHANGES: Final = {
    EventType.WEBHOOK_ADDED: _ADD,  # id, name, url, types, secret, created_at
    EventType.WEBHOOK_CHANGED: _CHANGE,  # name, url, types, is_enabled; the last three are None for no change
    EventType.WEBHOOK_SECRET_RENEWED: _RENEW,  # id, secret, former_until
    EventType.WEBHOOK_REMOVED: _DELETE,  # name
    EventType.WEBHOOK_DISABLED: _DISABLE,  # id
}

_SUBSCRIPTIONS: Final = Statement[tuple[UUID, list[str]]]("SELECT id, types FROM webhooks WHERE is_enabled")


def _queued_fragment(next_at: LiteralString) -> LiteralString:
    return f"""
INSERT INTO deliveries (id, receiver_id, event_id, type, user_id, priority, next_at, at)
SELECT new.id, receiver_id, event_id, new.type, events.user_id,
       CASE WHEN new.type = 'user.banned' THEN {Priority.BAN.sql}
            WHEN new.type IN ('user.erased', 'user.merged', 'user.split') THEN {Priority.ERASURE.sql}
            WHEN new.type <> 'session.ended' THEN {Priority.ORDINARY.sql}
            WHEN data ->> 'reason' IN ('banned', 'administrator') THEN {Priority.BAN.sql}
            ELSE {Priority.SESSION.sql} END,
       {next_at}, :now
  -- with LATERAL, PostgreSQL looks each event up through the index, however old its statistics are
  FROM unnest(:ids::uuid[], :webhook_ids::uuid[], :event_ids::uuid[], :types::text[])
       AS new (id, receiver_id, event_id, type)
  LEFT JOIN LATERAL (
       SELECT user_id, data, actor FROM events WHERE events.id = event_id LIMIT 1) events ON true"""


# If an actor has caused at most ten of these events, they do not wait for the thousands that an import or a service has
# caused at the same time. The time a day ago only ranks them: `_LISTED_COLUMNS` hides it.
_RANKED_FRAGMENT: Final = """:now::timestamptz - CASE WHEN count(*) OVER (PARTITION BY receiver_id, actor) <= 10
                   THEN interval '1 day' ELSE interval '0' END"""
_QUEUE: Final = Statement[Nothing](f"{_queued_fragment(_RANKED_FRAGMENT)} ON CONFLICT DO NOTHING")
_QUEUE_AGAIN: Final = Statement[Nothing](f"""{_queued_fragment(":now")}
ON CONFLICT (receiver_id, event_id) DO UPDATE
   SET id = excluded.id, state = 'pending', attempts = 0, status = NULL, error = NULL, next_at = excluded.next_at,
       at = excluded.at, priority = excluded.priority, is_leased = false
 -- leave out a delivery that a process is sending now
 WHERE NOT (deliveries.is_leased AND deliveries.next_at > :now)
""")
# An urgent event must not wait for less urgent events about its user, so these get its priority and time. With LATERAL,
# old statistics cannot make PostgreSQL read all pending deliveries for each row.
_HASTEN: Final = Statement[Nothing](f"""
WITH urgent AS MATERIALIZED (
    -- only a user's newest urgent event of each priority, because it hastens all earlier events, which are read once
    SELECT DISTINCT ON (receiver_id, user_id, priority) receiver_id, user_id, priority, event_id, next_at
      FROM unnest(:webhook_ids::uuid[], :event_ids::uuid[]) AS new (receiver_id, event_id)
           CROSS JOIN LATERAL (
               SELECT user_id, priority, next_at FROM deliveries d
                WHERE d.receiver_id = new.receiver_id AND d.event_id = new.event_id LIMIT 1) queued
     WHERE priority < {Priority.ORDINARY.sql} AND user_id IS NOT NULL
     ORDER BY receiver_id, user_id, priority, event_id DESC
), hastened AS MATERIALIZED (
    SELECT earlier.row_id, min(urgent.priority) AS priority, min(urgent.next_at) AS next_at
      FROM urgent
           CROSS JOIN LATERAL (
               -- the ctid of a locked row does not change
               SELECT d.ctid AS row_id FROM deliveries d
                WHERE d.receiver_id = urgent.receiver_id AND d.user_id = urgent.user_id
                  AND d.event_id < urgent.event_id AND d.attempts = 0 AND d.priority > urgent.priority
                -- only the index `deliveries_first_tries_idx` has this order, so PostgreSQL uses it
                ORDER BY d.receiver_id, d.user_id, d.event_id
                  -- a locked row is probably being leased now
                  FOR UPDATE SKIP LOCKED) earlier
     GROUP BY earlier.row_id
)
UPDATE deliveries d SET priority = hastened.priority, next_at = LEAST(d.next_at, hastened.next_at)
  FROM hastened WHERE d.ctid = hastened.row_id
""")
FIND_PLACED: Final = Statement[PlacedEvent]("SELECT event_id, type FROM feed WHERE event_id = :event_id")
_EVENTS_AFTER: Final = Statement[PlacedEvent]("""
SELECT e.id AS event_id, COALESCE(f.type, '') AS type  -- empty: the event has no place
  -- `:size` also counts the events without a place, so that many of them do not make a page slower
  FROM (SELECT id FROM events WHERE id > :after ORDER BY id LIMIT :size) e LEFT JOIN feed f ON f.event_id = e.id
 ORDER BY e.id
""")


def _receivers_fragment(condition: LiteralString) -> LiteralString:
    # The query goes from receiver to receiver in the index, instead of reading all deliveries. The last row is null.
    return f"""receivers (id) AS (
    (SELECT receiver_id FROM deliveries WHERE {condition} ORDER BY receiver_id LIMIT 1)
     UNION ALL
    SELECT (SELECT d.receiver_id FROM deliveries d WHERE {condition} AND d.receiver_id > receivers.id
             ORDER BY d.receiver_id LIMIT 1)
      FROM receivers WHERE receivers.id IS NOT NULL
)"""


# The result includes removed sites. Their deliveries end without being sent.
_DUE: Final = Statement[tuple[UUID, int]](f"""
WITH RECURSIVE {_receivers_fragment("state = 'pending'")}
SELECT receivers.id, priorities.priority
  FROM receivers
       CROSS JOIN generate_series({min(Priority).sql}, {max(Priority).sql}) AS priorities (priority)
       CROSS JOIN LATERAL (
           SELECT FROM deliveries d
            WHERE d.receiver_id = receivers.id AND d.priority = priorities.priority AND d.state = 'pending'
              AND d.next_at <= :now
            -- with EXISTS, all due deliveries would be read; without ORDER BY, the whole table
            ORDER BY d.next_at LIMIT 1) due
 WHERE priorities.priority < 0 OR EXISTS (SELECT FROM webhooks w WHERE w.id = receivers.id AND is_enabled)
 ORDER BY priorities.priority
""")
# Only one process leases a delivery: locked rows are skipped, and a leased delivery is not due before its lease ends.
_LEASED_FRAGMENT: Final = """
WITH due AS (
    SELECT receiver_id, event_id FROM deliveries d
     WHERE receiver_id = :receiver_id AND priority = :priority AND state = 'pending' AND next_at <= :now
       AND (priority < 0 OR EXISTS (SELECT FROM webhooks WHERE id = :receiver_id AND is_enabled))
       AND (attempts > 0 OR NOT EXISTS (
               -- a webhook's first attempt waits for the first attempts of all earlier deliveries about the user
               SELECT FROM deliveries earlier
                WHERE earlier.receiver_id = :receiver_id AND earlier.user_id = d.user_id
                  -- the tokens that a user causes do not delay the tokens of a ban
                  AND earlier.event_id < d.event_id AND (d.priority >= 0 OR earlier.priority = d.priority)
                  AND (earlier.attempts = 0 OR earlier.attempts = 1 AND earlier.is_leased)
                -- only the index `deliveries_first_tries_idx` has this order, so PostgreSQL uses it
                ORDER BY earlier.receiver_id, earlier.user_id, earlier.event_id
               -- a site may get two tokens about a user at once: their order does not matter, and a slow response
               -- should not delay the next; a third waits, so that one user does not take all parallel attempts
               OFFSET CASE WHEN d.priority < 0 THEN 1 ELSE 0 END))
     ORDER BY next_at LIMIT 1
       FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE deliveries d SET attempts = attempts + 1, next_at = :until, is_leased = true
      FROM due WHERE d.receiver_id = due.receiver_id AND d.event_id = due.event_id
    RETURNING d.receiver_id, d.event_id, d.attempts, d.user_id
)"""
LEASE_EVENT: Final = Statement[LeasedEvent](f"""{_LEASED_FRAGMENT}
SELECT leased.receiver_id, leased.event_id, leased.attempts,
       name, url, secret, former_secret, former_secret_until, delivered_at,
       events.id IS NULL AS is_swept,
       events.id, events.type, events.at, leased.user_id, events.app_id, events.actor, events.data
  FROM leased
       JOIN webhooks ON webhooks.id = leased.receiver_id
       LEFT JOIN events ON events.id = leased.event_id
""")
LEASE_LOGOUT: Final = Statement[LeasedLogout](f"""{_LEASED_FRAGMENT}
SELECT leased.*, site.name AS client_id, COALESCE(site.backchannel_logout_uri, '') AS url, site.id_token_alg
  FROM leased LEFT JOIN clients site ON site.id = leased.receiver_id AND site.removed_by IS NULL
""")
_SETTLE: Final = Statement[UUID]("""
WITH settled AS (
    UPDATE deliveries SET state = :state, status = :status, error = :error, next_at = :next_at, is_leased = false
     -- not if it is finished, or if another process has leased it after this lease (`attempts` differs)
     WHERE receiver_id = :receiver_id AND event_id = :event_id AND attempts = :attempts AND next_at IS NOT NULL
    RETURNING state
)
UPDATE webhooks SET delivered_at = :now
  FROM settled
 WHERE webhooks.id = :receiver_id AND settled.state = 'delivered'
   AND (delivered_at IS NULL OR delivered_at < :now::timestamptz - interval '1 minute')
RETURNING webhooks.id
""")
# A finished delivery to a site is deleted, because it has no further use and names a user.
_DELETE_FINISHED_LOGOUT: Final = Statement[Nothing](
    "DELETE FROM deliveries WHERE receiver_id = :receiver_id AND event_id = :event_id AND attempts = :attempts"
)
RESUME_DELIVERIES: Final = Statement[Nothing](f"""
-- the additional attempt does not count: an event that is refused while others are accepted would fail too soon
UPDATE deliveries SET next_at = :now, attempts = attempts - 1
 WHERE receiver_id = :receiver_id AND event_id = ANY (ARRAY(
       SELECT event_id FROM deliveries
        WHERE receiver_id = :receiver_id AND priority BETWEEN {Priority.BAN.sql} AND {Priority.ORDINARY.sql}
          -- not the second attempt: it follows within seconds, and with `attempts` 0, it would again hold up later
          -- deliveries about the user
          AND state = 'pending' AND next_at > :now AND attempts > 1 AND NOT is_leased
        ORDER BY priority, next_at LIMIT :size  -- the caller repeats this until no delivery is left
          FOR UPDATE SKIP LOCKED))
""")
# Before the first attempt, `next_at` is only a rank in the queue, so the list shows `at` instead.
_LISTED_COLUMNS: Final = ", ".join(
    "CASE WHEN attempts > 0 THEN next_at ELSE at END AS next_at" if name == "next_at" else name
    for name in columns_of(DeliveryRow)
)
# Each state has its own part of the index, which LATERAL reads.
LIST_DELIVERIES: Final = Statement[DeliveryRow](f"""
SELECT d.* FROM unnest(:states::text[]) AS chosen CROSS JOIN LATERAL (
       SELECT {_LISTED_COLUMNS} FROM deliveries
        -- `:before` is the last id of the previous page, and null for the first page
        WHERE receiver_id = :receiver_id AND state = chosen AND (:before::uuid IS NULL OR id < :before)
        ORDER BY id DESC LIMIT :limit) d
 ORDER BY d.id DESC LIMIT :limit
""")
# The sweep deletes finished deliveries with ids (which begin with the time) below `:before`, and all deliveries of
# removed webhooks. It locks no other deliveries, because `lease_delivery` would skip them.
sweep_deliveries: Final = Sweep(
    Statement[Nothing](f"""
WITH RECURSIVE {_receivers_fragment("true")}, swept AS MATERIALIZED (
    SELECT old.receiver_id, old.event_id
      FROM receivers LEFT JOIN webhooks w ON w.id = receivers.id
           CROSS JOIN unnest('{{delivered,failed,pending}}'::text[]) AS chosen
           CROSS JOIN LATERAL (
               SELECT d.receiver_id, d.event_id FROM deliveries d
                WHERE d.receiver_id = receivers.id AND d.state = chosen
                  AND d.priority >= 0  -- not to sites, which are receivers without a webhook, too
                  AND d.id < CASE WHEN w.id IS NULL THEN '{fragment(str(LAST_ID))}' ELSE :before::uuid END
                ORDER BY d.id LIMIT :size FOR UPDATE SKIP LOCKED) old
     WHERE w.id IS NULL OR chosen <> 'pending'
     LIMIT :size
)
DELETE FROM deliveries USING swept
 WHERE deliveries.receiver_id = swept.receiver_id AND deliveries.event_id = swept.event_id
""")
)
reseal_webhook: Final = Reseal.of("webhooks", "secret", "former_secret", key="id")


async def write_webhook(
    database: Database, kind: EventType, *, by: Actor, now: datetime, **values: object
) -> Webhook | None:
    """Make and record the change that an event of this type reports. `values` are the parameters in `_CHANGES`.

    Return None if nothing has changed, because a new name is taken, or no webhook with this name or id can be changed.
    """
    async with database.begin() as transaction:
        return await change_webhook(transaction, kind, by=by, now=now, **values)


async def change_webhook(
    transaction: Transaction, kind: EventType, *, by: Actor, now: datetime, **values: object
) -> Webhook | None:
    """Do what `write_webhook` does, but in the caller's transaction."""
    webhook: Webhook | None = await transaction.row(_CHANGES[kind], **values)
    if webhook is not None:
        data = webhook.model_dump(include=set(kind.data))
        await record_event(transaction, kind, by=by, at=now, data=data)
    return webhook


async def queue_deliveries(transaction: Transaction, events: Sequence[PlacedEvent], *, now: datetime) -> int:
    """Queue the deliveries of events that have just got their places, and return their number."""
    if not events:
        return 0
    webhooks = await transaction.rows(_SUBSCRIPTIONS)
    return await _queue_with(transaction, _QUEUE, events, webhooks, now=now)


async def queue_again(
    transaction: Transaction, webhook: Webhook, events: Sequence[PlacedEvent], *, now: datetime
) -> int:
    """Queue events again for one webhook, and return their number. What is being sent now is left out."""
    return await _queue_with(transaction, _QUEUE_AGAIN, events, [(webhook.id, webhook.types)], now=now)


async def _queue_with(
    transaction: Transaction,
    statement: Statement[Nothing],
    events: Sequence[PlacedEvent],
    webhooks: Sequence[tuple[UUID, Sequence[str]]],  # no types: all types
    *,
    now: datetime,
) -> int:
    deliveries = [
        (webhook_id, event.event_id, event.type, new_id(now))
        for event in events
        for webhook_id, types in webhooks
        if not types or event.type in types
    ]
    if not deliveries:
        return 0
    webhook_ids, event_ids, event_types, ids = zip(*deliveries, strict=True)
    queued = await transaction.run(
        statement, webhook_ids=webhook_ids, event_ids=event_ids, types=event_types, ids=ids, now=now
    )
    await transaction.run(_HASTEN, webhook_ids=webhook_ids, event_ids=event_ids)
    return queued


async def placed_after(database: Database, after: UUID, *, size: int) -> tuple[Sequence[PlacedEvent], UUID | None]:
    """Return the feed's events among the next `size` events, and the id to continue after (None at the end)."""
    rows = await database.rows(_EVENTS_AFTER, after=after, size=size)
    next_after = rows[-1].event_id if len(rows) == size else None
    return [row for row in rows if row.type], next_after


async def due_receivers(database: Database, *, now: datetime) -> Sequence[tuple[UUID, Priority]]:
    """Return the receivers with due deliveries, once for each priority: first sites, then enabled webhooks."""
    async with database.begin(replan=True) as transaction:
        due = await transaction.rows(_DUE, now=now)
    return [(receiver_id, Priority(priority)) for receiver_id, priority in due]


async def lease_delivery(
    database: Database, receiver_id: UUID, priority: Priority, *, now: datetime, until: datetime
) -> LeasedEvent | LeasedLogout | None:
    """Lease the receiver's next delivery of this priority, if one can be leased now."""
    values = {"receiver_id": receiver_id, "priority": priority, "now": now, "until": until}
    async with database.begin(replan=True) as transaction:
        if priority < 0:  # the receiver is a site
            return await transaction.row(LEASE_LOGOUT, **values)
        return await transaction.row(LEASE_EVENT, **values)


async def settle_delivery(
    database: Database, delivery: LeasedEvent | LeasedLogout, outcome: DeliveryOutcome, *, now: datetime
) -> bool:
    """Store an outcome. Return whether this was the first success of a webhook within a minute."""
    leased = delivery.model_dump(include={"receiver_id", "event_id", "attempts"})
    async with database.begin(replan=True) as transaction:
        if isinstance(delivery, LeasedLogout) and outcome.state is not DeliveryState.PENDING:
            await transaction.run(_DELETE_FINISHED_LOGOUT, **leased)
            return False
        return await transaction.value(_SETTLE, **leased, **asdict(outcome), now=now) is not None
