"""An event gets its place after all earlier events, even if a sequence is too low, for example after a server move."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.metrics import scrape
from tests.world import AddSibling, Body, Stage, bearer, until
from wxauth.checks.database import judge_sequences
from wxauth.checks.result import CheckLevel
from wxauth.clients.models import Scope
from wxauth.core.database import Database
from wxauth.events.feed_queries import read_sequences
from wxauth.events.placing import keep_placing, place_events

pytestmark = pytest.mark.own_database

PLACES = "feed_position_seq"
NUMBERS = "events_unplaced_number_seq"
STATES = [
    f"SELECT setval('{PLACES}', 1)",
    f"SELECT setval('{PLACES}', 1, false)",
    f"SELECT setval('{PLACES}', 3)",
    f"SELECT setval('{PLACES}', 9223372036854775806)",
    f"SELECT setval('{PLACES}', 9223372036854775807)",
    f"SELECT setval('{NUMBERS}', 1)",
    f"SELECT setval('{NUMBERS}', 9223372036854775807)",
    f"SELECT setval('{PLACES}', 1), setval('{NUMBERS}', 1)",
    f"ALTER SEQUENCE {PLACES} RESTART WITH 1 INCREMENT BY 10",
    f"ALTER SEQUENCE {PLACES} RESTART WITH 1 CACHE 50",
    f"ALTER SEQUENCE {PLACES} MINVALUE -100 RESTART WITH 1 INCREMENT BY -1",
    f"ALTER SEQUENCE {PLACES} MAXVALUE 10 CYCLE RESTART WITH 4",
    f"ALTER SEQUENCE {NUMBERS} CACHE 50 RESTART WITH 1",
    f"ALTER SEQUENCE {NUMBERS} MINVALUE -100 RESTART WITH 1 INCREMENT BY -1",
    "ALTER TABLE feed ALTER position DROP IDENTITY",
]
"""Statements with which the owner of a sequence can set it to wrong values."""


class Reader:
    """A sibling that follows its cursor. It stores the events that it has read."""

    def __init__(self, stage: Stage, auth: Any) -> None:
        self.stage, self.auth, self.cursor, self.read = stage, auth, "", list[Body]()

    async def follow(self) -> list[str]:
        """Read the new events, and return their types, oldest first."""
        new = list[Body]()
        while True:
            query = {"after": self.cursor} if self.cursor else {}
            answer = await self.stage.client.get("/v1/events", params=query, auth=self.auth)
            assert answer.status_code == 200, answer.text
            self.cursor = answer.json()["next_cursor"]
            if not answer.json()["items"]:
                break
            new += answer.json()["items"]
        self.read += new
        return [event["type"] for event in new]


@pytest.fixture
async def reader(stage: Stage, add_sibling: AddSibling) -> Reader:
    return Reader(stage, await add_sibling("ledger", Scope.EVENTS))


@pytest.fixture
def people() -> Iterator[str]:
    return (f"person-{n}" for n in count())


async def positions(stage: Stage) -> list[int]:
    return [row[0] for row in await stage.rows.fetch("SELECT position FROM feed ORDER BY position")]


async def sweep_all(stage: Stage) -> None:
    """Delete every event, as EVENTS_KEPT_DAYS does with old events."""
    await stage.rows.execute("ALTER TABLE events DISABLE TRIGGER events_append_only; DELETE FROM events")
    await stage.rows.execute("ALTER TABLE events ENABLE TRIGGER events_append_only")


@pytest.mark.slow
@pytest.mark.parametrize("is_swept", [False, True])
@pytest.mark.parametrize("state", STATES)
async def test_a_reader_misses_nothing_whatever_a_sequence_says(
    stage: Stage, reader: Reader, people: Iterator[str], state: str, is_swept: bool
) -> None:
    for _ in range(8):
        await stage.login(next(people))
    await place_events(stage.services)
    assert len(await reader.follow()) == 8
    before = await positions(stage)
    if is_swept:
        await sweep_all(stage)
    await stage.rows.execute(state)
    for _ in range(3):
        for _ in range(2):
            await stage.login(next(people))
        await place_events(stage.services)
        assert await reader.follow() == ["user.created"] * 2
    assert next(place for place in await positions(stage) if place not in before) > before[-1]
    assert await stage.number("events_unplaced") == 0


async def test_a_sequence_behind_its_table_is_corrected_before_the_first_event(
    stage: Stage, reader: Reader, people: Iterator[str]
) -> None:
    for _ in range(5):
        await stage.login(next(people))
    await place_events(stage.services)
    await sweep_all(stage)
    await stage.rows.execute(f"SELECT setval('{PLACES}', 1)")
    placing = asyncio.create_task(keep_placing(stage.services))
    await until(lambda: stage.logged("sequence_corrected"))
    placing.cancel()
    assert await stage.rows.fetchval(f"SELECT last_value FROM {PLACES}") == 5
    [line] = stage.logged("sequence_corrected")
    assert (line["sequence"], line["was"], line["now"]) == (PLACES, 1, 5)


async def test_a_sequence_that_is_set_back_while_replicas_run_is_corrected_once(
    stage: Stage, reader: Reader, people: Iterator[str]
) -> None:
    replicas = [await stage.make_services() for _ in range(3)]
    for _ in range(5):
        await stage.login(next(people))
    await place_events(stage.services)
    await reader.follow()
    await stage.rows.execute(f"SELECT setval('{PLACES}', 2)")
    for _ in range(5):
        await stage.login(next(people))
    placed = await asyncio.gather(*(place_events(replica) for replica in replicas))
    assert (sum(placed), await reader.follow()) == (5, ["user.created"] * 5)
    assert await stage.rows.fetchval(f"SELECT last_value FROM {PLACES}") == 10
    assert [line["sequence"] for line in stage.logged("sequence_corrected")] == [PLACES]


async def test_the_order_of_a_users_events_outlives_numbers_that_were_set_back(stage: Stage, reader: Reader) -> None:
    """The later event gets the lower number. Nevertheless, the events wait in the order of the user's commits."""
    alice = await stage.login("alice")
    await place_events(stage.services)
    await reader.follow()
    await stage.rows.execute(f"SELECT setval('{NUMBERS}', 500)")
    await stage.change(alice, nickname="Alice")
    await stage.rows.execute(f"SELECT setval('{NUMBERS}', 1)")
    assert (await stage.client.post("/v1/logout", headers=bearer(alice))).status_code == 204
    await place_events(stage.services)
    assert await reader.follow() == ["user.profile_changed", "session.ended"]


