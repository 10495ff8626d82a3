"""The id that a user had before wxauth, and numbers that were never verified."""

import pytest
from jose.jwt import get_unverified_claims

from tests.world import NUMBER, Stage
from wxauth.tokens.verifier import Verifier


@pytest.mark.parametrize("external_id", ["10023", None])
async def test_an_external_id_is_in_the_user_and_in_the_access_token(stage: Stage, external_id: str | None) -> None:
    await stage.login()
    await stage.rows.execute("UPDATE users SET external_id = $1", external_id)
    alice = await stage.login()
    refreshed = (await stage.refresh(alice)).json()
    assert (await stage.user(alice))["external_id"] == external_id
    for answer in (alice, refreshed):
        claims = get_unverified_claims(answer["access_token"])
        principal = await stage.services[Verifier].verify(answer["access_token"], now=stage.clock().timestamp())
        assert (answer["user"]["external_id"], principal.external_id) == (external_id, external_id)
        assert ("external_id" in claims, claims.get("external_id")) == (external_id is not None, external_id)


# Numbers that nobody has verified.


@pytest.mark.usefixtures("simulated")
async def test_a_user_who_verifies_a_number_takes_it_from_one_who_has_not(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="refuse")
    alice, bob, carol = [await stage.login(person) for person in ("alice", "bob", "carol")]
    await stage.rows.execute("UPDATE users SET phone = $1", NUMBER)
    shown = await stage.user(alice)
    assert (shown["phone"], shown["phone_verified"]) == (NUMBER, False)

    bound = (await stage.bind(alice, stage.phone_code("alice"))).json()
    assert (bound["phone"], bound["phone_verified"]) == (NUMBER, True)
    for other in (bob, carol):
        shown = await stage.user(other)
        assert (shown["phone"], shown["phone_verified"]) == (None, None)
    events = await stage.rows.fetch("SELECT user_id::text, actor FROM events WHERE type = 'user.phone_removed'")
    assert {tuple(event) for event in events} == {(other["user"]["id"], "system") for other in (bob, carol)}

    refused = await stage.bind(bob, stage.phone_code("bob"))
    assert refused.json()["code"] == "phone_taken", "which Alice has verified"


@pytest.mark.usefixtures("simulated")
async def test_only_the_number_that_is_verified_is_taken_over(stage: Stage) -> None:
    alice, bob = [await stage.login(person) for person in ("alice", "bob")]
    await stage.rows.execute("UPDATE users SET phone = '+8613900139000'")
    await stage.bind(alice, stage.phone_code("alice"))
    assert (await stage.user(bob))["phone"] == "+8613900139000"
