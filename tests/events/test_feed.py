"""`/v1/events` returns every event once, in the order of commits, and reports gaps."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.clock import PATIENCE
from tests.fakes import APP
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.world import AddSibling, Body, Stage, leave
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth.events.feed_queries import Place
from wxauth.events.feed_routes import cursor_of
from wxauth.events.placing import place_events

INSERT = (
    "INSERT INTO events (id, type, at, actor, user_id) VALUES ($1::text::uuid, $2, now(), 'system', $1::text::uuid)"
)


@dataclass(frozen=True, slots=True)
class Feed:
    """A service client that reads `/v1/events`, and the stage whose events it reads."""

    stage: Stage
    reader: Credentials

    async def ask(self, **query: Any) -> httpx.Response:
        return await self.stage.client.get("/v1/events", params=query, auth=self.reader)

    async def read(self, **query: Any) -> Body:
        """Place the committed events, and read the feed: `await feed.read(after=..., type=..., limit=...)`."""
        await place_events(self.stage.services)
        answer = await self.ask(**query)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
        return answer.json()

    async def insert(self, *which: int, type: str = "user.banned", by: asyncpg.Connection | None = None) -> None:
        """Insert events with these numbers, through the test's own connection or through `by`."""
        for number in which:
            await (by or self.stage.rows).execute(INSERT, event_id(number), type)


@pytest.fixture
async def feed(stage: Stage, add_sibling: AddSibling) -> Feed:
    return Feed(stage, await add_sibling("ledger", Scope.EVENTS))


def event_id(number: int) -> str:
    return f"01933c5e-8f1a-7c3e-9b1d-{number:012}"


def numbers(page: Body) -> list[int]:
    return [int(event["id"][-12:]) for event in page["items"]]


async def test_the_feed_contains_only_ids(feed: Feed) -> None:
    alice = await feed.stage.login("alice", nickname="小明")
    await feed.stage.rows.execute("UPDATE users SET phone = '+8613800138000'")
    assert (await feed.stage.change(alice, nickname="Alice")).status_code == 200
    await leave(feed.stage.client, alice)
    page = await feed.read()
    user_id = alice["user"]["id"]
    common = {"at": "2026-11-20T08:00:00Z", "user_id": user_id, "app_id": APP["app_id"], "actor": user_id}
    assert [{name: event[name] for name in event if name != "id"} for event in page["items"]] == [
        {"type": "user.created", **common, "data": {}},
        {"type": "user.profile_changed", **common, "data": {"fields": ["nickname"]}},
        {
            "type": "session.ended",
            **common,
            "app_id": None,
            "data": {"session_ids": [alice["session_id"]], "reason": "erased"},
        },
        {"type": "user.erased", **common, "app_id": None, "data": {"former_ids": []}},
    ]
    assert all(UUID(event["id"]).version == 7 for event in page["items"])
    assert page.keys() == {"items", "next_cursor"}


async def test_the_feed_has_the_events_for_siblings_and_of_these_only_what_the_contract_lists(feed: Feed) -> None:
    for number, (kind, data) in enumerate(
        [
            ("scan.approved", "{}"),
            ("client.added", "{}"),
            ("access_token.read", "{}"),
            ("user.banned", '{"risk_rank": 4}'),
            ("user.authorization_revoked", '{"fields": ["phone"], "number": "+8613800138000"}'),
            ("user.merged", '{"former_id": "x", "by": "phone", "number": "+8613800138000"}'),
        ]
    ):
        await feed.stage.rows.execute(
            "INSERT INTO events (id, type, at, actor, data) VALUES ($1::text::uuid, $2, now(), 'system', $3)",
            event_id(number),
            kind,
            data,
        )
    assert [(event["type"], event["data"]) for event in (await feed.read())["items"]] == [
        ("user.banned", {}),
        ("user.authorization_revoked", {"fields": ["phone"]}),
        ("user.merged", {"former_id": "x", "by": "phone"}),
    ]
    await feed.stage.rows.execute("UPDATE events SET data = '{}'")  # no event of wxauth contains a number


@pytest.mark.oldest_postgres
async def test_a_reader_who_follows_the_cursor_gets_each_event_once(feed: Feed) -> None:
    empty = await feed.read(after="now")
    await feed.insert(*range(10))
    seen: list[int] = []
    page = await feed.read(limit=3)
    while page["items"]:
        seen += numbers(page)
        page = await feed.read(limit=3, after=page["next_cursor"])
    assert seen == list(range(10))
    assert (await feed.read(after=page["next_cursor"])) == page, "the cursor of nothing new leads to the same place"
    now = await feed.read(after="now")
    await feed.insert(10)
    assert (now["items"], numbers(await feed.read(after=now["next_cursor"]))) == ([], [10])
    assert numbers(await feed.read(after=page["next_cursor"])) == [10]
    assert numbers(await feed.read(after=empty["next_cursor"])) == [*range(11)]


