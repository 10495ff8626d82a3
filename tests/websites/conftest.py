"""Sites that log people in, and the phones that scan their codes."""

from base64 import b64decode
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import marked
from tests.fakes import SECRET_KEY, START, Clock, Secrets, WeChatByRespx
from tests.websites.browsers import BYE, Browser, House
from tests.world import CALLBACK, AddSite, Client, GetPhone, LogIn, MakeClient, Phone, Site
from wxauth.server.clients.clients import add_client, build_client
from wxauth.server.core.sealing import Sealer, signing_key_context
from wxauth.server.core.services import Services
from wxauth.server.keys.keyring import RsaKey
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.keys.rows import store_keys


@pytest.fixture(scope="session")
def id_token_key() -> StoredSigningKey:
    """A key of id_tokens shared by the tests, because generating one takes longer than most of them."""
    key = RsaKey.generate()
    sealed = Sealer([b64decode(SECRET_KEY)]).seal(key.to_der(), context=signing_key_context(key.kid))
    return StoredSigningKey(
        id=uuid4(),
        alg="RS256",
        kid=key.kid,
        public_jwk=key.public_jwk,
        private_key=sealed,
        created_at=START,
        activates_at=START,
        retires_at=None,
    )


@pytest.fixture
async def add_site(
    request: pytest.FixtureRequest,
    services: Services,
    client: Client,
    clock: Clock,
    secrets: Secrets,
    id_token_key: StoredSigningKey,
) -> AddSite:
    """Add an OAuth client: `await add_site("shop", device=True)`."""
    if not request.node.get_closest_marker("no_signing_key"):
        async with services.database.begin() as transaction:
            await store_keys(transaction, [], [id_token_key])

    async def add(name: str = "shop", **options: Any) -> Site:
        site = build_client(name, {"title": "Example Shop", "redirect_uris": [CALLBACK], **options})
        credentials = await add_client(services.database, site, now=clock())
        return Site(client, name, None if credentials is None else secrets.add(credentials.client_secret))

    return add


@pytest.fixture
def get_phone(client: Client, login: LogIn, wechat: WeChatByRespx) -> GetPhone:
    """A phone of a person: `await get_phone("alice")`."""

    async def log_in(person: str = "alice") -> Phone:
        return Phone(client, await login(person), partial(wechat.code_for, person))

    return log_in


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    """A browser of its own, cookies included."""
    return Browser(make_client(services))


@pytest.fixture
async def shop(request: pytest.FixtureRequest, add_site: AddSite) -> Site:
    """A confidential site with all grants, or with the options of `pytest.mark.shop`."""
    return await add_site(**(marked(request, "shop") or {"device": True, "logout_uris": [BYE]}))


@pytest.fixture
def house(request: pytest.FixtureRequest) -> House:
    return House.made_of_fixtures(request)


@pytest.fixture
async def phone(get_phone: GetPhone) -> Phone:
    """Alice's phone."""
    return await get_phone("alice")
