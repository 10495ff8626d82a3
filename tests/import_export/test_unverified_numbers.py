"""Numbers that an import has brought, and that nobody has verified."""

import pytest

from tests.world import NUMBER, Stage


@pytest.mark.usefixtures("simulated")
async def test_a_user_who_verifies_a_number_takes_it_from_those_who_have_not(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="refuse")
    alice, bob, carol, dora = [await stage.login(person) for person in ("alice", "bob", "carol", "dora")]
    await stage.rows.execute("UPDATE users SET phone = $1", NUMBER)
    other_number = "+8613900139000"
    await stage.rows.execute("UPDATE users SET phone = $1 WHERE id = $2", other_number, dora["user"]["id"])
    shown = await stage.user(alice)
    assert (shown["phone"], shown["phone_verified"]) == (NUMBER, False)

    bound = (await stage.bind(alice, stage.phone_code("alice"))).json()
    assert (bound["phone"], bound["phone_verified"]) == (NUMBER, True)
    for other in (bob, carol):
        shown = await stage.user(other)
        assert (shown["phone"], shown["phone_verified"]) == (None, None)
    assert (await stage.user(dora))["phone"] == other_number
    events = await stage.rows.fetch("SELECT user_id::text, actor FROM events WHERE type = 'user.phone_removed'")
    assert {tuple(event) for event in events} == {(other["user"]["id"], "system") for other in (bob, carol)}

    refused = await stage.bind(bob, stage.phone_code("bob"))
    assert refused.json()["code"] == "phone_taken", "which Alice has verified"