async def test_an_event_committed_late_is_not_skipped_and_holds_up_nothing(feed: Feed, database_url: str) -> None:
    """The ids of such an event are lower than the ids of earlier commits, which the reader has already passed."""
    late, undone = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    transaction, other = late.transaction(isolation="serializable"), undone.transaction()
    await transaction.start()
    await other.start()
    await late.fetch("SELECT * FROM events")  # a backup or an open psql session also reads
    await feed.insert(1, by=late)
    await feed.insert(4, by=undone)
    async with asyncio.timeout(PATIENCE):
        await feed.insert(2, 3)
        page = await feed.read()
    assert numbers(page) == [2, 3]
    await transaction.commit()
    await other.rollback()
    assert numbers(await feed.read(after=page["next_cursor"])) == [1]
    assert numbers(await feed.read()) == [2, 3, 1]
    for connection in (late, undone):
        await connection.close()


async def test_replicas_that_place_events_at_once_give_each_event_one_place(feed: Feed) -> None:
    replicas = [await feed.stage.make_services() for _ in range(4)]
    await feed.insert(*range(50))
    placed = await asyncio.gather(*(place_events(replica) for replica in replicas))
    assert sum(placed) == 50
    assert numbers(await feed.read(limit=1000)) == list(range(50))


async def test_events_are_read_by_their_types(feed: Feed) -> None:
    kinds = ("user.banned", "user.unbanned", "user.created", "user.banned", "user.unbanned", "user.banned")
    for number, kind in enumerate(kinds):
        await feed.insert(number, type=kind)
    assert numbers(await feed.read(type="user.banned")) == [0, 3, 5]
    assert numbers(await feed.read(type=["user.unbanned", "user.created", ""])) == [1, 2, 4]
    assert numbers(await feed.read(type=["user.banned"] * 3)) == [0, 3, 5], "each once"
    page = await feed.read(type=["user.banned", "user.created"], limit=2)
    assert numbers(page) == [0, 2]
    page = await feed.read(type=["user.banned", "user.created"], limit=2, after=page["next_cursor"])
    assert numbers(page) == [3, 5]
    page = await feed.read(type="user.erased")
    assert page["items"] == []
    assert numbers(await feed.read(after=page["next_cursor"])) == [], "the others have been passed"


async def test_an_invalid_cursor_type_or_limit_is_refused(feed: Feed) -> None:
    await feed.insert(1)
    good = (await feed.read())["next_cursor"]
    with Sweep() as sweep:
        for field, value in [
            ("after", "x"),
            ("after", good + "A"),
            ("after", good[:-1]),
            ("after", ("B" if good[0] == "A" else "A") + good[1:]),
            ("after", good[:20] + ("A" if good[20] != "A" else "B") + good[21:]),
            ("after", good[:-1] + ("A" if good[-1] != "A" else "B")),
            ("after", good[:-1] + "é"),
            ("after", cursor_of(Place(2**63, UUID(int=1)))),
            ("after", "NOW"),
            ("type", "user_banned"),
            ("type", "unheard.of"),
            ("type", "client.added"),
        ]:
            with sweep.case(field, value):
                answer = await feed.ask(**{field: value})
                problem_of(answer, "invalid_request", 422)
                assert {error["field"] for error in answer.json()["errors"]} == {field}


async def test_a_cursor_whose_event_is_not_there_has_expired(feed: Feed) -> None:
    """This happens after a backup has been restored. The cursor's position can be empty, or belong to another event."""
    await feed.insert(1, 2)
    page, first = await feed.read(), await feed.read(limit=1)
    await feed.stage.rows.execute("DELETE FROM feed WHERE position = (SELECT max(position) FROM feed)")
    after = {"after": page["next_cursor"]}
    problem_of(await feed.ask(**after), "cursor_expired", 410)
    await feed.stage.rows.execute(
        "INSERT INTO feed (position, event_id, type) OVERRIDING SYSTEM VALUE"
        " SELECT max(position) + 1, $1::text::uuid, 'user.banned' FROM feed",
        event_id(3),
    )
    problem_of(await feed.ask(**after), "cursor_expired", 410)
    assert (await feed.read(after=first["next_cursor"]))["items"] == []
    assert (await feed.read(after="now"))["items"] == []


@pytest.mark.own_database
async def test_a_cursor_behind_which_events_were_swept_has_expired(feed: Feed) -> None:
    before = await feed.read(after="now")
    await feed.insert(*range(4))
    cursors = [(await feed.read(limit=number))["next_cursor"] for number in (1, 2, 3, 4)]
    await feed.stage.rows.execute("ALTER TABLE events DISABLE TRIGGER events_append_only")
    # The first event stays, like events that are kept permanently.
    await feed.stage.rows.execute(
        "DELETE FROM events WHERE id IN ($1::text::uuid, $2::text::uuid)", event_id(1), event_id(2)
    )
    statuses = [(await feed.ask(after=cursor)).status_code for cursor in (before["next_cursor"], *cursors)]
    assert statuses == [410, 410, 410, 200, 200], "behind the last one that was swept there is no gap"
    assert numbers(await feed.read(after=cursors[2])) == [3]
    assert numbers(await feed.read()) == [0, 3]
    await feed.stage.rows.execute("DELETE FROM events")
    assert (await feed.read(after="now"))["next_cursor"] == cursors[3]
    assert (await feed.read(after=cursors[3])) == {"items": [], "next_cursor": cursors[3]}
