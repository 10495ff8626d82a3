"""The statements for webhooks, and for the deliveries to them and to sites."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, LiteralString
from uuid import UUID

from sqlmodel import Field

from wxauth.core.database import Database, Transaction
from wxauth.core.ids import new_id
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.upkeep import Reseal, Sweep
from wxauth.events.feed_queries import EventToSend, PlacedEvent
from wxauth.events.models import DeliveryRow, DeliveryState, Webhook


class Priority(IntEnum):
    """The priorities of deliveries. wxauth starts due deliveries in this order, the lowest value first.

    Each priority has separate limits, so that deliveries of one priority do not take the parallel attempts of another.
    Therefore, the events that a user can cause repeatedly never delay events with a lower value about other users.
    However, these events can delay events about the same user, because wxauth makes the first attempts of one user's
    events to a webhook one after the other.

    The database stores the values. Negative values are for logout tokens to sites, which a trigger queues. The other
    values are for events to webhooks.
    """

    BAN_LOGOUT = -2
    """Logout tokens for sessions that ended with the reason `banned` or `administrator`.

    Users cannot cause these tokens themselves.
    """
    LOGOUT = -1
    """All other logout tokens."""
    BAN = 0
    """Bans, and the ends of sessions with the reason `banned` or `administrator`.

    Users cannot cause these events themselves.
    """
    ERASURE = 1
    """Erasures, merges and splits. Users can erase themselves and return as often as WeChat lets them log in."""
    SESSION = 2
    """All other ends of sessions. Users can log in and out as often as they like."""
    ORDINARY = 3
    """All other events."""

    @property
    def sql(self) -> LiteralString:
        """The value of the priority as SQL."""
        return str(self.value)  # pyrefly: ignore[bad-return]  # a number


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """The outcome of an attempt to make a delivery."""

    state: DeliveryState
    status: int | None = None
    """The status of a webhook's response; None if there was no response, and for a site."""
    error: str | None = None
    """The reason why a webhook did not respond, or why nothing was sent to it; None if it responded, and for a site."""
    next_at: datetime | None = None
    """The time at which the next attempt is due; None if the delivery is finished."""


class LeasedDelivery(EventToSend):
    """A delivery that this process has leased, with its receiver and its event.

    A delivery to a site has no event and no secret. In such a delivery, `secret`, `former_secret` and
    `former_secret_until` are None, and so are the fields of `EventToSend` except `user_id`, although some of their
    types do not say so. Only the code that sends events to webhooks reads these fields, and this code receives no
    delivery to a site (see `is_logout`).
    """

    receiver_id: UUID
    event_id: UUID
    attempts: int
    """The number of attempts, including the present one, but without those that `RESUME_DELIVERIES` has subtracted."""
    is_logout: bool
    """Whether the receiver is a site."""
    name: str
    """The name of the webhook, or the client_id of the site.

    If the site was removed, the name is None, although its type does not say so. Nothing reads it then (see `url`).
    """
    url: str
    """The URL of the receiver; empty if the site was removed, or no longer has a URI for logout tokens."""
    secret: bytes = Field(repr=False)
    former_secret: bytes | None = Field(repr=False)
    former_secret_until: datetime | None
    delivered_at: datetime | None
    """The time of the webhook's last successful delivery before the lease; None if there was none, and for a site.

    The time may be up to a minute too early.
    """
    id_token_alg: str | None
    """The algorithm that signs the site's id_tokens and logout tokens; None for a webhook, and for a removed site."""
    is_swept: bool
    """Whether the event has been deleted by age. If so, the fields of the event except `user_id` are None.

    The value is also true for a delivery to a site, which has no event.
    """


