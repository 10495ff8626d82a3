"""Attributes are the operator's own facts about users. Staff, services, commands and imports can set them."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fakes import OTHER_APP
from tests.problems import problem_of
from tests.processes import Command
from tests.sweeps import swept
from tests.world import AddSibling, Admin, Body, Client, LogIn, Stage, bearer
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope

MERGE_PATCH = {"content-type": "application/merge-patch+json"}


@dataclass(frozen=True, slots=True)
class Crm:
    """A service that sets Alice's attributes."""

    client: Client
    auth: Credentials
    alice: Body

    @property
    def user_id(self) -> str:
        return self.alice["user"]["id"]

    async def patch(self, user_id: str | None = None, **body: Any) -> httpx.Response:
        path = f"/v1/users/{user_id or self.user_id}/attributes"
        return await self.client.patch(path, **{"auth": self.auth, **body})

    async def attributes(self, user_id: str | None = None) -> Body:
        return (await self.client.get(f"/v1/users/{user_id or self.user_id}", auth=self.auth)).json()["attributes"]


@pytest.fixture
async def crm(login: LogIn, add_sibling: AddSibling) -> Crm:
    return Crm(login.client, await add_sibling("crm", Scope.ATTRIBUTES, Scope.USERS), await login("alice"))


async def test_a_merge_patch_changes_the_names_that_it_has(root: Admin, crm: Crm) -> None:
    assert (await crm.attributes(), "attributes" in crm.alice["user"]) == ({}, False)
    first = await crm.patch(json={"tier": "gold", "shop": {"id": 7, "open": True}, "n": 1})
    assert (first.status_code, first.content) == (204, b"")
    body = json.dumps({"tier": None, "shop": {"open": None, "city": "上海"}, "n": True})
    assert (await crm.patch(content=body, headers=MERGE_PATCH)).status_code == 204
    after = {"shop": {"id": 7, "city": "上海"}, "n": True}
    assert await crm.attributes() == after
    assert (await root.read(f"/users/{crm.user_id}"))["attributes"] == after
    assert (await root.read("/users", q=crm.user_id))["items"][0]["attributes"] == after
    assert "attributes" not in (await root.client.get("/v1/me", headers=bearer(crm.alice))).json()
    export = (await root.client.get("/v1/me/export", headers=bearer(crm.alice))).json()
    assert export["user"]["attributes"] == after
    events = await root.events(type="user.attributes_changed")
    assert [(event["actor"], event["data"]) for event in events] == [
        ("crm", {"names": ["n", "shop", "tier"]}),
        ("crm", {"names": ["n", "shop", "tier"]}),
    ]


async def test_a_patch_that_changes_nothing_is_no_event(root: Admin, crm: Crm) -> None:
    for patch in (*2 * [{"tier": {"a": 1, "b": 2}, "no": None}], {"tier": {"b": 2, "a": 1}}):
        assert (await crm.patch(json=patch)).status_code == 204
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
async def test_what_breaks_a_rule_is_refused_and_changes_nothing(crm: Crm, patch: str) -> None:
    await crm.patch(json={"tier": "gold"})
    problem_of(await crm.patch(content=patch), "invalid_request", 422)
    assert await crm.attributes() == {"tier": "gold"}


