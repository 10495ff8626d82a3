"""`wxauth partitions`: partition the sessions of a large database by week."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import click

from wxauth.server.checks.rows import read_rights
from wxauth.server.cli.printing import Failed, json_option, show, to_the_minute
from wxauth.server.cli.resources import with_database
from wxauth.server.core.database import Database
from wxauth.server.sessions.partitions import Partitioning, begin_partitions, end_partitions, read_partitioning


@click.group()
def partitions() -> None:
    """Partition the sessions by week, in a database of hundreds of millions.

    Old sessions then go by dropping a week, and are not deleted one by one.
    """


@partitions.command()
@json_option
def on_command(as_json: bool) -> None:
    """Partition the sessions, while logins go on.

    The sessions so far become the first partition, and are read once. From then on, housekeeping prepares four weeks
    ahead. It may be stopped and run again. Where weeks are missing, it adds them.
    """
    _change(lambda database, now: begin_partitions(database, now=now), as_json=as_json)


@partitions.command()
@json_option
def off_command(as_json: bool) -> None:
    """Prepare no more weeks.

    As soon as all sessions are in one partition, at once or when the others have been dropped, they are in a plain
    table again.
    """
    _change(lambda database, _now: end_partitions(database), as_json=as_json)


@partitions.command()
@json_option
def status_command(as_json: bool) -> None:
    """Print the partitions, the oldest first."""
    _print(with_database(lambda database, _now: read_partitioning(database)), as_json=as_json)


def _change(change: Callable[[Database, datetime], Awaitable[Partitioning]], *, as_json: bool) -> None:
    async def changed(database: Database, now: datetime) -> Partitioning:
        if missing := (await read_rights(database)).missing_to_migrate:
            raise Failed(f"WXAUTH_DATABASE_URL: its role may not: as the owner of the database, {missing}")
        return await change(database, now)

    _print(with_database(changed), as_json=as_json)


def _print(state: Partitioning, *, as_json: bool) -> None:
    rows = [
        {"name": one.name, "until": one.end.isoformat(timespec="seconds") if one.end else None, "bytes": one.bytes}
        for one in state.partitions
    ]
    lines = ((one.name, to_the_minute(one.end), f"{one.bytes / 2**20:.1f}") for one in state.partitions)
    text = [("PARTITION", "UNTIL", "MB"), *lines] if rows else "the sessions are in a plain table"
    notes = ["no more weeks are prepared"] if rows and not state.is_on else []
    show({"is_on": state.is_on, "partitions": rows}, text, *notes, as_json=as_json)
