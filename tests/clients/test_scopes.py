"""Scopes decide what a service client may do; its secret can be renewed without an interruption."""

import pytest

from tests.fakes import APP, Clock, Secrets
from tests.problems import problem_of
from tests.world import AddSibling, Client, Rows
from wxauth.server.clients.clients import Credentials, change_client, renew_secret
from wxauth.server.core.services import Services

READ_TOKEN = f"/v1/apps/{APP['app_id']}/access-token"


@pytest.fixture
async def orders(add_sibling: AddSibling) -> Credentials:
    """A service client without any scope that it did not get by default."""
    return await add_sibling("orders")


async def status_of(client: Client, credentials: Credentials) -> int:
    answer = await client.post("/v1/introspect", data={"token": "none"}, auth=credentials)
    return answer.status_code


async def test_without_the_scope_a_client_is_refused(
    client: Client, services: Services, orders: Credentials, clock: Clock
) -> None:
    problem_of(await client.get(READ_TOKEN, auth=orders), "insufficient_scope", 403)
    await change_client(services.database, "orders", {"scopes": ["users"]}, now=clock())
    answer = await client.post("/v1/introspect", data={"token": "none"}, auth=orders)
    problem = problem_of(answer, "insufficient_scope", 403)
    whole = "wxauth clients set orders --scope introspect --scope users"
    assert problem["detail"] == f"this needs the scope introspect: {whole}"


async def test_an_unauthenticated_client_does_not_learn_the_required_scope(client: Client, orders: Credentials) -> None:
    problem_of(await client.get(READ_TOKEN, auth=("orders", "wrong")), "invalid_client", 401)


async def test_a_client_from_before_scopes_keeps_its_rights(client: Client, rows: Rows) -> None:
    """A client that was added by the previous version."""
    await rows.execute("INSERT INTO clients (name, secret_hash, created_at) VALUES ('old', sha256('s'), now())")
    assert await status_of(client, Credentials("old", "s")) == 200
    assert (await client.get("/v1/apps/wxnone/access-token", auth=("old", "s"))).json()["code"] == "unknown_app"


async def test_a_client_has_at_most_one_former_secret(
    client: Client, services: Services, orders: Credentials, secrets: Secrets, clock: Clock
) -> None:
    renewed = []
    for _ in range(2):
        credentials, _ = await renew_secret(services.database, "orders", now=clock())
        secrets.add(credentials.client_secret)
        renewed.append(credentials)
    assert [await status_of(client, each) for each in (orders, *renewed)] == [401, 200, 200]


async def test_an_empty_secret_is_refused_for_a_client_without_a_former_secret(
    client: Client, orders: Credentials
) -> None:
    assert await status_of(client, Credentials("orders", "")) == 401


async def test_changes_of_a_client_are_in_the_trail_without_the_secret(
    services: Services, orders: Credentials, secrets: Secrets, rows: Rows, clock: Clock
) -> None:
    await change_client(services.database, "orders", {"scopes": ["users", "phones"]}, now=clock())
    renewed, _ = await renew_secret(services.database, "orders", now=clock())
    secrets.add(renewed.client_secret)
    events = await rows.fetch("SELECT type, data FROM events WHERE type LIKE 'client.%' ORDER BY id")
    assert [(event["type"], event["data"]) for event in events] == [
        ("client.added", '{"name": "orders", "scopes": ["introspect"]}'),
        ("client.changed", '{"name": "orders", "fields": ["scopes"], "scopes": ["users", "phones"]}'),
        ("client.secret_renewed", '{"name": "orders"}'),
    ]
