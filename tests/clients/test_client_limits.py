"""`CLIENT_RATE_LIMIT`: one client's requests are limited and counted, and take nothing from the others."""

from collections.abc import Sequence

import httpx
import pytest

from tests.clock import Clock
from tests.problems import problem_of
from tests.world import Client, LogLines, MakeClient, MakeServices, add_client
from wxauth.server.clients import clients
from wxauth.server.clients.clients import Credentials
from wxauth.server.clients.models import Scope
from wxauth.server.core.services import Services

LOOKUP = "/v1/users/lookup"


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(client_rate_limit="2/minute")


@pytest.fixture
async def client(services: Services, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(services)


@pytest.fixture
async def siblings(services: Services, clock: Clock) -> Sequence[Credentials]:
    scopes = [Scope.USERS, Scope.INTROSPECT]
    return [await add_client(services.database, name, scopes=scopes, now=clock()) for name in ("orders", "billing")]


async def look_up(client: Client, sibling: Credentials) -> httpx.Response:
    return await client.post(LOOKUP, auth=sibling, json={"external_ids": ["1"]})


async def test_a_client_that_asks_too_often_takes_nothing_from_the_others(
    client: Client, siblings: Sequence[Credentials], clock: Clock, log_lines: LogLines
) -> None:
    orders, billing = siblings
    answers = [await look_up(client, orders) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    problem_of(answers[2], "rate_limited", 429)
    assert answers[2].headers["retry-after"] == "60"
    [line] = [line for line in log_lines() if line["event"] == "rate_limited"]
    assert (line["client"], line["what"]) == ("orders", "client-users")
    assert (await look_up(client, billing)).status_code == 200
    answer = await client.post("/v1/introspect", auth=orders, data={"token": "a"})
    assert answer.json() == {"active": False}, "each operation is counted for itself"
    metrics = (await client.get("/metrics")).text
    for name, outcome, number in (("orders", "ok", 2), ("orders", "rate_limited", 1), ("billing", "ok", 1)):
        labels = f'client="{name}",operation="users",outcome="{outcome}"'
        assert f"wxauth_client_requests_total{{{labels}}} {number}.0" in metrics
    clock.advance(seconds=60)
    assert (await look_up(client, orders)).status_code == 200


async def test_who_does_not_know_the_secret_uses_up_nothing(client: Client, siblings: Sequence[Credentials]) -> None:
    orders, _ = siblings
    for _ in range(3):
        assert (await look_up(client, orders._replace(client_secret="wrong"))).status_code == 401
    assert (await look_up(client, orders)).status_code == 200


async def test_tokens_of_a_confidential_client_are_limited_and_those_of_a_public_one_not(
    client: Client, services: Services, clock: Clock
) -> None:
    site = {"title": "Shop", "redirect_uris": ["https://shop.example.com/callback"]}
    confidential = await add_client(services.database, "shop", **site, now=clock())
    await clients.add_client(services.database, clients.build_client("spa", {**site, "is_public": True}), now=clock())

    async def exchange(**who: str) -> tuple[int, str]:
        answer = await client.post("/v1/token", data={"grant_type": "refresh_token", "refresh_token": "x", **who})
        return answer.status_code, answer.json()["error"]

    known = {"client_id": "shop", "client_secret": confidential.client_secret}
    assert [await exchange(**known) for _ in range(3)] == [
        (400, "invalid_grant"),
        (400, "invalid_grant"),
        (429, "temporarily_unavailable"),
    ]
    assert {await exchange(client_id="spa") for _ in range(5)} == {(400, "invalid_grant")}
