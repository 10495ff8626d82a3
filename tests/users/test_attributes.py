"""Attributes: the operator's own facts about users, written by staff, services, commands and imports."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.processes import make_command
from tests.sweeps import swept
from tests.world import AddSibling, Admin, Client, LogIn, Rows, bearer
from wxauth.server.clients.clients import Credentials
from wxauth.server.clients.models import Scope

MERGE_PATCH = {"content-type": "application/merge-patch+json"}


@pytest.fixture
async def crm(add_sibling: AddSibling) -> Credentials:
    return await add_sibling("crm", Scope.ATTRIBUTES, Scope.USERS)


async def attributes_of(client: Client, user_id: str, crm: Credentials) -> dict[str, Any]:
    return (await client.get(f"/v1/users/{user_id}", auth=crm)).json()["attributes"]


async def test_a_merge_patch_changes_the_names_that_it_has(login: LogIn, root: Admin, crm: Credentials) -> None:
    alice = await login("alice")
    user_id, path = alice["user"]["id"], f"/v1/users/{alice['user']['id']}/attributes"
    assert (await attributes_of(root.client, user_id, crm), "attributes" in alice["user"]) == ({}, False)
    first = await root.client.patch(path, json={"tier": "gold", "shop": {"id": 7, "open": True}, "n": 1}, auth=crm)
    assert (first.status_code, first.content) == (204, b"")
    body = json.dumps({"tier": None, "shop": {"open": None, "city": "上海"}, "n": True})
    second = await root.client.patch(path, content=body, headers=MERGE_PATCH, auth=crm)
    assert second.status_code == 204
    after = {"shop": {"id": 7, "city": "上海"}, "n": True}
    assert await attributes_of(root.client, user_id, crm) == after
    assert (await root.read(f"/users/{user_id}"))["attributes"] == after
    assert (await root.read("/users", q=user_id))["items"][0]["attributes"] == after
    assert "attributes" not in (await root.client.get("/v1/me", headers=bearer(alice))).json()
    export = (await root.client.get("/v1/me/export", headers=bearer(alice))).json()
    assert export["user"]["attributes"] == after
    events = await root.events(type="user.attributes_changed")
    assert [(event["actor"], event["data"]) for event in events] == [
        ("crm", {"names": ["n", "shop", "tier"]}),
        ("crm", {"names": ["n", "shop", "tier"]}),
    ]


async def test_a_patch_that_changes_nothing_is_no_event(
    client: Client, login: LogIn, root: Admin, crm: Credentials
) -> None:
    user_id = (await login("alice"))["user"]["id"]
    for _ in range(2):
        await client.patch(f"/v1/users/{user_id}/attributes", json={"tier": {"a": 1, "b": 2}, "no": None}, auth=crm)
    await client.patch(f"/v1/users/{user_id}/attributes", json={"tier": {"b": 2, "a": 1}}, auth=crm)
    assert len(await root.events(type="user.attributes_changed")) == 1


DEEP = {"a": {"b": {"c": {"d": 1}}}}


@pytest.mark.slow
@swept(
    "patch",
    [
        '{"Tier": 1}',
        '{"": 1}',
        '{"1st": null}',
        json.dumps({"a" * 33: 1}),
        json.dumps({"a": "x" * 2048}),
        json.dumps({f"a{n}": 1 for n in range(33)}),
        json.dumps({"x": {**DEEP, "e": [[[[]]]]}}),
        json.dumps({"x": [[[[[]]]]]}),
        '{"x": "\\u0000"}',
        '{"x": {"\\u0000": 1}}',
        '{"x": "\\ud800"}',
        '{"x": 1e400}',
        '{"x": NaN}',
        '{"x": %s}' % ("1" * 400),
        json.dumps({f"a{n}": 1e300 for n in range(8)}),
        "[]",
        "null",
        '"gold"',
        "",
        "[" * 10_000,
    ],
    ids=lambda patch: patch[:20],
)
async def test_what_breaks_a_rule_is_refused_and_changes_nothing(login: LogIn, crm: Credentials, patch: str) -> None:
    user_id = (await login("alice"))["user"]["id"]
    path = f"/v1/users/{user_id}/attributes"
    await login.client.patch(path, json={"tier": "gold"}, auth=crm)
    problem_of(await login.client.patch(path, content=patch, auth=crm), "invalid_request", 422)
    assert await attributes_of(login.client, user_id, crm) == {"tier": "gold"}


async def test_what_keeps_to_the_bounds_is_stored_as_it_is(client: Client, login: LogIn, crm: Credentials) -> None:
    user_id = (await login("alice"))["user"]["id"]
    path = f"/v1/users/{user_id}/attributes"
    largest = {"x": DEEP, "y": [[[[]]]], "n": 1.5, "big": 2**60, "no": [None]}
    largest["text"] = "长" * ((2048 - len(json.dumps({**largest, "text": ""}, separators=(",", ":")))) // 3)
    assert (await client.patch(path, json=largest, auth=crm)).status_code == 204
    assert await attributes_of(client, user_id, crm) == largest
    refused = problem_of(await client.patch(path, json={"one": "more"}, auth=crm), "invalid_request", 422)
    assert refused["errors"][0]["field"] == "attributes"
    assert await attributes_of(client, user_id, crm) == largest
    assert (await client.patch(path, json={"text": None, "one": "more"}, auth=crm)).status_code == 204


async def test_writers_of_different_names_lose_nothing(login: LogIn, root: Admin, crm: Credentials) -> None:
    user_id = (await login("alice"))["user"]["id"]
    path = f"/v1/users/{user_id}/attributes"
    await asyncio.gather(*(root.client.patch(path, json={f"n{n}": n}, auth=crm) for n in range(20)))
    assert await attributes_of(root.client, user_id, crm) == {f"n{n}": n for n in range(20)}
    assert len(await root.events(type="user.attributes_changed")) == 20


async def test_who_may_write(client: Client, login: LogIn, root: Admin) -> None:
    user_id, path = (alice := await login("alice"))["user"]["id"], "/v1/users/{}/attributes"
    assert (await client.patch(path.format(user_id), json={"tier": 1}, headers=bearer(alice))).status_code == 401
    assert (await root.change(user_id, attributes={"tier": "gold"}))["attributes"] == {"tier": "gold"}
    assert (await root.change(user_id, attributes={"tier": None, "vip": True}))["attributes"] == {"vip": True}
    helper = await login("helper")
    await root.change(helper["user"]["id"], roles=["support"])
    support = Admin(client, helper)
    refused = await support.ask("PATCH", f"/users/{user_id}", json={"attributes": {"vip": False}})
    problem_of(refused, "insufficient_role", 403)
    problem_of(await root.ask("PATCH", f"/users/{user_id}", json={"attributes": {"No": 1}}), "invalid_request", 422)


async def merged_by_unionid(login: LogIn, client: Client, crm: Credentials, **ofs: Any) -> str:
    """Alice's user, after WeChat has said that her two users are one person."""
    ids = []
    for app, unionid, attributes in ((APP, None, ofs["former"]), (OTHER_APP, "union-alice", ofs["remaining"])):
        ids.append((await login("alice", app=app, unionid=unionid))["user"]["id"])
        await client.patch(f"/v1/users/{ids[-1]}/attributes", json=attributes, auth=crm)
    user_id = (await login("alice", unionid="union-alice"))["user"]["id"]
    assert user_id == ids[1]
    stale = await client.patch(f"/v1/users/{ids[0]}/attributes", json={"late": True}, auth=crm)
    assert stale.status_code == 204
    return user_id


