"""With `/v1/users`, siblings look up users by id or openid, and get the fields that their scopes allow."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import AddSibling, Admin, Body, LogIn, Stage, leave
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope

TOLD = {
    *("id", "nickname", "avatar_url", "status", "roles", "created_at", "last_login_at", "former_ids", "identities"),
    *("external_id", "consents", "attributes", "erase_at", "last_seen_at"),
}


@dataclass(frozen=True, slots=True)
class Sibling:
    """A service that looks up users, or gives them the ids of its own system."""

    stage: Stage
    auth: Credentials

    async def get(self, user_id: object) -> httpx.Response:
        return await self.stage.client.get(f"/v1/users/{user_id}", auth=self.auth)

    async def ask(self, body: object) -> httpx.Response:
        return await self.stage.client.post("/v1/users/lookup", json=body, auth=self.auth)

    async def find(self, **asked: object) -> list[Body]:
        """Return the users whom this lookup finds."""
        answer = (await self.ask(asked)).json()
        assert answer.keys() == {"items"}
        return answer["items"]

    async def put(self, user_id: object, **body: object) -> httpx.Response:
        return await self.stage.client.put(f"/v1/users/{user_id}/external-id", json=body, auth=self.auth)


@pytest.fixture
async def orders(stage: Stage, add_sibling: AddSibling) -> Sibling:
    return Sibling(stage, await add_sibling("orders", Scope.USERS))


async def merged(login: LogIn) -> tuple[str, str, dict[str, Any]]:
    """Merge Alice's two users, and return her former id, her remaining id and her last login."""
    ids, answer = [], {}
    for app, unionid in ((APP, None), (OTHER_APP, "union-alice"), (APP, "union-alice")):
        answer = await login("alice", app=app, unionid=unionid)
        ids.append(answer["user"]["id"])
    former, holder, now = ids
    assert (former != holder, now) == (True, holder)
    return former, holder, answer


@pytest.mark.requirement("asvs-8.2.3")
async def test_a_user_is_returned_without_number_and_unionid(orders: Sibling) -> None:
    user = (await orders.stage.login("alice", nickname="小明"))["user"]
    await orders.stage.rows.execute("UPDATE users SET phone = '+8613800138000'")
    answer = await orders.get(user["id"])
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json().keys() == TOLD
    not_own = {"former_ids", "identities", "consents", "attributes", "erase_at", "last_seen_at"}
    assert answer.json() == {
        **{name: user[name] for name in TOLD - not_own},
        "attributes": {},
        "erase_at": None,
        "last_seen_at": user["last_login_at"],
        "former_ids": [],
        "consents": [],
        "identities": [{"app_id": user["app_id"], "openid": user["openid"]}],
    }


async def test_the_scope_phones_adds_the_number(stage: Stage, add_sibling: AddSibling) -> None:
    messages = Sibling(stage, await add_sibling("messages", Scope.USERS, Scope.PHONES))
    user_id = (await stage.login("alice"))["user"]["id"]
    assert (await messages.get(user_id)).json()["phone"] is None
    await stage.rows.execute("UPDATE users SET phone = '+8613800138000', phone_verified_at = now()")
    by_id = (await messages.get(user_id)).json()
    assert (by_id["phone"], by_id["phone_verified"]) == ("+8613800138000", True)
    assert by_id.keys() == TOLD | {"phone", "phone_verified"}
    assert await messages.find(ids=[user_id]) == [by_id]
    await stage.rows.execute("UPDATE users SET phone_verified_at = NULL")
    assert (await messages.get(user_id)).json()["phone_verified"] is False


async def test_an_id_that_was_merged_away_is_the_remaining_users_until_their_erasure(orders: Sibling) -> None:
    former, holder, answer = await merged(orders.stage.login)
    user = (await orders.get(former)).json()
    assert (user["id"], user["former_ids"]) == (holder, [former])
    assert {each["app_id"] for each in user["identities"]} == {APP["app_id"], OTHER_APP["app_id"]}
    assert (await orders.get(holder)).json() == user
    assert await orders.find(ids=[former, holder, former]) == [user]
    assert (await leave(orders.stage.client, answer)).status_code == 204
    for user_id in (former, holder, uuid4()):
        problem_of(await orders.get(user_id), "not_found", 404)
    assert await orders.find(ids=[former, holder]) == []


