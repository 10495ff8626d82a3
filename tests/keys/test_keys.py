"""The service's own signing keys: one for all replicas, kept through restarts and outages."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from jose import jwt
from uuid_utils.compat import uuid7

from tests.database_proxy import Proxy
from tests.fakes import Clock, WeChatByRespx
from tests.world import Client, LogIn, LogLines, MakeClient, MakeServices, Rows, bearer
from wxauth.server.core.sealing import CannotOpen
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.keys.rows import store_keys
from wxauth.server.service.build import build_services
from wxauth.tokens.keys import SigningKey

OTHER_SECRET_KEY = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVyISE="
JWKS = "/.well-known/jwks.json"

pytestmark = pytest.mark.no_signing_key


@pytest.fixture
def unread(make_settings: Callable[..., Settings], clock: Clock, wechat: WeChatByRespx) -> Services:
    """A replica that has not read the keys yet."""
    return build_services(make_settings(), clock=clock, wechat_transport=wechat.transport)


async def published_kids(client: Client) -> list[str]:
    return [key["kid"] for key in (await client.get(JWKS)).json()["keys"]]


async def add_key(services: Services, *, activates_in: float = 0) -> str:
    """Store one more key, as another replica would."""
    key, now = SigningKey.generate(), services.clock()
    stored = StoredSigningKey(
        id=uuid7(),
        alg="ES256",
        kid=key.kid,
        public_jwk=key.public_jwk,
        private_key=services.sealer.seal(key.to_der(), context=b"signing_keys\0" + key.kid.encode()),
        created_at=now,
        activates_at=now + timedelta(seconds=activates_in),
        retires_at=None,
    )
    async with services.database.begin() as transaction:
        await store_keys(transaction, [], [stored])
    return key.kid


def kid_of(answer: dict[str, object]) -> str:
    return str(jwt.get_unverified_header(str(answer["access_token"]))["kid"])


async def test_twenty_replicas_that_start_at_once_agree_on_one_key(make_services: MakeServices, rows: Rows) -> None:
    replicas = await asyncio.gather(*(make_services() for _ in range(20)))
    assert len({replica[KeyRing].jwks for replica in replicas}) == 1
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 1


async def test_a_restart_keeps_the_key(make_services: MakeServices, make_client: MakeClient, login: LogIn) -> None:
    token = (await login("alice"))["access_token"]
    restarted = make_client(await make_services())
    assert (await restarted.get("/v1/me", headers=bearer(token))).status_code == 200


async def test_an_unrelated_secret_key_decrypts_nothing_and_creates_no_key(
    services: Services, make_services: MakeServices, rows: Rows
) -> None:
    stored = await rows.fetch("SELECT * FROM signing_keys")
    with pytest.raises(CannotOpen):
        await make_services(secret_key=OTHER_SECRET_KEY)
    assert await rows.fetch("SELECT * FROM signing_keys") == stored


async def test_a_former_secret_key_still_decrypts_its_signing_keys(
    services: Services, make_services: MakeServices
) -> None:
    former = services.settings.secret_key.get_secret_value()
    rotated = await make_services(secret_key=OTHER_SECRET_KEY, secret_key_previous=former)
    assert rotated[KeyRing].jwks == services[KeyRing].jwks


async def test_before_the_first_key_is_read_nothing_is_signed_or_published(
    unread: Services, make_client: MakeClient, wechat: WeChatByRespx, login: LogIn
) -> None:
    token = (await login("alice"))["access_token"]
    client = make_client(unread)

    refused = {
        "jwks": await client.get(JWKS),
        "me": await client.get("/v1/me", headers=bearer(token)),
        "login": await client.post("/v1/login", json={"code": wechat.code_for("alice")}),
    }
    assert {name: (answer.status_code, answer.json()["code"]) for name, answer in refused.items()} == {
        "jwks": (503, "keys_unavailable"),
        "me": (503, "keys_unavailable"),
        "login": (503, "storage_unavailable"),
    }
    assert all("Retry-After" in answer.headers for answer in refused.values())
    assert len(wechat.calls) == 1  # the second code was not spent
    assert (await client.get("/readyz")).json()["checks"]["signing_key"] != "ok"

    await unread[KeyRing].refresh()
    assert (await client.get("/v1/me", headers=bearer(token))).status_code == 200
    await unread.aclose()


async def test_a_key_that_another_replica_added_is_published_at_the_next_look(
    services: Services, client: Client, login: LogIn
) -> None:
    [first] = await published_kids(client)
    etag = (await client.get(JWKS)).headers["ETag"]
    added = await add_key(services, activates_in=600)
    assert await published_kids(client) == [first]
    await services[KeyRing].refresh()
    assert await published_kids(client) == [first, added]
    assert (await client.get(JWKS, headers={"If-None-Match": etag})).status_code == 200
    assert kid_of(await login("alice")) == first


async def test_a_key_signs_from_the_time_that_it_is_active(services: Services, clock: Clock, login: LogIn) -> None:
    added = await add_key(services, activates_in=600)
    await services[KeyRing].refresh()
    assert kid_of(await login("alice")) != added
    clock.advance(seconds=600)
    assert kid_of(await login("alice")) == added


async def test_a_key_is_published_until_it_retires_and_then_its_tokens_are_refused(
    services: Services, client: Client, clock: Clock, login: LogIn, rows: Rows
) -> None:
    token = (await login("alice"))["access_token"]
    [retiring] = await published_kids(client)
    added = await add_key(services)
    await rows.execute("UPDATE signing_keys SET retires_at = $1 WHERE kid = $2", clock.now + timedelta(60), retiring)
    await services[KeyRing].refresh()
    assert await published_kids(client) == [retiring, added]

    clock.advance(days=60)
    await services[KeyRing].refresh()
    assert await published_kids(client) == [added]
    me = await client.get("/v1/me", headers=bearer(token))
    assert (me.status_code, me.json()["code"]) == (401, "invalid_token")


async def test_a_replica_whose_clock_is_behind_signs_with_the_only_key(clock: Clock, login: LogIn) -> None:
    clock.advance(seconds=-5)
    await login("alice")


async def test_keys_outlive_an_outage_of_the_database(
    database_url: str, make_services: MakeServices, make_client: MakeClient
) -> None:
    async with Proxy(database_url) as proxy:
        services = await make_services(database_url=proxy.url)
        client = make_client(services)
        kids = await published_kids(client)
        await proxy.refuse()
        await services[KeyRing].try_refresh()
        assert await published_kids(client) == kids
        await proxy.accept()
        kids.append(await add_key(services))
        await services[KeyRing].try_refresh()
        assert await published_kids(client) == kids


async def test_a_key_that_cannot_be_decrypted_leaves_the_other_keys_in_use(
    services: Services, client: Client, rows: Rows, log_lines: LogLines
) -> None:
    kids = await published_kids(client)
    await add_key(services)
    await rows.execute("UPDATE signing_keys SET private_key = '\\x00' WHERE kid <> $1", kids[0])
    await services[KeyRing].try_refresh()
    assert await published_kids(client) == kids
    assert [line["event"] for line in log_lines()][-1] == "signing_keys_not_opened"


async def test_the_private_half_is_stored_sealed(services: Services, rows: Rows) -> None:
    stored = await rows.fetchrow("SELECT private_key, public_jwk::jsonb ? 'd' AS has_d FROM signing_keys")
    assert stored["has_d"] is False
    with pytest.raises(ValueError, match="deserialize"):
        SigningKey.from_der(stored["private_key"])
