"""Repeated background work continues through database outages, and logs them at intervals."""

import asyncio

import pytest

from tests.world import LogLines
from wxauth.core.background import keep_doing
from wxauth.errors import StorageUnavailable


@pytest.mark.no_database
async def test_an_outage_is_logged_at_intervals_and_each_other_error(log_lines: LogLines) -> None:
    outcomes = [
        StorageUnavailable("down"),
        StorageUnavailable("still down"),
        None,
        StorageUnavailable("down again"),
        ValueError("a fault of ours"),
        asyncio.CancelledError(),
    ]

    async def store() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    with pytest.raises(asyncio.CancelledError):
        await keep_doing(store, pause=0, failure_event="numbers_not_stored")
    assert [(line["event"], line["level"], line.get("reason")) for line in log_lines()] == [
        ("database_does_not_answer", "warning", "down: StorageUnavailable"),
        ("numbers_not_stored", "error", None),
    ]