async def test_what_keeps_to_the_bounds_is_stored_as_it_is(crm: Crm) -> None:
    largest = {"x": DEEP, "y": [[[[]]]], "n": 1.5, "big": 2**53, "no": [None]}
    largest["text"] = "长" * ((2048 - len(json.dumps({**largest, "text": ""}, separators=(",", ":")))) // 3)
    assert (await crm.patch(json=largest)).status_code == 204
    assert await crm.attributes() == largest
    refused = problem_of(await crm.patch(json={"one": "more"}), "invalid_request", 422)
    assert refused["errors"][0]["field"] == "attributes"
    assert await crm.attributes() == largest
    assert (await crm.patch(json={"text": None, "one": "more"})).status_code == 204


async def test_writers_of_different_names_lose_nothing(root: Admin, crm: Crm) -> None:
    await asyncio.gather(*(crm.patch(json={f"n{n}": n}) for n in range(20)))
    assert await crm.attributes() == {f"n{n}": n for n in range(20)}
    assert len(await root.events(type="user.attributes_changed")) == 20


async def test_who_may_write(root: Admin, sue: Admin, crm: Crm) -> None:
    assert (await crm.patch(json={"tier": 1}, auth=None, headers=bearer(crm.alice))).status_code == 401
    assert (await root.change(crm.user_id, attributes={"tier": "gold"}))["attributes"] == {"tier": "gold"}
    assert (await root.change(crm.user_id, attributes={"tier": None, "vip": True}))["attributes"] == {"vip": True}
    path = f"/users/{crm.user_id}"
    problem_of(await sue.ask("PATCH", path, json={"attributes": {"vip": False}}), "insufficient_role", 403)
    problem_of(await root.ask("PATCH", path, json={"attributes": {"No": 1}}), "invalid_request", 422)


async def merged_by_unionid(login: LogIn, crm: Crm, *, former: Body, remaining: Body) -> str:
    """Give each of Alice's two users attributes, merge them by unionid, and return the id of the user who remains."""
    await crm.patch(json=former)
    user_id = (await login("alice", app=OTHER_APP, unionid="union-alice"))["user"]["id"]
    await crm.patch(user_id, json=remaining)
    assert (await login("alice", unionid="union-alice"))["user"]["id"] == user_id
    assert (await crm.patch(json={"late": True})).status_code == 204, "by the former id"
    return user_id


async def test_a_merge_adds_the_names_that_the_remaining_user_lacks(login: LogIn, root: Admin, crm: Crm) -> None:
    former, remaining = {"tier": "gold", "shop": 7}, {"tier": "silver"}
    user_id = await merged_by_unionid(login, crm, former=former, remaining=remaining)
    assert await crm.attributes(user_id) == {"tier": "silver", "shop": 7, "late": True}
    events = await root.events(type="user.attributes_changed", user_id=user_id)
    assert [(event["actor"], event["data"]["names"]) for event in events[:2]] == [
        ("crm", ["late"]),
        ("system", ["shop"]),
    ]


async def test_a_merge_adds_all_or_none(login: LogIn, crm: Crm) -> None:
    former, remaining = {"small": 1, "large": "x" * 1000}, {"tier": "x" * 1100}
    user_id = await merged_by_unionid(login, crm, former=former, remaining=remaining)
    assert await crm.attributes(user_id) == {**remaining, "late": True}


@pytest.mark.process
async def test_a_command_sets_and_removes_them(stage: Stage, users: Command) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    given = ("tier=gold", "level=3", "vip=true", 'shop={"id": 7}', "note=1 + 1 = 2", "gone=")
    done = await users("set", user_id, *(part for name in given for part in ("--attribute", name)))
    assert (done.returncode, done.stderr) == (0, "")
    stored = json.loads(await stage.rows.fetchval("SELECT attributes::text FROM users"))
    assert stored == {"tier": "gold", "level": 3, "vip": True, "shop": {"id": 7}, "note": "1 + 1 = 2"}
    assert (await users("set", user_id, "--attribute", "shop=", "--attribute", "note=")).returncode == 0
    assert "attribute  level=3" in " ".join((await users("show", user_id)).stdout.split()).replace(" level", "  level")
    for wrong in (("--attribute", "Tier=1"), ("--attribute", "tier"), ("--attribute", "x=[1e999]"), ()):
        assert (await users("set", user_id, *wrong)).returncode == 2
    too_large = await users("set", user_id, "--attribute", f"x={'y' * 2048}", LC_ALL="zh_CN.UTF-8")
    assert (too_large.returncode, too_large.stderr) == (1, "attributes：以紧凑 JSON 计，总长不能超过 2048 字节\n")
    stored = json.loads(await stage.rows.fetchval("SELECT attributes::text FROM users"))
    assert stored == {"tier": "gold", "level": 3, "vip": True}
