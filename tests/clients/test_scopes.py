"""The scopes of a service's client decide which requests it may send."""

from tests.world import Client, Stage
from wxauth.clients.clients import Credentials


async def status_of(client: Client, credentials: Credentials) -> int:
    return (await client.post("/v1/introspect", data={"token": "none"}, auth=credentials)).status_code


async def test_a_client_from_before_scopes_keeps_its_rights(stage: Stage) -> None:
    """The previous version of wxauth stored such a client without scopes."""
    await stage.rows.execute("INSERT INTO clients (name, secret_hash, created_at) VALUES ('old', sha256('s'), now())")
    assert await status_of(stage.client, Credentials("old", "s")) == 200
    assert (await stage.client.get("/v1/apps/wxnone/access-token", auth=("old", "s"))).json()["code"] == "unknown_app"