_COLUMNS_OF_WEBHOOK: Final = ", ".join(columns_of(Webhook))
ALL_WEBHOOKS: Final = Statement[Webhook](f"SELECT {_COLUMNS_OF_WEBHOOK} FROM webhooks ORDER BY name")
"""The query for all webhooks, with their secrets, sorted by name."""
FIND_WEBHOOK: Final = Statement[Webhook](f"SELECT {_COLUMNS_OF_WEBHOOK} FROM webhooks WHERE name = :name")
"""The query for the webhook with the given name. It returns no row if there is no such webhook."""
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
# The current secret becomes the previous secret, and replaces an older previous secret.
_RENEW: Final = Statement[Webhook](f"""
UPDATE webhooks SET secret = :secret, former_secret = secret, former_secret_until = :former_until WHERE id = :id
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
_DELETE: Final = Statement[Webhook](f"DELETE FROM webhooks WHERE name = :name RETURNING {_COLUMNS_OF_WEBHOOK}")
# If a webhook returns 410 for several simultaneous deliveries, only the first of them disables the webhook and records
# the event.
_DISABLE: Final = Statement[Webhook](f"""
UPDATE webhooks SET is_enabled = false WHERE id = :id AND is_enabled
RETURNING {_COLUMNS_OF_WEBHOOK}
""")
_CHANGES: Final = {
    EventType.WEBHOOK_ADDED: _ADD,  # id, name, url, types, secret, created_at
    EventType.WEBHOOK_CHANGED: _CHANGE,  # name, url, types, is_enabled; the last three are None for no change
    EventType.WEBHOOK_SECRET_RENEWED: _RENEW,  # id, secret, former_until
    EventType.WEBHOOK_REMOVED: _DELETE,  # name
    EventType.WEBHOOK_DISABLED: _DISABLE,  # id
}
"""The statement for each type of event, with its parameters. It makes the change that the event reports."""

_SUBSCRIPTIONS: Final = Statement[tuple[UUID, list[str]]]("SELECT id, types FROM webhooks WHERE is_enabled")


def _queued_fragment(next_at: LiteralString) -> LiteralString:
    """Return the SQL that queues deliveries. `next_at` is the SQL for the time at which their first attempts are due.

    `next_at` can contain the columns of the query into which it is inserted. For example, `_RANKED_FRAGMENT` contains
    `actor`.

    The join is LATERAL, so that PostgreSQL looks up each event through the index, however old its statistics are.
    """
    return f"""
INSERT INTO deliveries (id, receiver_id, event_id, type, user_id, priority, next_at, at)
SELECT new.id, receiver_id, event_id, new.type, events.user_id,
       CASE WHEN new.type = 'user.banned' THEN {Priority.BAN.sql}
            WHEN new.type IN ('user.erased', 'user.merged', 'user.split') THEN {Priority.ERASURE.sql}
            WHEN new.type <> 'session.ended' THEN {Priority.ORDINARY.sql}
            WHEN data ->> 'reason' IN ('banned', 'administrator') THEN {Priority.BAN.sql}
            ELSE {Priority.SESSION.sql} END,
       {next_at}, :now
  FROM unnest(:ids::uuid[], :webhook_ids::uuid[], :event_ids::uuid[], :types::text[])
       AS new (id, receiver_id, event_id, type)
  LEFT JOIN LATERAL (
       SELECT user_id, data, actor FROM events WHERE events.id = event_id LIMIT 1) events ON true"""


# Among events that got their places in the feed together, the events of an actor who caused at most ten of them are due
# first. For example, one ban does not wait for the thousands of bans that an import or a service has caused. The
# `next_at` of these events is a day in the past. This time only ranks them, and `_LISTED_COLUMNS` hides it from
# administrators.
_RANKED_FRAGMENT: Final = """:now::timestamptz - CASE WHEN count(*) OVER (PARTITION BY receiver_id, actor) <= 10
                   THEN interval '1 day' ELSE interval '0' END"""
_QUEUE: Final = Statement[Nothing](f"{_queued_fragment(_RANKED_FRAGMENT)} ON CONFLICT DO NOTHING")
# This statement queues events again. It skips a delivery that a process has leased, because that process is sending it.
_QUEUE_AGAIN: Final = Statement[Nothing](f"""{_queued_fragment(":now")}
ON CONFLICT (receiver_id, event_id) DO UPDATE
   SET id = excluded.id, state = 'pending', attempts = 0, status = NULL, error = NULL, next_at = excluded.next_at,
       at = excluded.at, priority = excluded.priority, is_leased = false
 WHERE NOT (deliveries.is_leased AND deliveries.next_at > :now)
""")
# An urgent event must not wait for earlier events of its user that are less urgent. Therefore, the statement gives the
# earlier events the priority and time of the urgent event.
#
# `urgent` contains the urgent events that have just been queued, but of each user only the newest one of each priority.
# All earlier events of the user precede it, so the statement reads them once for each priority, however many new events
# the user has. `earlier` contains those that no process has attempted yet. `row_id` is the ctid of a row, which does
# not change while the row is locked. The statement skips locked rows, so that it does not wait. Most of them are
# deliveries that a process is leasing at this moment.
#
# The joins are LATERAL because PostgreSQL could execute other joins by reading all pending deliveries for each row, if
# its statistics date from a time with few pending deliveries. ORDER BY makes PostgreSQL use the index of first
# attempts, because no other index has this order.
_HASTEN: Final = Statement[Nothing](f"""
WITH urgent AS MATERIALIZED (
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
               SELECT d.ctid AS row_id FROM deliveries d
                WHERE d.receiver_id = urgent.receiver_id AND d.user_id = urgent.user_id
                  AND d.event_id < urgent.event_id AND d.attempts = 0 AND d.priority > urgent.priority
                ORDER BY d.receiver_id, d.user_id, d.event_id
                  FOR UPDATE SKIP LOCKED) earlier
     GROUP BY earlier.row_id
)
UPDATE deliveries d SET priority = hastened.priority, next_at = LEAST(d.next_at, hastened.next_at)
  FROM hastened WHERE d.ctid = hastened.row_id