async def test_events_of_an_older_table_of_waiting_ones_keep_the_places_that_they_have(
    stage: Stage, reader: Reader, people: Iterator[str]
) -> None:
    """This happens if a backup of only this table is restored, so that the feed or the events are newer or older."""
    for _ in range(3):
        await stage.login(next(people))
    await stage.rows.execute("CREATE TABLE older AS SELECT event_id FROM events_unplaced")
    await place_events(stage.services)
    before = await positions(stage)
    await stage.rows.execute("INSERT INTO events_unplaced (event_id) SELECT event_id FROM older")
    await stage.rows.execute("INSERT INTO events_unplaced (event_id) SELECT gen_random_uuid()")
    await stage.login(next(people))
    assert await place_events(stage.services) == 1
    assert (await positions(stage))[:-1] == before
    assert await reader.follow() == ["user.created"] * 4


async def test_a_role_that_may_not_set_a_sequence_gives_right_places_and_is_told_the_grant(
    stage: Stage, reader: Reader, people: Iterator[str], database_url: str
) -> None:
    for _ in range(5):
        await stage.login(next(people))
    await place_events(stage.services)
    await reader.follow()
    await stage.rows.execute("""
        CREATE ROLE "Web-s" LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "Web-s"
    """)
    try:
        guest = await stage.replica(database_url=database_url.replace("postgres@", "Web-s@"))
        found = judge_sequences(await read_sequences(guest.services.database))
        assert found is not None
        assert found.level is CheckLevel.BAD
        for _ in range(4):
            await stage.rows.execute(f"SELECT setval('{PLACES}', 1)")
            await guest.login(next(people))
            await place_events(guest.services)
            assert await reader.follow() == ["user.created"]
        await stage.rows.execute('GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO "Web-s"')
        await stage.rows.execute(f"SELECT setval('{PLACES}', 1)")
        found = judge_sequences(await read_sequences(guest.services.database))
        assert found is not None
        assert (found.level, PLACES in found.text) == (CheckLevel.BAD, True)
        await stage.rows.execute(found.text[found.text.index("GRANT") :])
        await guest.login(next(people))
        await place_events(guest.services)
        assert await reader.follow() == ["user.created"]
        assert judge_sequences(await read_sequences(guest.services.database)) is None
        await guest.services.aclose()
    finally:
        await stage.rows.execute('DROP OWNED BY "Web-s"; DROP ROLE "Web-s"')


@pytest.mark.parametrize("state", STATES[:2])
async def test_check_says_which_sequence_is_behind(stage: Stage, people: Iterator[str], state: str) -> None:
    database: Database = stage.services.database
    assert judge_sequences(await read_sequences(database)) is None
    for _ in range(5):
        await stage.login(next(people))
    await place_events(stage.services)
    await stage.login(next(people))
    assert judge_sequences(await read_sequences(database)) is None
    await stage.rows.execute(state)
    found = judge_sequences(await read_sequences(database))
    assert found is not None
    assert found.level is CheckLevel.BAD
    assert (PLACES in found.text, NUMBERS in found.text) == (True, False)


async def test_an_event_that_waits_for_its_place_counts_as_pending(stage: Stage) -> None:
    await stage.login("alice")
    stage.clock.advance(seconds=90)
    assert (await scrape(stage.client))("wxauth_webhook_oldest_pending_seconds") == 90


async def test_now_is_after_what_was_swept_if_only_older_events_remain(stage: Stage, reader: Reader) -> None:
    """Erasures are kept permanently.

    A reader that begins at `now` must get a cursor that works for a second request.
    """
    for person in ("alice", "bob"):
        await stage.login(person)
    await place_events(stage.services)
    await stage.rows.execute("""
        ALTER TABLE events DISABLE TRIGGER events_append_only;
        DELETE FROM events WHERE id = (SELECT event_id FROM feed ORDER BY position DESC LIMIT 1)
    """)
    reader.cursor = "now"
    assert await reader.follow() == []
    await stage.login("carol")
    await place_events(stage.services)
    assert await reader.follow() == ["user.created"]
