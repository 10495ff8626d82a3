"""The background tasks run even if the first load of the stored data fails."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests import world
from tests.world import LogLines
from wxauth.console.sessions import ConsoleSessions
from wxauth.core.services import Services
from wxauth.keys.keyring import KeyRing
from wxauth.service.lifespan import _run_background_tasks


async def run_until(services: Services, condition: Callable[[], object], *expected: type[Exception]) -> None:
    """Run the background tasks of a service that has loaded nothing, until the condition is true or they end.

    The tasks may end with one of the `expected` errors.
    """
    tasks = asyncio.create_task(_run_background_tasks(services, is_loaded=False))
    await world.until(lambda: condition() or tasks.done())
    tasks.cancel()
    with suppress(asyncio.CancelledError, *expected):
        await tasks


async def test_a_failed_load_does_not_stop_the_background_tasks(
    services: Services, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    kept = asyncio.Event()

    async def fail(_sessions: ConsoleSessions) -> None:
        raise LookupError("for example, a column of a later migration is missing")

    async def keep(_keys: KeyRing) -> None:
        kept.set()

    monkeypatch.setattr(ConsoleSessions, "add_as_site", fail)
    monkeypatch.setattr(KeyRing, "keep_fresh", keep)
    await run_until(services, kept.is_set, LookupError)
    assert kept.is_set()
    assert "stored_data_not_loaded" in [line["event"] for line in log_lines()]