""")
FIND_PLACED: Final = Statement[PlacedEvent]("SELECT event_id, type FROM feed WHERE event_id = :event_id")
"""The query for an event that has a place in the feed. It returns no row for any other event."""
# The type is empty if an event has no place in the feed. The size of a page also counts such events, so that
# reading a page does not take longer if there are many of them.
_EVENTS_AFTER: Final = Statement[PlacedEvent]("""
SELECT e.id AS event_id, COALESCE(f.type, '') AS type
  FROM (SELECT id FROM events WHERE id > :after ORDER BY id LIMIT :size) e LEFT JOIN feed f ON f.event_id = e.id
 ORDER BY e.id
""")


def _receivers_fragment(condition: LiteralString) -> LiteralString:
    """Return the SQL of `receivers`, the receivers of the deliveries that meet a condition.

    This recursive query goes from one receiver to the next in the index, so it does not read all these deliveries. Its
    last row is null, and joins no delivery.
    """
    return f"""receivers (id) AS (
    (SELECT receiver_id FROM deliveries WHERE {condition} ORDER BY receiver_id LIMIT 1)
     UNION ALL
    SELECT (SELECT d.receiver_id FROM deliveries d WHERE {condition} AND d.receiver_id > receivers.id
             ORDER BY d.receiver_id LIMIT 1)
      FROM receivers WHERE receivers.id IS NOT NULL
)"""


# The statement returns each receiver that has due deliveries, once for each priority of these deliveries. Priorities
# are negative for sites. The result includes removed sites, but wxauth sends nothing to them.
#
# `due` is one due delivery of a receiver and priority. ORDER BY makes PostgreSQL use the index to find it, regardless
# of its estimates. With EXISTS, PostgreSQL would read all due deliveries, and with LIMIT but without ORDER BY, it would
# read the whole table.
_DUE: Final = Statement[tuple[UUID, int]](f"""
WITH RECURSIVE {_receivers_fragment("state = 'pending'")}
SELECT receivers.id, priorities.priority
  FROM receivers
       CROSS JOIN generate_series({min(Priority).sql}, {max(Priority).sql}) AS priorities (priority)
       CROSS JOIN LATERAL (
           SELECT FROM deliveries d
            WHERE d.receiver_id = receivers.id AND d.priority = priorities.priority AND d.state = 'pending'
              AND d.next_at <= :now
            ORDER BY d.next_at LIMIT 1) due
 WHERE priorities.priority < 0 OR EXISTS (SELECT FROM webhooks w WHERE w.id = receivers.id AND is_enabled)
 ORDER BY priorities.priority
