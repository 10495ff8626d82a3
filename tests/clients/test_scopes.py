"""Scopes decide what a service client may do."""

from tests.world import AddSibling, Client, Stage
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope


async def status_of(client: Client, credentials: Credentials) -> int:
    return (await client.post("/v1/introspect", data={"token": "none"}, auth=credentials)).status_code


async def test_a_client_from_before_scopes_keeps_its_rights(stage: Stage) -> None:
    """A client that was added by the previous version."""
    await stage.rows.execute("INSERT INTO clients (name, secret_hash, created_at) VALUES ('old', sha256('s'), now())")
    assert await status_of(stage.client, Credentials("old", "s")) == 200
    assert (await stage.client.get("/v1/apps/wxnone/access-token", auth=("old", "s"))).json()["code"] == "unknown_app"


async def test_requests_are_counted_by_client_and_operation(stage: Stage, add_sibling: AddSibling) -> None:
    orders, billing = [await add_sibling(name, Scope.USERS, Scope.INTROSPECT) for name in ("orders", "billing")]

    async def look_up(sibling: Credentials) -> int:
        return (await stage.client.post("/v1/users/lookup", auth=sibling, json={"external_ids": ["1"]})).status_code

    assert [await look_up(orders) for _ in range(2)] == [200, 200]
    assert await look_up(billing) == 200
    assert await look_up(orders._replace(client_secret="wrong")) == 401, "who does not know the secret is nobody"
    assert await status_of(stage.client, orders) == 200
    metrics = (await stage.client.get("/metrics")).text
    for name, operation, number in (("orders", "users", 2), ("orders", "introspect", 1), ("billing", "users", 1)):
        labels = f'client="{name}",operation="{operation}",outcome="ok"'
        assert f"wxauth_client_requests_total{{{labels}}} {number}.0" in metrics
