"""Sites that log people in, and the phones that scan their codes."""

from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fakes import SECRET_KEY, START, Clock, Secrets, WeChatByRespx
from tests.world import LogIn, bearer
from wxauth.server.clients.clients import add_client, asked_for
from wxauth.server.core.sealing import Sealer, signing_key_context
from wxauth.server.core.services import Services
from wxauth.server.keys.rows import ID_TOKEN_KEYS, store_keys
from wxauth.server.keys.rsa_keys import RsaKey
from wxauth.server.keys.stored import StoredSigningKey

CALLBACK = "https://shop.example.com/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CAMERA = 1047
OFFICE, HOME, FAR = "203.0.113.7", "203.0.113.99", "198.51.100.1"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"


@dataclass(frozen=True, slots=True)
class Site:
    """An OAuth client."""

    client: httpx.AsyncClient
    name: str
    secret: str | None

    @property
    def auth(self) -> httpx.BasicAuth | None:
        return None if self.secret is None else httpx.BasicAuth(self.name, self.secret)

    async def post(self, path: str, **form: str) -> httpx.Response:
        """Post a form with the client's credentials."""
        if self.secret is None:
            return await self.client.post(path, data={"client_id": self.name, **form})
        return await self.client.post(path, data=form, auth=(self.name, self.secret))

    async def start(self, **form: str) -> dict[str, Any]:
        answer = await self.post("/v1/device_authorization", **form)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def poll(self, started: dict[str, Any]) -> httpx.Response:
        return await self.post("/v1/token", grant_type=DEVICE_CODE, device_code=started["device_code"])

    async def refresh(self, tokens: dict[str, Any], **form: str) -> httpx.Response:
        return await self.post("/v1/token", grant_type="refresh_token", refresh_token=tokens["refresh_token"], **form)


@dataclass(frozen=True, slots=True)
class Phone:
    """A person's phone, logged in to the mini-program."""

    client: httpx.AsyncClient
    tokens: dict[str, Any]
    wx_login: Callable[[], str]
    """Returns a new code of this person."""

    @property
    def user_id(self) -> str:
        return self.tokens["user"]["id"]

    async def claim(self, **body: Any) -> httpx.Response:
        return await self.client.post("/v1/me/scans", json=body, headers=bearer(self.tokens))

    async def scan(self, started: dict[str, Any], **body: Any) -> httpx.Response:
        """Claim the code with the camera."""
        return await self.claim(**{"scene": scene_of(started), "entry_scene": CAMERA, **body})

    async def decide(self, scan_id: str, verdict: str = "approve", *, code: str | None = None) -> httpx.Response:
        body = {"login_code": code or self.wx_login()} if verdict == "approve" else None
        return await self.client.post(f"/v1/me/scans/{scan_id}/{verdict}", json=body, headers=bearer(self.tokens))

    async def approve(self, started: dict[str, Any]) -> None:
        """Scan the code, and approve the login."""
        claimed = await self.scan(started)
        assert claimed.status_code == 200, claimed.text
        assert (await self.decide(claimed.json()["id"])).status_code == 204


AddSite = Callable[..., Awaitable[Site]]
GetPhone = Callable[..., Awaitable[Phone]]


def scene_of(started: dict[str, Any]) -> str:
    return started["verification_uri_complete"].rpartition("/")[2]


@pytest.fixture(scope="session")
def id_token_key() -> StoredSigningKey:
    """A key of id_tokens shared by the tests, because generating one takes longer than most of them."""
    key = RsaKey.generate()
    sealed = Sealer([b64decode(SECRET_KEY)]).seal(key.to_der(), context=signing_key_context(key.kid))
    return StoredSigningKey(
        id=uuid4(),
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
    client: httpx.AsyncClient,
    clock: Clock,
    secrets: Secrets,
    id_token_key: StoredSigningKey,
) -> AddSite:
    """Add an OAuth client: `await add_site("shop", device=True)`."""
    if not request.node.get_closest_marker("no_signing_key"):
        async with services.database.begin() as transaction:
            await store_keys(transaction, ID_TOKEN_KEYS, [], [id_token_key])

    async def add(name: str = "shop", **options: Any) -> Site:
        site = asked_for(name, {"title": "Example Shop", "redirect_uris": [CALLBACK], **options})
        credentials = await add_client(services.database, site, now=clock())
        return Site(client, name, None if credentials is None else secrets.add(credentials.client_secret))

    return add


@pytest.fixture
def get_phone(client: httpx.AsyncClient, login: LogIn, wechat: WeChatByRespx) -> GetPhone:
    """A phone of a person: `await get_phone("alice")`."""

    async def log_in(person: str = "alice") -> Phone:
        return Phone(client, await login(person), partial(wechat.code_for, person))

    return log_in


@pytest.fixture
async def site(add_site: AddSite) -> Site:
    """A confidential client with the device grant."""
    return await add_site(device=True)


@pytest.fixture
async def phone(get_phone: GetPhone) -> Phone:
    """Alice's phone."""
    return await get_phone("alice")