""")
# Only one process leases a delivery, because the statement skips rows that another process has locked, and a leased
# delivery is not due before its lease ends.
#
# For a webhook, the statement leases the first attempt of a delivery only when the first attempts of all earlier
# deliveries about the same user have ended.
#
# For a site, two first attempts about one user may run in parallel, so OFFSET disregards one earlier delivery. The
# tokens that end a user's sessions have no order, and a slow response to one token should not delay the next. A third
# attempt must wait, so that one user does not take all parallel attempts of the site. Only earlier deliveries of the
# same priority count, so that tokens that a user causes do not delay the tokens of a ban.
#
# As in `_HASTEN`, the ORDER BY of the earlier deliveries makes PostgreSQL use the index of first attempts.
LEASE_DELIVERY: Final = Statement[LeasedDelivery]("""
WITH due AS (
    SELECT receiver_id, event_id FROM deliveries d
     WHERE receiver_id = :receiver_id AND priority = :priority AND state = 'pending' AND next_at <= :now
       AND (priority < 0 OR EXISTS (SELECT FROM webhooks WHERE id = :receiver_id AND is_enabled))
       AND (attempts > 0 OR NOT EXISTS (
               SELECT FROM deliveries earlier
                WHERE earlier.receiver_id = :receiver_id AND earlier.user_id = d.user_id
                  AND earlier.event_id < d.event_id AND (d.priority >= 0 OR earlier.priority = d.priority)
                  AND (earlier.attempts = 0 OR earlier.attempts = 1 AND earlier.is_leased)
                ORDER BY earlier.receiver_id, earlier.user_id, earlier.event_id
               OFFSET CASE WHEN d.priority < 0 THEN 1 ELSE 0 END))
     ORDER BY next_at LIMIT 1
       FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE deliveries d SET attempts = attempts + 1, next_at = :until, is_leased = true
      FROM due WHERE d.receiver_id = due.receiver_id AND d.event_id = due.event_id
    RETURNING d.receiver_id, d.event_id, d.attempts, d.user_id, d.priority < 0 AS is_logout
)
SELECT leased.receiver_id, leased.event_id, leased.attempts, leased.is_logout,
       COALESCE(webhooks.name, site.name) AS name, COALESCE(webhooks.url, site.backchannel_logout_uri, '') AS url,
       webhooks.secret, webhooks.former_secret, webhooks.former_secret_until, webhooks.delivered_at, site.id_token_alg,
       events.id IS NULL AS is_swept,
       events.id, events.type, events.at, leased.user_id, events.app_id, events.actor, events.data
  FROM leased
       LEFT JOIN events ON events.id = leased.event_id
       LEFT JOIN webhooks ON webhooks.id = leased.receiver_id
       LEFT JOIN clients site ON site.id = leased.receiver_id AND site.removed_by IS NULL
