"""The guide's recipes for users whose openids are unknown work as shown."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from jose.jwt import get_unverified_claims
from standardwebhooks import Webhook

from tests.docs import block
from tests.fakes import OTHER_APP
from tests.world import NUMBER, AddSibling, Admin, Body, MakeClient, Stage
from wxauth.clients.models import Scope

GUIDE = "docs/start/moving-in.md"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def members(
    stage: Stage, add_sibling: AddSibling, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Run the service of the guide, and return the names that its files define."""
    scopes = (Scope.USERS, Scope.PHONES, Scope.ATTRIBUTES, Scope.UNIONIDS)
    client_id, client_secret = await add_sibling("members", *scopes)
    known = {"WXAUTH_ISSUER": "https://auth.test", "CLIENT_ID": client_id, "CLIENT_SECRET": client_secret}
    for name, value in {**known, "WEBHOOK_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)
    client, around = make_client(stage.services), dict[str, Any]()
    for words in ("members.py", "owners_of"):
        exec(block(GUIDE, words), around)
    linker = dict[str, Any]()
    exec(block("docs/start/moving-from.md", "linker.py"), linker)
    client.auth, around["client"] = around["client"].auth, client
    return {**around, "linker": {**linker, "client": client}}


async def hear(members: dict[str, Any], event: Body) -> int:
    """Send an event as wxauth does, and return the status of the response."""
    now, body = datetime.now(UTC), json.dumps({"type": event["type"], "timestamp": event["at"], "data": event})
    signed = {"webhook-timestamp": str(int(now.timestamp()))}
    signed |= {"webhook-id": event["id"], "webhook-signature": Webhook(SECRET).sign(event["id"], now, body)}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(members["app"]), base_url="http://members") as client:
        return (await client.post("/webhooks/wxauth", content=body, headers=signed)).status_code


@pytest.mark.usefixtures("simulated")
async def test_a_member_known_by_number_alone_is_known_after_the_phone_button(
    stage: Stage, root: Admin, members: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert NUMBER in members["members"]
    alice, bob = [await stage.login(person) for person in ("alice", "bob")]
    await stage.bind(alice, stage.phone_code("alice"))
    [bound] = (await root.read("/events", type="user.phone_bound"))["items"]
    assert [await hear(members, bound) for _ in range(2)] == [204, 204]
    token = (await stage.refresh(alice)).json()["access_token"]
    assert get_unverified_claims(token)["external_id"] == "10023"
    told = await root.read("/events", type="user.profile_changed", user_id=alice["user"]["id"])
    assert [(event["actor"], event["data"]) for event in told["items"]] == [("members", {"fields": ["external_id"]})]

    await stage.rows.execute("UPDATE users SET phone = $1, phone_verified_at = now()", NUMBER)
    assert await hear(members, {**bound, "user_id": bob["user"]["id"]}) == 204
    assert "10023 has another user" in capsys.readouterr().out
    assert await hear(members, {**bound, "user_id": "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"}) == 204, "erased meanwhile"


async def test_an_order_finds_its_buyer_once_they_have_logged_in(stage: Stage, members: dict[str, Any]) -> None:
    bought = ["union-alice", "union-bob"]
    assert await members["owners_of"](bought) == {}
    alice = await stage.login("alice", unionid="union-alice")
    assert await members["owners_of"](bought) == {"union-alice": alice["user"]["id"]}


async def test_a_person_known_by_a_unionid_alone_gets_the_id_after_their_first_login(
    stage: Stage, root: Admin, members: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    linker = members["linker"]
    linker["hear"].__globals__["client"] = linker["client"]
    [(unionid, own)] = linker["ids"].items()
    alice, bob = await stage.login("alice"), await stage.login("bob")
    [heard] = (await root.read("/events", type="user.created", user_id=alice["user"]["id"]))["items"]
    assert await hear(linker, heard) == 204, "no unionid yet"
    assert (await stage.login("alice", unionid=unionid, app=OTHER_APP))["user"]["id"] != alice["user"]["id"]
    alice = await stage.login("alice", unionid=unionid)
    for event in (await root.read("/events", type="identity.added"))["items"]:
        assert [await hear(linker, event) for _ in range(2)] == [204, 204]
    token = (await stage.refresh(alice)).json()["access_token"]
    assert get_unverified_claims(token)["external_id"] == own
    assert (await stage.login("carol", unionid="o6_bmNobodysInTheTable00000"))["is_new_user"]
    await stage.rows.execute("UPDATE users SET external_id = NULL WHERE external_id IS NOT NULL")
    await stage.rows.execute("UPDATE users SET external_id = $1 WHERE id = $2", own, bob["user"]["id"])
    assert await hear(linker, {**heard, "user_id": alice["user"]["id"]}) == 204
    assert f"{own} is another user's" in capsys.readouterr().out
    assert await hear(linker, {**heard, "user_id": "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"}) == 204, "erased meanwhile"


# A phone number that nobody has verified.


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
