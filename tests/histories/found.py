"""Reads a town that has come to rest: its tables, its feed, its events, its logs and the requests that were sent."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import httpx

from tests.histories.town import Asked, Login, Town
from tests.world import Body, Rows, bearer, body_of, until
from wxauth.core.models import all_tables

Row = dict[str, Any]

_AT_REST: Final = """
SELECT NOT EXISTS (SELECT FROM events_unplaced) AND NOT EXISTS (SELECT FROM erasures)
   AND NOT EXISTS (SELECT FROM users WHERE erase_at <= now() AND status = 'active')
"""
OF_PEOPLE: Final = {
    name: table.columns.keys()
    for name, table in all_tables().tables.items()
    if re.search(r"user_id|(?:openid|session_id)\b", " ".join(table.columns.keys()))
}
"""The columns of each table that contains data about users."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The response to the last attempt to use the newest refresh token of a session."""

    session_id: str
    status: int
    code: str


@dataclass(slots=True)
class Found:
    """A town at rest."""

    tables: Mapping[str, list[Row]]
    """The rows of each table that contains users, identities or sessions."""
    feed: list[Body]
    trail: list[Body]
    """All events, oldest first, each in the form that administrators read."""
    asked: Sequence[Asked] = ()
    refreshed: Sequence[Refreshed] = ()
    lines: Sequence[Body] = ()
    """The lines of the replicas' logs."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """The user of each person whose browser logs in without a page, because it still has that user's login."""
    group_of: dict[str, int] = field(default_factory=dict)
    """A group number for each user id. Ids that merges or splits have joined, or might have joined, share a number."""


async def rest(town: Town) -> Found:
    """Wait until everything is at rest, then read the town."""
    await until(lambda: _is_reachable(town))
    rows = await asyncpg.connect(town.database_url)
    try:
        await until(lambda: rows.fetchval(_AT_REST))
        found = await _look(town, rows)
    finally:
        await rows.close()
    found.refreshed = await _refresh_all(town)
    entered = {person: await town.enter_silently(person) for person in list(town.computers)}
    found.silent = {person: user_id for person, user_id in entered.items() if user_id is not None}
    found.lines = [line for server in town.servers for line in _lines_of(server.command.output)]
    return found


async def _is_reachable(town: Town) -> bool:
    try:
        return all([(await client.get("/readyz")).status_code == 200 for client in town.clients])
    except (OSError, httpx.TransportError):  # a worker has just been killed
        return False


async def _look(town: Town, rows: Rows) -> Found:
    """Read everything at one moment. If an event is recorded while this function reads, it starts again."""
    while True:
        number = await rows.fetchval("SELECT count(*) FROM events")
        async with rows.transaction(isolation="repeatable_read", readonly=True):
            read = {name: await rows.fetch(f"SELECT * FROM {name}") for name in ("users", *OF_PEOPLE)}
        feed = await _all_pages(town, "/v1/events", "after", limit=1000, auth=town.ledger)
        headers = bearer(town.administrators["administrator 1"])
        trail = (await _all_pages(town, "/v1/admin/events", "cursor", limit=100, headers=headers))[::-1]
        if await rows.fetchval("SELECT count(*) FROM events") == number and await rows.fetchval(_AT_REST):
            return Found({name: [*map(dict, its)] for name, its in read.items()}, feed, trail, town.asked)
        await asyncio.sleep(0.1)


async def _all_pages(town: Town, path: str, cursor: str, *, limit: int, **how: Any) -> list[Body]:
    """Return the items of all pages of a list, whose parameter for the next page is `cursor`."""
    items: list[Body] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        page = body_of(await town.clients[0].get(path, params=query, **how))
        items += page["items"]
        if not page["items"] or page["next_cursor"] is None:
            return items
        query[cursor] = page["next_cursor"]


async def _refresh_all(town: Town) -> list[Refreshed]:
    """Try the newest refresh token of each session."""
    newest: dict[str, Login] = {}
    for logins in town.logins.values():
        newest |= {login.tokens["session_id"]: login for login in logins}
    refreshed = []
    for session_id, login in newest.items():
        body = {"refresh_token": login.tokens["refresh_token"]}
        answer = await town.clients[0].post("/v1/refresh", json=body)
        refreshed.append(Refreshed(session_id, answer.status_code, answer.json().get("code", "")))
    return refreshed


def _lines_of(output: str) -> list[Body]:
    """Return the lines of a log.

    A killed process leaves half a line. A line that isn't JSON becomes a line with the level `unreadable`, which is a
    fault.
    """
    lines = []
    for line in output.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append({"event": line, "level": "unreadable"})
    return lines
