"""The fixtures for tests of the commands about keys."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jose import jwt

from tests.fakes import APP, service_env
from tests.processes import run

WxAuth = Callable[..., Awaitable[tuple[int, str, str]]]


def kid_of(answer: Mapping[str, Any]) -> str:
    return str(jwt.get_unverified_header(answer["access_token"])["kid"])


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return service_env(database_url, apps=[APP])


@pytest.fixture
def wxauth(env: dict[str, str], tmp_path: Path) -> WxAuth:
    """A function that runs a command and returns its status, output and errors."""

    async def call(*arguments: str, **changed: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(run, *arguments, cwd=tmp_path, env={**env, **changed})
        return done.returncode, done.stdout, done.stderr

    return call
