"""Fixtures of the tests of the transport to WeChat."""

import socket
from collections.abc import AsyncIterator, Callable

import pytest

from tests.certificates import Authority
from tests.conftest import making
from tests.databases import SharedDatabase
from tests.fakes import Clock, Secrets
from tests.forward_proxy import CREDENTIALS, PASSWORD
from tests.wechat.asking import CODE, IDENTITY, ServiceAsking
from tests.world import LogLines, MakeClient
from wxauth.server.core.settings import Settings


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def service_asking(
    make_settings: Callable[..., Settings],
    make_client: MakeClient,
    clock: Clock,
    secrets: Secrets,
    log_lines: LogLines,
    shared_database: SharedDatabase,
) -> AsyncIterator[ServiceAsking]:
    for secret in (CODE, IDENTITY["session_key"], PASSWORD, CREDENTIALS):
        secrets.add(secret)
    async with making(make_settings, None, clock, shared_database) as make_services:
        yield ServiceAsking(make_services, make_client, log_lines)


@pytest.fixture
def nobody() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"
