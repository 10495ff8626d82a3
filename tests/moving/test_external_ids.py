"""The id that a user had before wxauth, and numbers that were never verified."""

from typing import Any

import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import Secrets
from tests.world import NUMBER, Client, LogIn, MakeClient, MakeServices, Rows, bearer, log_in
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import PhoneCodeRequest, Simulator


@pytest.fixture
async def alice(login: LogIn, rows: Rows) -> dict[str, Any]:
    """Alice, who has been here before; 10023 is what other services call her."""
    await login("alice")
    await rows.execute("UPDATE users SET external_id = '10023'")
    return await login("alice")


async def test_an_external_id_is_in_the_user_and_in_the_access_token(
    alice: dict[str, Any], client: Client, services: Services
) -> None:
    refreshed = (await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})).json()
    me = (await client.get("/v1/me", headers=bearer(alice))).json()
    for user in (alice["user"], refreshed["user"], me):
        assert user["external_id"] == "10023"
    for answer in (alice, refreshed):
        assert get_unverified_claims(answer["access_token"])["external_id"] == "10023"
        principal = await services.verifier.verify(answer["access_token"], now=services.clock().timestamp())
        assert principal.external_id == "10023"


async def test_a_token_without_an_external_id_has_no_such_claim(login: LogIn, services: Services) -> None:
    bob = await login("bob")
    assert bob["user"]["external_id"] is None
    assert "external_id" not in get_unverified_claims(bob["access_token"])
    principal = await services.verifier.verify(bob["access_token"], now=services.clock().timestamp())
    assert principal.external_id is None


# Numbers that nobody has verified.


@pytest.fixture
def phone_code(simulator: Simulator, secrets: Secrets) -> Any:
    def make(person: str) -> str:
        return secrets.add(simulator.make_phone_code(PhoneCodeRequest(person=person, phone=NUMBER)))

    return make


async def me(client: Client, login: dict[str, Any]) -> dict[str, Any]:
    return (await client.get("/v1/me", headers=bearer(login))).json()


async def test_a_user_who_verifies_a_number_takes_it_from_one_who_has_not(
    make_simulated_services: MakeServices, make_client: MakeClient, rows: Rows, phone_code: Any
) -> None:
    client = make_client(await make_simulated_services(phone_policy="refuse"))
    alice, bob, carol = [await log_in(client, person) for person in ("alice", "bob", "carol")]
    await rows.execute("UPDATE users SET phone = $1", NUMBER)
    shown = await me(client, alice)
    assert (shown["phone"], shown["phone_verified"]) == (NUMBER, False)

    answer = await client.post("/v1/me/phone", json={"code": phone_code("alice")}, headers=bearer(alice))
    assert (answer.json()["phone"], answer.json()["phone_verified"]) == (NUMBER, True)
    for other in (bob, carol):
        shown = await me(client, other)
        assert (shown["phone"], shown["phone_verified"]) == (None, None)
    events = await rows.fetch("SELECT user_id::text, actor FROM events WHERE type = 'user.phone_removed'")
    assert {tuple(event) for event in events} == {(other["user"]["id"], "system") for other in (bob, carol)}

    refused = await client.post("/v1/me/phone", json={"code": phone_code("bob")}, headers=bearer(bob))
    assert refused.json()["code"] == "phone_taken", "which Alice has verified"


async def test_only_the_number_that_is_verified_is_taken_over(
    simulated_client: Client, rows: Rows, phone_code: Any
) -> None:
    client = simulated_client
    alice, bob = [await log_in(client, person) for person in ("alice", "bob")]
    await rows.execute("UPDATE users SET phone = '+8613900139000'")
    await client.post("/v1/me/phone", json={"code": phone_code("alice")}, headers=bearer(alice))
    assert (await me(client, bob))["phone"] == "+8613900139000"
