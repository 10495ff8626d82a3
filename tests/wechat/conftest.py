"""Fixtures of the tests of the transport to WeChat."""

import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from tests.certificates import Authority
from tests.fakes import Clock, Secrets
from tests.forward_proxy import CREDENTIALS, PASSWORD
from tests.wechat.asking import CODE, IDENTITY, ServiceAsking
from tests.world import MakeClient
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.build import build_services


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def service_asking(
    make_settings: Callable[..., Settings], make_client: MakeClient, clock: Clock, secrets: Secrets
) -> AsyncIterator[ServiceAsking]:
    """The service with its real transport to WeChat at this URL."""
    for secret in (CODE, IDENTITY["session_key"], PASSWORD, CREDENTIALS):
        secrets.add(secret)
    made: list[Services] = []

    async def make(url: str, **values: object) -> httpx.AsyncClient:
        services = build_services(make_settings(wechat_base_url=url, **values), clock=clock)
        made.append(services)
        await services[KeyRing].refresh()
        return make_client(services)

    yield make
    for services in made:
        await services.aclose()


@pytest.fixture
def nobody() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"