async def test_a_merge_adds_the_names_that_the_remaining_user_lacks(
    client: Client, login: LogIn, root: Admin, crm: Credentials
) -> None:
    user_id = await merged_by_unionid(
        login, client, crm, former={"tier": "gold", "shop": 7}, remaining={"tier": "silver"}
    )
    assert await attributes_of(client, user_id, crm) == {"tier": "silver", "shop": 7, "late": True}
    events = await root.events(type="user.attributes_changed", user_id=user_id)
    assert [(event["actor"], event["data"]["names"]) for event in events[:2]] == [
        ("crm", ["late"]),
        ("system", ["shop"]),
    ]


async def test_a_merge_adds_all_or_none(client: Client, login: LogIn, crm: Credentials) -> None:
    former, remaining = {"small": 1, "large": "x" * 1000}, {"tier": "x" * 1100}
    user_id = await merged_by_unionid(login, client, crm, former=former, remaining=remaining)
    assert await attributes_of(client, user_id, crm) == {**remaining, "late": True}


@pytest.mark.process
async def test_a_command_sets_and_removes_them(login: LogIn, database_url: str, tmp_path: Path, rows: Rows) -> None:
    user_id = (await login("alice"))["user"]["id"]
    users = make_command("users", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    given = ("tier=gold", "level=3", "vip=true", 'shop={"id": 7}', "note=1 + 1 = 2", "gone=")
    done = await users("set", user_id, *(part for name in given for part in ("--attribute", name)))
    assert (done.returncode, done.stderr) == (0, "")
    stored = json.loads(await rows.fetchval("SELECT attributes::text FROM users"))
    assert stored == {"tier": "gold", "level": 3, "vip": True, "shop": {"id": 7}, "note": "1 + 1 = 2"}
    assert (await users("set", user_id, "--attribute", "shop=", "--attribute", "note=")).returncode == 0
    assert "attribute  level=3" in " ".join((await users("show", user_id)).stdout.split()).replace(" level", "  level")
    for wrong in (("--attribute", "Tier=1"), ("--attribute", "tier"), ("--attribute", "x=1e999"), ()):
        assert (await users("set", user_id, *wrong)).returncode == 2
    stored = json.loads(await rows.fetchval("SELECT attributes::text FROM users"))
    assert stored == {"tier": "gold", "level": 3, "vip": True}