""")
# The statement stores nothing if the delivery is finished (`next_at` is null), or if the lease has expired and another
# process has leased the delivery (`attempts` differs).
_SETTLE: Final = Statement[UUID]("""
WITH settled AS (
    UPDATE deliveries SET state = :state, status = :status, error = :error, next_at = :next_at, is_leased = false
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
# This statement makes deliveries due that have failed twice or more, and does not count the additional attempt. If it
# counted that attempt, an event that its receiver refuses while accepting other events would finally fail too soon. The
# statement skips deliveries that have failed once, because their second attempt follows within seconds. Otherwise, that
# attempt would count as a first attempt again, and later deliveries about the same user would wait for it.
RESUME_DELIVERIES: Final = Statement[Nothing](f"""
UPDATE deliveries SET next_at = :now, attempts = attempts - 1
 WHERE receiver_id = :receiver_id AND event_id = ANY (ARRAY(
       SELECT event_id FROM deliveries
        WHERE receiver_id = :receiver_id AND priority BETWEEN {Priority.BAN.sql} AND {Priority.ORDINARY.sql}
          AND state = 'pending' AND next_at > :now AND attempts > 1 AND NOT is_leased
        ORDER BY priority, next_at LIMIT :size
          FOR UPDATE SKIP LOCKED))
""")
# Before the first attempt, `next_at` is only a rank in the queue, so the list shows `at` instead.
_LISTED_COLUMNS: Final = ", ".join(
    "CASE WHEN attempts > 0 THEN next_at ELSE at END AS next_at" if name == "next_at" else name
    for name in columns_of(DeliveryRow)
)
# For each chosen state, PostgreSQL reads the newest deliveries from the part of the index that has this state.
LIST_DELIVERIES: Final = Statement[DeliveryRow](f"""
SELECT d.* FROM unnest(:states::text[]) AS chosen CROSS JOIN LATERAL (
       SELECT {_LISTED_COLUMNS} FROM deliveries
        WHERE receiver_id = :receiver_id AND state = chosen AND (:before::uuid IS NULL OR id < :before)
        ORDER BY id DESC LIMIT :limit) d
 ORDER BY d.id DESC LIMIT :limit
""")
"""The query for a page of a webhook's deliveries in the given states, the newest first."""
# For each webhook and state, the sweep reads the oldest deliveries through the index. It deletes the finished ones that
# were queued before `:before`, and all deliveries of removed webhooks.
sweep_deliveries: Final = Sweep(
    Statement[Nothing](f"""
WITH RECURSIVE {_receivers_fragment("true")}, swept AS MATERIALIZED (
    SELECT old.receiver_id, old.event_id
      FROM receivers CROSS JOIN unnest('{{delivered,failed,pending}}'::text[]) AS chosen
           CROSS JOIN LATERAL (
               SELECT d.receiver_id, d.event_id, d.at FROM deliveries d
                WHERE d.receiver_id = receivers.id AND d.state = chosen AND d.priority >= 0
                ORDER BY d.id LIMIT :size FOR UPDATE SKIP LOCKED) old
     WHERE NOT EXISTS (SELECT FROM webhooks w WHERE w.id = receivers.id)
        OR (chosen <> 'pending' AND old.at < :before)
     LIMIT :size
)
DELETE FROM deliveries USING swept
 WHERE deliveries.receiver_id = swept.receiver_id AND deliveries.event_id = swept.event_id
""")
)
reseal_webhook: Final = Reseal.of("webhooks", "secret", "former_secret", key="id")
"""The replacement of a webhook's encrypted secrets with the same secrets, encrypted with a new `WXAUTH_SECRET_KEY`."""


async def write_webhook(
    database: Database, kind: EventType, *, by: Actor, now: datetime, **values: object
) -> Webhook | None:
    """Make the change to a webhook that an event of this type reports, and record the event. Return the webhook.

    `values` are the parameters of the statement that makes the change. Return None if the name of a new webhook is
    taken, if the webhook does not exist, or if a webhook to disable is disabled already. The sweep deletes the
    deliveries of a removed webhook later.
    """
    async with database.begin() as transaction:
        return await change_webhook(transaction, kind, by=by, now=now, **values)


async def change_webhook(
    transaction: Transaction, kind: EventType, *, by: Actor, now: datetime, **values: object
) -> Webhook | None:
    """Change a webhook and record the event in the caller's transaction, as `write_webhook` does in its own."""
    webhook: Webhook | None = await transaction.row(_CHANGES[kind], **values)
    if webhook is not None:
        data = webhook.model_dump(include=set(kind.data))
        await record_event(transaction, kind, by=by, at=now, data=data)
    return webhook


async def queue_deliveries(transaction: Transaction, events: Sequence[PlacedEvent], *, now: datetime) -> int:
    """Queue the deliveries of events that have just got their places, and return the number of queued deliveries."""
    if not events:
        return 0
    webhooks = await transaction.rows(_SUBSCRIPTIONS)
    return await _queue_with(transaction, _QUEUE, events, webhooks, now=now)


async def queue_again(
    transaction: Transaction, webhook: Webhook, events: Sequence[PlacedEvent], *, now: datetime
) -> int:
    """Queue the events of a webhook's types again for this webhook, and return the number of queued deliveries.

    The function does not queue a delivery that a process is sending now.
    """
    return await _queue_with(transaction, _QUEUE_AGAIN, events, [(webhook.id, webhook.types)], now=now)


async def _queue_with(
    transaction: Transaction,
    statement: Statement[Nothing],
    events: Sequence[PlacedEvent],
    webhooks: Sequence[tuple[UUID, Sequence[str]]],
    *,
    now: datetime,
) -> int:
    """Queue the deliveries of events with `statement`, and return the number of queued deliveries.

    If a queued event is urgent, also make the earlier deliveries about its user urgent (see `_HASTEN`).

    `webhooks` are the ids of the receivers, each with the types of events that it receives. An empty list of types
    stands for all types.
    """
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
    """Read up to `size` events after an id. Return the events that are in the feed, and the id after which to continue.

    The returned id is None if there are no more events.
    """
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
) -> LeasedDelivery | None:
    """Lease the next delivery of this priority to a receiver. Return None if none can be leased now."""
    async with database.begin(replan=True) as transaction:
        return await transaction.row(LEASE_DELIVERY, receiver_id=receiver_id, priority=priority, now=now, until=until)


async def settle_delivery(
    database: Database, delivery: LeasedDelivery, outcome: DeliveryOutcome, *, now: datetime
) -> bool:
    """Store the outcome of an attempt. Return whether it is a success whose time was stored in `delivered_at`.

    The time of a webhook's success is stored only if the stored time is more than a minute old.

    A finished delivery to a site is deleted instead. If the lease has expired and another process has leased the
    delivery, the function stores and deletes nothing.
    """
    leased = delivery.model_dump(include={"receiver_id", "event_id", "attempts"})
    async with database.begin(replan=True) as transaction:
        if delivery.is_logout and outcome.state is not DeliveryState.PENDING:
            await transaction.run(_DELETE_FINISHED_LOGOUT, **leased)
            return False
        return await transaction.value(_SETTLE, **leased, **asdict(outcome), now=now) is not None
