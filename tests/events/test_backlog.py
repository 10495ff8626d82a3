"""While thousands of bans are being delivered, another ban costs no more than usual, whatever the statistics say."""

from typing import Any
from uuid import UUID

import pytest

from tests.world import Stage, until
from wxauth.events.placing import place_events
from wxauth.events.webhook_deliveries import LEASE
from wxauth.events.webhook_queries import Priority, due_receivers, lease_delivery

PENDING = 15_000
WEBHOOK, ELSEWHERE = UUID(int=1), UUID(int=2)
PLANS_ARE_KEPT = 7
"""The number of runs after which PostgreSQL may reuse a statement's plan."""
ADDED = (
    "INSERT INTO webhooks (id, name, url, secret, created_at) VALUES ($1, 'orders', 'https://o.example.com', '', $2)"
)
SETTLED = """
INSERT INTO deliveries (receiver_id, event_id, id, type, user_id, state, attempts, priority, at)
SELECT $1, gen_random_uuid(), gen_random_uuid(), 'user.banned', gen_random_uuid(), 'delivered', 1, 0, $2
  FROM generate_series(1, 4000)
"""
BANNED = """
INSERT INTO events (id, type, at, actor, user_id)
SELECT overlay(lpad(n::text, 32, '0') placing '1' from 1)::uuid, 'user.banned',
       $1::timestamptz + n * interval '1 microsecond', 'operator', gen_random_uuid()
  FROM generate_series($2::int, $3) n
"""
# An ordinary event of each user that happened before the ban. It must be sent before the ban, so it gets the ban's
# priority.
ORDINARY = """
INSERT INTO deliveries (receiver_id, event_id, id, type, user_id, priority, next_at, at)
SELECT $1, overlay(id::text placing '0' from 1)::uuid, id, 'user.profile_changed', user_id, 3, $2, $2
  FROM events JOIN events_unplaced ON event_id = id
"""
READ = (
    "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_user_tables WHERE relname = 'deliveries'"
)


@pytest.mark.own_database
@pytest.mark.slow
@pytest.mark.parametrize("receiver", [None, ELSEWHERE, WEBHOOK], ids=["emptied", "quiet, new webhook", "quiet"])
async def test_one_more_ban_is_sent_before_thousands_and_reads_none(stage: Stage, receiver: UUID | None) -> None:
    rows, database, now = stage.rows, stage.services.database, stage.clock()
    await rows.execute(ADDED, WEBHOOK, now)
    if receiver is not None:
        await rows.execute(SETTLED, receiver, now)
    await rows.execute("VACUUM ANALYZE")
    lease: dict[str, Any] = {"receiver_id": WEBHOOK, "priority": Priority.BAN, "now": now, "until": now + LEASE}
    for _ in range(PLANS_ARE_KEPT):
        assert await due_receivers(database, now=now) == []
        assert await lease_delivery(database, **lease) is None
        await place_events(stage.services)
    await rows.execute(BANNED, now, 1, PENDING)
    await rows.execute(ORDINARY, WEBHOOK, now)
    assert await place_events(stage.services) == PENDING
    assert await lease_delivery(database, **lease)
    stage.clock.advance(seconds=1)
    await rows.execute(BANNED, stage.clock(), PENDING + 1, PENDING + 1)
    user_id = await rows.fetchval("SELECT user_id FROM events ORDER BY id DESC LIMIT 1")
    await rows.execute(ORDINARY, WEBHOOK, stage.clock())
    assert await place_events(stage.services) == 1
    lease |= {"now": stage.clock(), "until": stage.clock() + LEASE}
    first = await lease_delivery(database, **lease)
    assert first is not None
    assert first.user_id == user_id
    await database.aclose()  # a backend reports the rows that it has read when it ends
    await until(lambda: rows.fetchval(f"SELECT ({READ}) > 0"))
    read = await rows.fetchval(READ)
    assert read < 10 * PENDING, read
