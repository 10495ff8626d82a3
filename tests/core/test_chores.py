"""Repeated background work continues through database outages, and logs each outage once."""

import asyncio

import pytest

from tests.world import LogLines
from wxauth.errors import StorageUnavailable
from wxauth.server.core.chores import keep_doing


@pytest.mark.no_database
async def test_an_outage_and_each_other_error_are_logged_once(log_lines: LogLines) -> None:
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
        await keep_doing(store, pause=0, put_off="numbers_not_stored", failed="numbers_not_stored")
    assert [(line["event"], line["level"], line.get("reason")) for line in log_lines()] == [
        ("numbers_not_stored", "warning", "StorageUnavailable"),
        ("numbers_not_stored", "warning", "StorageUnavailable"),
        ("numbers_not_stored", "error", None),
    ]