async def test_many_are_answered_once_in_the_order_of_asking_ids_openids_external_ids(orders: Sibling) -> None:
    people = {name: (await orders.stage.login(name))["user"] for name in ("alice", "bob", "carol", "dave", "erin")}
    openids = [
        {name: people[person][name] for name in ("app_id", "openid")} for person in ("dave", "alice", "carol", "dave")
    ]
    of_another_app = {"app_id": OTHER_APP["app_id"], "openid": people["erin"]["openid"]}
    openids = [{"app_id": APP["app_id"], "openid": "nobody"}, *openids, of_another_app]
    ids = [people["bob"]["id"], str(uuid4()), people["alice"]["id"], people["bob"]["id"].upper()]
    change = "UPDATE users SET external_id = '10023', consents = '{\"privacy\": \"2\"}' WHERE id = $1"
    await orders.stage.rows.execute(change, people["erin"]["id"])
    found = await orders.find(external_ids=["nobody", "10023"], openids=openids, ids=ids)
    in_order = ("bob", "alice", "dave", "carol", "erin")
    assert [user["id"] for user in found] == [people[person]["id"] for person in in_order]
    assert (found[-1]["external_id"], found[-1]["consents"]) == ("10023", [{"document": "privacy", "version": "2"}])


async def test_a_lookup_asks_for_two_hundred_at_most_and_finds_nobody_for_no_ids(orders: Sibling) -> None:
    user = (await orders.stage.login("alice"))["user"]
    openid = {"app_id": user["app_id"], "openid": user["openid"]}
    ids = [str(uuid4()) for _ in range(199)]
    assert [found["id"] for found in await orders.find(ids=ids, openids=[openid])] == [user["id"]]
    too_many = {"ids": ids, "openids": [openid] * 2}
    for body in (too_many, {}, {"id": [str(uuid4())]}, {"ids": None}, {"openids": [{"app_id": "wx1", "openid": ""}]}):
        problem_of(await orders.ask(body), "invalid_request", 422)
    assert await orders.find(ids=[]) == []


# Lookups by unionid, for clients that may connect the data of several products about a user.


async def test_a_unionid_finds_users_for_a_client_with_the_scope_alone(stage: Stage, add_sibling: AddSibling) -> None:
    shop = Sibling(stage, await add_sibling("shop", Scope.USERS, Scope.UNIONIDS))
    orders = Sibling(stage, await add_sibling("orders", Scope.USERS))
    bob = (await stage.login("bob"))["user"]
    alice = (await stage.login("alice", unionid="union-alice"))["user"]
    await stage.rows.execute("INSERT INTO unionids (unionid, user_id) VALUES ('union-before', $1)", alice["id"])
    await stage.rows.execute("UPDATE users SET external_id = '10023' WHERE id = $1", bob["id"])
    found = await shop.find(unionids=["union-before", "nobody", "union-alice"], external_ids=["nobody", "10023"])
    assert [(user["id"], user["unionids"]) for user in found] == [
        (bob["id"], []),
        (alice["id"], ["union-alice", "union-before"]),
    ]
    assert (await shop.get(alice["id"])).json().keys() == TOLD | {"unionids"}
    for asked in (["union-alice"], []):
        refused = problem_of(await orders.ask({"unionids": asked}), "insufficient_scope", 403)
    assert refused["detail"].endswith("wxauth clients set orders --scope users --scope unionids")
    problem_of(await shop.ask({"unionids": ["u"] * 201}), "invalid_request", 422)


# The user's id in another system.


@pytest.fixture
async def crm(stage: Stage, add_sibling: AddSibling) -> Sibling:
    return Sibling(stage, await add_sibling("crm", Scope.ATTRIBUTES))


