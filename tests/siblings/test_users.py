"""`/v1/users`: siblings look users up by id or openid, and get the fields of their scopes."""

from typing import Any
from uuid import uuid4

import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.world import AddSibling, Client, LogIn, Rows, leave
from wxauth.server.clients.clients import Credentials
from wxauth.server.clients.models import Scope

LOOKUP = "/v1/users/lookup"
TOLD = {
    *("id", "nickname", "avatar_url", "status", "roles", "created_at", "last_login_at", "former_ids", "identities"),
    *("external_id", "consents", "attributes", "erase_at"),
}


@pytest.fixture
async def orders(add_sibling: AddSibling) -> Credentials:
    return await add_sibling("orders", Scope.USERS)


async def merged(login: LogIn) -> tuple[str, str, dict[str, Any]]:
    """Alice's former id, the one that remains, and her last login."""
    ids, answer = [], {}
    for app, unionid in ((APP, None), (OTHER_APP, "union-alice"), (APP, "union-alice")):
        answer = await login("alice", app=app, unionid=unionid)
        ids.append(answer["user"]["id"])
    former, holder, now = ids
    assert (former != holder, now) == (True, holder)
    return former, holder, answer


async def test_a_user_is_returned_without_number_and_unionid(login: LogIn, orders: Credentials, rows: Rows) -> None:
    user = (await login("alice", nickname="小明"))["user"]
    await rows.execute("UPDATE users SET phone = '+8613800138000'")
    answer = await login.client.get(f"/v1/users/{user['id']}", auth=orders)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json().keys() == TOLD
    assert answer.json() == {
        **{name: user[name] for name in TOLD - {"former_ids", "identities", "consents", "attributes", "erase_at"}},
        "attributes": {},
        "erase_at": None,
        "former_ids": [],
        "consents": [],
        "identities": [{"app_id": user["app_id"], "openid": user["openid"]}],
    }


async def test_the_scope_phones_adds_the_number(login: LogIn, add_sibling: AddSibling, rows: Rows) -> None:
    messages = await add_sibling("messages", Scope.USERS, Scope.PHONES)
    user_id = (await login("alice"))["user"]["id"]
    assert (await login.client.get(f"/v1/users/{user_id}", auth=messages)).json()["phone"] is None
    await rows.execute("UPDATE users SET phone = '+8613800138000', phone_verified_at = now()")
    by_id = (await login.client.get(f"/v1/users/{user_id}", auth=messages)).json()
    [found] = (await login.client.post(LOOKUP, json={"ids": [user_id]}, auth=messages)).json()["items"]
    assert (by_id["phone"], by_id["phone_verified"]) == ("+8613800138000", True)
    assert (by_id.keys(), found) == (TOLD | {"phone", "phone_verified"}, by_id)
    await rows.execute("UPDATE users SET phone_verified_at = NULL")
    assert (await login.client.get(f"/v1/users/{user_id}", auth=messages)).json()["phone_verified"] is False


async def test_an_id_that_was_merged_away_is_answered_with_the_user_that_remains(
    login: LogIn, client: Client, orders: Credentials
) -> None:
    former, holder, _ = await merged(login)
    user = (await client.get(f"/v1/users/{former}", auth=orders)).json()
    assert (user["id"], user["former_ids"]) == (holder, [former])
    assert {each["app_id"] for each in user["identities"]} == {APP["app_id"], OTHER_APP["app_id"]}
    assert (await client.get(f"/v1/users/{holder}", auth=orders)).json() == user
    found = await client.post(LOOKUP, json={"ids": [former, holder, former]}, auth=orders)
    assert found.json() == {"items": [user]}


async def test_an_erased_user_is_not_found_by_any_id(login: LogIn, client: Client, orders: Credentials) -> None:
    former, holder, answer = await merged(login)
    assert (await leave(client, answer)).status_code == 204
    for user_id in (former, holder, uuid4()):
        problem_of(await client.get(f"/v1/users/{user_id}", auth=orders), "not_found", 404)
    assert (await client.post(LOOKUP, json={"ids": [former, holder]}, auth=orders)).json() == {"items": []}


async def test_many_are_answered_once_in_the_order_of_asking_ids_before_openids(
    client: Client, login: LogIn, orders: Credentials
) -> None:
    people = {name: (await login(name))["user"] for name in ("alice", "bob", "carol", "dave", "erin")}
    openids = [
        {name: people[person][name] for name in ("app_id", "openid")} for person in ("dave", "alice", "carol", "dave")
    ]
    of_another_app = {"app_id": OTHER_APP["app_id"], "openid": people["erin"]["openid"]}
    asked = {
        "openids": [{"app_id": APP["app_id"], "openid": "nobody"}, *openids, of_another_app],
        "ids": [people["bob"]["id"], str(uuid4()), people["alice"]["id"], people["bob"]["id"].upper()],
    }
    found = (await client.post(LOOKUP, json=asked, auth=orders)).json()
    assert [user["id"] for user in found["items"]] == [
        people[person]["id"] for person in ("bob", "alice", "dave", "carol")
    ]
    assert found.keys() == {"items"}


async def test_an_external_id_finds_whose_it_is_after_ids_and_openids(
    client: Client, login: LogIn, orders: Credentials, rows: Rows
) -> None:
    alice, bob = [(await login(name))["user"] for name in ("alice", "bob")]
    await rows.execute(
        "UPDATE users SET external_id = '10023', consents = '{\"privacy\": \"2\"}' WHERE id = $1", alice["id"]
    )
    asked = {"external_ids": ["nobody", "10023"], "ids": [bob["id"]]}
    found = (await client.post(LOOKUP, json=asked, auth=orders)).json()["items"]
    assert [user["id"] for user in found] == [bob["id"], alice["id"]]
    assert (found[1]["external_id"], found[1]["consents"]) == ("10023", [{"document": "privacy", "version": "2"}])


async def test_two_hundred_at_once_are_answered(client: Client, login: LogIn, orders: Credentials) -> None:
    user = (await login("alice"))["user"]
    openid = {"app_id": user["app_id"], "openid": user["openid"]}
    asked = {"ids": [str(uuid4()) for _ in range(199)], "openids": [openid]}
    assert [found["id"] for found in (await client.post(LOOKUP, json=asked, auth=orders)).json()["items"]] == [
        user["id"]
    ]
    one_more = {**asked, "openids": [openid] * 2}
    problem_of(await client.post(LOOKUP, json=one_more, auth=orders), "invalid_request", 422)


async def test_an_invalid_lookup_is_refused(client: Client, orders: Credentials) -> None:
    bodies: list[object] = [{}, {"id": [str(uuid4())]}, {"ids": None}, {"ids": ["alice"]}, {"ids": [None]}]
    bodies += [{"openids": [one]} for one in ("alice", {"openid": "alice"}, {"app_id": "wx1", "openid": ""})]
    with Sweep() as sweep:
        for body in bodies:
            with sweep.case(body):
                problem_of(await client.post(LOOKUP, json=body, auth=orders), "invalid_request", 422)
        with sweep.case("none at all"):
            assert (await client.post(LOOKUP, json={"ids": []}, auth=orders)).json() == {"items": []}
