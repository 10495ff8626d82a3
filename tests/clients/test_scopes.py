"""Scopes decide what a service client may do."""

from tests.problems import problem_of
from tests.world import AddSibling, Client, Stage, add_client
from wxauth.clients import clients
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope


async def status_of(client: Client, credentials: Credentials) -> int:
    return (await client.post("/v1/introspect", data={"token": "none"}, auth=credentials)).status_code


async def test_a_client_from_before_scopes_keeps_its_rights(stage: Stage) -> None:
    """A client that was added by the previous version."""
    await stage.rows.execute("INSERT INTO clients (name, secret_hash, created_at) VALUES ('old', sha256('s'), now())")
    assert await status_of(stage.client, Credentials("old", "s")) == 200
    assert (await stage.client.get("/v1/apps/wxnone/access-token", auth=("old", "s"))).json()["code"] == "unknown_app"


# `CLIENT_RATE_LIMIT`: one client's requests are limited and counted, and take nothing from the others.


async def look_up(client: Client, sibling: Credentials) -> int:
    return (await client.post("/v1/users/lookup", auth=sibling, json={"external_ids": ["1"]})).status_code


async def test_a_client_that_asks_too_often_takes_nothing_from_others(stage: Stage, add_sibling: AddSibling) -> None:
    limited = await stage.make(client_rate_limit="2/minute")
    orders, billing = [await add_sibling(name, Scope.USERS, Scope.INTROSPECT) for name in ("orders", "billing")]
    assert [await look_up(limited, orders) for _ in range(2)] == [200, 200]
    answer = await limited.post("/v1/users/lookup", auth=orders, json={"external_ids": ["1"]})
    problem_of(answer, "rate_limited", 429)
    assert answer.headers["retry-after"] == "60"
    [line] = stage.logged("rate_limited")
    assert (line["client"], line["what"]) == ("orders", "client-users")
    assert await look_up(limited, billing) == 200
    assert await status_of(limited, orders) == 200, "each operation is counted for itself"
    metrics = (await limited.get("/metrics")).text
    for name, outcome, number in (("orders", "ok", 2), ("orders", "rate_limited", 1), ("billing", "ok", 1)):
        labels = f'client="{name}",operation="users",outcome="{outcome}"'
        assert f"wxauth_client_requests_total{{{labels}}} {number}.0" in metrics
    stage.clock.advance(seconds=60)
    for _ in range(3):  # who does not know the secret uses up nothing
        assert await look_up(limited, orders._replace(client_secret="wrong")) == 401
    assert await look_up(limited, orders) == 200


async def test_tokens_of_a_confidential_client_are_limited_and_those_of_a_public_one_not(stage: Stage) -> None:
    limited = await stage.make(client_rate_limit="2/minute")

    async def exchange(**who: str) -> tuple[int, str]:
        answer = await limited.post("/v1/token", data={"grant_type": "refresh_token", "refresh_token": "x", **who})
        return answer.status_code, answer.json()["error"]

    site = {"title": "Shop", "redirect_uris": ["https://shop.example.com/callback"]}
    confidential = await add_client(stage.services.database, "shop", **site, now=stage.clock())
    await clients.add_client(
        stage.services.database, clients.build_client("spa", {**site, "is_public": True}), now=stage.clock()
    )
    known = {"client_id": "shop", "client_secret": confidential.client_secret}
    answers = [await exchange(**known) for _ in range(3)]
    assert answers == [(400, "invalid_grant")] * 2 + [(429, "temporarily_unavailable")]
    assert {await exchange(client_id="spa") for _ in range(5)} == {(400, "invalid_grant")}
