"""Helpers that most tests use: types of fixtures, the header with a token, and polling for a condition."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import asyncpg
import httpx

from tests.headers import bearer as bearer
from tests.processes import PATIENCE
from wxauth.server.core.services import Services

MakeServices = Callable[..., Awaitable[Services]]
MakeClient = Callable[[Services], httpx.AsyncClient]
LogLines = Callable[[], list[dict[str, Any]]]


async def until(condition: Callable[[], Awaitable[object] | object]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if await holds if isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)


async def until_locked(rows: asyncpg.Connection, number: int = 1) -> None:
    """Wait until somebody waits for a lock, or so many do."""
    await until(lambda: rows.fetchval("SELECT count(*) >= $1 FROM pg_locks WHERE NOT granted", number))


BESIDE_LOGINS = "type NOT IN ('user.created', 'identity.added', 'user.profile_changed')"
"""SQL for the events that do not come from logging in, for tests of other events."""