async def test_an_external_id_is_in_the_tokens_from_the_next_refresh_on(crm: Sibling, root: Admin) -> None:
    alice = await crm.stage.login("alice")
    user_id = alice["user"]["id"]
    for _ in range(2):
        answer = await crm.put(user_id, external_id="10023")
        assert (answer.status_code, answer.content) == (204, b"")
    refreshed = (await crm.stage.refresh(alice)).json()
    assert get_unverified_claims(refreshed["access_token"])["external_id"] == "10023"
    assert (await crm.put(user_id, external_id=None)).status_code == 204
    assert (await crm.stage.me(refreshed)).json()["external_id"] is None
    assert (await crm.put(user_id, external_id=None)).status_code == 204
    events = (await root.read("/events", type="user.profile_changed"))["items"]
    told = ("crm", user_id, {"fields": ["external_id"]})
    assert [(event["actor"], event["user_id"], event["data"]) for event in events] == [told] * 2, "real changes alone"


async def test_an_external_id_is_one_users(crm: Sibling, orders: Sibling) -> None:
    alice, bob = [(await crm.stage.login(name))["user"]["id"] for name in ("alice", "bob")]
    answers = await asyncio.gather(*(crm.put(user_id, external_id="10023") for user_id in (alice, bob) * 5))
    taken = [answer for answer in answers if answer.status_code != 204]
    assert len(taken) == 5
    for answer in taken:
        problem_of(answer, "external_id_taken", 409)
    [holder] = await orders.find(external_ids=["10023"])
    other = bob if holder["id"] == alice else alice
    assert (await crm.put(holder["id"], external_id="10024")).status_code == 204
    assert (await crm.put(other, external_id="10023")).status_code == 204, "as it is free again"
    both = await asyncio.gather(crm.put(other, external_id="10024"), crm.put(holder["id"], external_id="10023"))
    assert 409 in [answer.status_code for answer in both], "an exchange would need a moment without an id"


async def test_an_external_id_of_a_merged_user_stays_that_persons(crm: Sibling, orders: Sibling) -> None:
    former, holder, answer = await merged(crm.stage.login)
    bob = (await crm.stage.login("bob"))["user"]["id"]
    await crm.stage.rows.execute("INSERT INTO former_external_ids (external_id, user_id) VALUES ('7', $1)", holder)
    problem_of(await crm.put(bob, external_id="7"), "external_id_taken", 409)
    assert (await crm.put(former, external_id="10023")).status_code == 204, "for an id that was merged away"
    [user] = await orders.find(external_ids=["7", "10023"])
    assert (user["id"], user["external_id"], user["former_external_ids"]) == (holder, "10023", ["7"])
    assert (await crm.put(holder, external_id="7")).status_code == 204
    [user] = await orders.find(external_ids=["7", "10023"])
    assert (user["external_id"], user.get("former_external_ids")) == ("7", None)
    assert (await leave(crm.stage.client, answer)).status_code == 204
    for gone in (former, holder, uuid4()):
        problem_of(await crm.put(gone, external_id="10024"), "not_found", 404)


async def test_what_is_no_id_is_refused_as_in_an_import(crm: Sibling, orders: Sibling) -> None:
    user_id = (await crm.stage.login("alice"))["user"]["id"]
    wrongs = ["", "NULL", "10023.0", '="7"', "'7", '{"$oid": "7"}', "ObjectId(7)", 7, "x" * 129, "a\u200bb"]
    for wrong in wrongs:
        problem = problem_of(await crm.put(user_id, external_id=wrong), "invalid_request", 422)
        assert [error["field"] for error in problem["errors"]] == ["external_id"], wrong
    problem_of(await crm.put(user_id), "invalid_request", 422)
    # The length is checked first. Normalizing these marks took two seconds, and the search for the end of a bracket
    # takes as long as the text is.
    for long in ("a" + "\u0301" * 15_000 + "\u0327" * 15_000, "[" + "x" * 60_000 + "]"):
        (error,) = problem_of(await crm.put(user_id, external_id=long), "invalid_request", 422)["errors"]
        assert error == {"field": "external_id", "message": "String should have at most 128 characters"}
    assert await orders.find(external_ids=["7"]) == []
