"""Fixtures for sites that log users in, and for the phones that scan their QR codes."""

from functools import partial
from typing import Any

import pytest

from tests.conftest import made_of_fixtures, marked
from tests.sites.browsers import BYE, Browser, House
from tests.world import CALLBACK, AddSite, GetPhone, Phone, Site, Stage
from wxauth.clients.clients import add_client
from wxauth.clients.rules import build_client
from wxauth.core.sealing import Sealer
from wxauth.keys.keyring import RsaKey, sealed_row
from wxauth.keys.queries import store_keys


@pytest.fixture(scope="session")
def id_token_key() -> RsaKey:
    """A key that signs id_tokens, which all tests share because generating it takes longer than most tests."""
    return RsaKey.generate()


@pytest.fixture
async def add_site(request: pytest.FixtureRequest, stage: Stage, id_token_key: RsaKey) -> AddSite:
    """A function that adds an OAuth client. For example, call `await add_site("shop", device=True)`."""
    if not request.node.get_closest_marker("no_signing_key"):
        now = stage.clock()
        async with stage.services.database.begin() as transaction:
            await store_keys(transaction, [], [sealed_row(id_token_key, stage.services[Sealer], now, activates_at=now)])

    async def add(name: str = "shop", **options: Any) -> Site:
        site = build_client(name, {"title": "Example Shop", "redirect_uris": [CALLBACK], **options})
        credentials = await add_client(stage.services.database, site, now=stage.clock())
        return Site(stage.client, name, None if credentials is None else stage.secrets.add(credentials.client_secret))

    return add


@pytest.fixture
def get_phone(stage: Stage) -> GetPhone:
    """A function that returns a user's phone. For example, call `await get_phone("alice")`."""

    async def log_in(person: str = "alice") -> Phone:
        return Phone(stage.client, await stage.login(person), partial(stage.wechat.code_for, person))

    return log_in


@pytest.fixture
def browser(stage: Stage) -> Browser:
    """A browser with its own cookies."""
    return Browser(stage.make_client(stage.services))


@pytest.fixture
async def shop(request: pytest.FixtureRequest, add_site: AddSite) -> Site:
    """A confidential site with all grants, or with the options of `pytest.mark.shop`."""
    return await add_site(**(marked(request, "shop") or {"device": True, "logout_uris": [BYE]}))


@pytest.fixture
def house(request: pytest.FixtureRequest) -> House:
    return made_of_fixtures(House, request)


@pytest.fixture
async def phone(get_phone: GetPhone) -> Phone:
    """Alice's phone."""
    return await get_phone("alice")
