"""A split takes another person's identity out of a user, and the identity does not come back by itself."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from jose import jwt

from tests.database_proxy import Proxy
from tests.fakes import APP, OTHER_APP, service_env
from tests.pictures.samples import encoded, plain
from tests.problems import problem_of
from tests.processes import make_command
from tests.world import NUMBER, Admin, Body, Client, Rows, Stage, bearer, body_of, make_admin, recorded, until_locked
from wxauth.core.trail import WECHAT
from wxauth.login.login_queries import Login, record_login
from wxauth.merging.splitting_queries import erase_identity
from wxauth.users.consent_queries import PRESENT_CONSENTS
from wxauth.users.status_queries import lift_bans, lock_status_and_roles

pytestmark = pytest.mark.usefixtures("bystander")

THIRD_APP = {"app_id": "wxthird00000000a3", "app_secret": "secret-of-the-third-app"}


def id_of(answer: Body) -> str:
    return answer["user"]["id"]


def openids(user: Body) -> list[str]:
    return sorted(identity["openid"] for identity in user["identities"])


def ban_of(user: Body) -> tuple[str, str | None, str | None]:
    return user["status"], user.get("reason"), user.get("until")


@dataclass(frozen=True, slots=True)
class Crowd:
    """Users of three apps and an administrator, who send their requests to two replicas."""

    stage: Stage
    root: Admin
    other_client: Client

    async def log_in(self, person: str, app: Body = APP, *, at: int = 0, **how: Any) -> Body:
        return await self.stage.login(person, at=(self.stage.client, self.other_client)[at], app=app, **how)

    async def log_in_with_all(self, person: str, app: Body = APP, *, unionid: str | None = None) -> Body:
        """Log in a user with a nickname, a picture and a consent."""
        given: Body = {"avatar_url": f"https://a.test/{person}.png", "consents": {"privacy": "1"}}
        return await self.log_in(person, app, unionid=unionid, nickname=person.title(), **given)

    async def give(self, person: Body, **fields: object) -> None:
        for name, value in fields.items():
            await self.stage.rows.execute(
                f"UPDATE users SET {name} = $2 WHERE id = $1::text::uuid", id_of(person), value
            )

    async def merge(self, former: Body, into: Body) -> httpx.Response:
        return await self.root.merge(id_of(former), into=id_of(into))

    async def merged(self, **how: Any) -> tuple[Body, Body]:
        """Return the logins of Alice and of Bob, who uses another app and has been merged into her user."""
        alice, bob = await self.log_in("alice", **how), await self.log_in("bob", OTHER_APP)
        assert (await self.merge(bob, alice)).status_code == 200
        return alice, bob

    async def ask_split(self, user: Body, identity: Body, *, at: int = 0, **fields: object) -> httpx.Response:
        body = {"app_id": identity["user"]["app_id"], "openid": identity["user"]["openid"], **fields}
        root = Admin((self.stage.client, self.other_client)[at], self.root.answer)
        return await root.ask("POST", f"/users/{id_of(user)}/split", json=body)

    async def split(self, user: Body, identity: Body, **fields: Any) -> Body:
        answer = body_of(await self.ask_split(user, identity, **fields))
        assert await self.stage.number(f"users WHERE consents IS DISTINCT FROM {PRESENT_CONSENTS}") == 0
        return answer

    async def read(self, user: Body) -> Body:
        return await self.root.read(f"/users/{id_of(user)}")

    async def recorded(self, *kinds: str) -> list[tuple[str, str, str, Any]]:
        return await recorded(self.stage.rows, "type, user_id, actor, data", "type = ANY ($1)", kinds)


@pytest.fixture
async def crowd(stage: Stage) -> Crowd:
    settings: Body = {"apps": [APP, OTHER_APP, THIRD_APP], "login_rate_limit": "", "consents": "privacy:1"}
    stage, other_client = await stage.replica(**settings), await stage.make(**settings)
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    return Crowd(stage, root=root, other_client=other_client)


# What the new user gets, and what the old user keeps.


async def test_an_identity_becomes_a_user_with_a_new_id_and_everything_else_stays(crowd: Crowd) -> None:
    alice = await crowd.log_in_with_all("alice")
    crowd.stage.clock.advance(minutes=1)
    bob = await crowd.log_in_with_all("bob", OTHER_APP, unionid="union-bob")
    await crowd.give(bob, phone=NUMBER, external_id="10023", attributes='{"tier": "gold"}', roles=["editor"])
    await crowd.merge(bob, alice)
    crowd.stage.clock.advance(minutes=1)
    again = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    before = await crowd.read(alice)
    answer = await crowd.split(bob, bob)  # Bob's former id now means Alice
    user, new_user = answer["user"], answer["new_user"]
    changes = {"unionid": None, "identities": before["identities"][:1]}
    ended = [each for each in before["sessions"] if each["id"] not in (bob["session_id"], again["session_id"])]
    assert {**user, "ended_sessions": []} == {**before, **changes, "sessions": ended, "ended_sessions": []}
    assert (user["former_ids"], user["roles"], user["attributes"]) == ([id_of(bob)], ["editor"], {"tier": "gold"})
    assert new_user["id"] not in (id_of(alice), id_of(bob))
    assert openids(new_user) == ["openid-b2-bob"]
    assert (new_user["unionid"], new_user["created_at"]) == ("union-bob", bob["user"]["created_at"])
    assert [new_user[name] for name in ("last_login_at", "last_seen_at")] == [before["last_login_at"]] * 2
    nothing: Body = {"nickname": None, "avatar_url": None, "phone": None, "external_id": None, "attributes": {}}
    assert {name: new_user[name] for name in nothing} == nothing
    assert (new_user["status"], new_user["roles"], new_user["consents"]) == ("active", [], [])
    assert {"former_ids", "former_external_ids", "reason"}.isdisjoint(new_user)
    assert await crowd.read({"user": new_user}) == new_user
    assert await crowd.read(bob) == user, "by the former id, too"


async def test_the_sessions_of_who_leaves_end_and_the_next_login_is_the_new_users(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    await crowd.merge(bob, alice)
    again = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    new_id = (await crowd.split(alice, bob))["new_user"]["id"]
    for login in (bob, again):
        problem_of(await crowd.stage.me(login), "invalid_token", 401)
        problem_of(await crowd.stage.refresh(login), "session_revoked", 400)
    assert (await crowd.stage.me(alice)).status_code == 200
    assert id_of(await crowd.log_in("bob", OTHER_APP, unionid="union-bob")) == new_id
    there = await crowd.log_in("bob", THIRD_APP, unionid="union-bob")
    assert (id_of(there), there["is_new_user"]) == (new_id, False)
    assert id_of(await crowd.log_in("alice")) == id_of(alice)
    ended = {"session_ids": sorted([bob["session_id"], again["session_id"]]), "reason": "administrator"}
    split = {"new_user_id": new_id, "app_ids": [OTHER_APP["app_id"]], "kept_app_ids": [APP["app_id"]]}
    assert await crowd.recorded("user.split", "session.ended") == [
        ("session.ended", id_of(alice), crowd.root.id, ended),
        ("user.split", id_of(alice), crowd.root.id, split),
    ]


async def test_the_others_with_its_unionid_leave_too_and_the_oldest_says_since_when(crowd: Crowd) -> None:
    alice = await crowd.log_in("alice", unionid="union-alice")
    crowd.stage.clock.advance(minutes=1)
    bob = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    crowd.stage.clock.advance(minutes=1)
    there = await crowd.log_in("bob", THIRD_APP, unionid="union-bob")
    carol = await crowd.log_in("carol", OTHER_APP)
    await crowd.merge(bob, alice)
    await crowd.merge(carol, alice)
    answer = await crowd.split(alice, there)
    assert (openids(answer["user"]), answer["user"]["unionid"]) == (
        ["openid-a1-alice", "openid-b2-carol"],
        "union-alice",
    )
    assert openids(answer["new_user"]) == ["openid-a3-bob", "openid-b2-bob"]
    assert (answer["new_user"]["unionid"], answer["new_user"]["created_at"]) == ("union-bob", bob["user"]["created_at"])
    [(_, _, _, told)] = await crowd.recorded("user.split")
    assert told["app_ids"] == sorted([OTHER_APP["app_id"], THIRD_APP["app_id"]])
    assert told["kept_app_ids"] == sorted([APP["app_id"], OTHER_APP["app_id"]])


async def test_an_identity_whose_unionid_is_known_only_later_leaves_with_the_others(crowd: Crowd, proxy: Proxy) -> None:
    client = await crowd.stage.make(database_url=proxy.url)
    alice = await crowd.log_in("alice", THIRD_APP)
    bob = await crowd.log_in("bob")
    there = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    for each in (bob, there):
        assert (await crowd.merge(each, alice)).status_code == 200
    for _ in ("stores the unionid", "prepares the statement"):
        assert id_of(await crowd.stage.login("bob", at=client, app=APP, unionid="union-bob")) == id_of(alice)
    begun = proxy.round_trips
    assert id_of(await crowd.stage.login("bob", at=client, app=APP, unionid="union-bob")) == id_of(alice)
    assert proxy.round_trips - begun == 1
    answer = await crowd.split(alice, there)
    assert (openids(answer["user"]), answer["user"]["unionid"]) == (["openid-a3-alice"], None)
    assert (openids(answer["new_user"]), answer["new_user"]["unionid"]) == (
        ["openid-a1-bob", "openid-b2-bob"],
        "union-bob",
    )


async def test_two_openids_of_one_app_with_the_same_unionid_both_log_in_cheaply(crowd: Crowd, proxy: Proxy) -> None:
    client = await crowd.stage.make(database_url=proxy.url)
    alice, bob = await crowd.log_in("alice", unionid="union-alice"), await crowd.log_in("bob")
    assert (await crowd.merge(bob, alice)).status_code == 200
    for person in 2 * ("alice", "bob"):
        begun = proxy.round_trips
        assert id_of(await crowd.stage.login(person, at=client, unionid="union-alice")) == id_of(alice)
    assert proxy.round_trips - begun == 1


async def test_an_identity_without_a_unionid_leaves_alone(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    carol = await crowd.log_in("carol", THIRD_APP)
    await crowd.merge(carol, alice)
    answer = await crowd.split(alice, bob)
    assert (openids(answer["new_user"]), answer["new_user"]["unionid"]) == (["openid-b2-bob"], None)
    assert openids(answer["user"]) == ["openid-a1-alice", "openid-a3-carol"]


async def test_the_user_keeps_the_unionid_of_the_newest_identity_that_stays(crowd: Crowd) -> None:
    people = {"alice": APP, "bob": OTHER_APP, "carol": THIRD_APP}
    logins = []
    for person, app in people.items():
        logins.append(await crowd.log_in(person, app, unionid=f"union-{person}"))
        crowd.stage.clock.advance(minutes=1)
    alice, bob, carol = logins
    await crowd.merge(alice, carol)
    await crowd.merge(bob, carol)
    answer = await crowd.split(carol, carol)
    assert (answer["user"]["unionid"], answer["new_user"]["unionid"]) == ("union-bob", "union-carol")
    for person, app, its in zip(people, people.values(), (carol, carol, {"user": answer["new_user"]}), strict=True):
        assert id_of(await crowd.log_in(person, app, unionid=f"union-{person}")) == id_of(its)


async def test_an_uploaded_picture_stays(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    there = await crowd.log_in("bob", OTHER_APP)
    files = {"file": ("a.png", encoded(plain(), "PNG"), "image/png")}
    url = body_of(await crowd.stage.client.post("/v1/me/avatar", files=files, headers=bearer(there)))["avatar_url"]
    answer = await crowd.split(alice, bob)
    assert [answer[name]["avatar_url"] for name in ("user", "new_user")] == [url, None]
    assert (await crowd.stage.client.get(httpx.URL(url).path)).status_code == 200


async def test_the_only_administrator_remains_one(crowd: Crowd) -> None:
    bob = await crowd.log_in("bob", OTHER_APP)
    await crowd.merge(bob, crowd.root.answer)
    answer = await crowd.split(crowd.root.answer, bob)
    assert [answer[name]["roles"] for name in ("user", "new_user")] == [["admin"], []]


# Unionids that no identity has any more.


async def with_an_earlier_unionid(crowd: Crowd) -> tuple[Body, Body]:
    """Return the logins of Alice, whose app has moved to another Open Platform account, and of Bob, merged into her."""
    await crowd.log_in("alice", unionid="union-before")
    alice = await crowd.log_in("alice", unionid="union-now")
    bob = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    await crowd.merge(bob, alice)
    return alice, bob


async def unionids_of(crowd: Crowd, user_id: str) -> list[str]:
    query = "SELECT unionid FROM unionids WHERE user_id = $1::text::uuid ORDER BY 1"
    return [unionid for (unionid,) in await crowd.stage.rows.fetch(query, user_id)]


@pytest.mark.parametrize("leaves", ["alice", "bob"])
async def test_a_unionid_that_no_identity_has_is_forgotten(crowd: Crowd, leaves: str) -> None:
    alice, bob = await with_an_earlier_unionid(crowd)
    answer = await crowd.split(alice, {"alice": alice, "bob": bob}[leaves])
    new_id, newcomer = answer["new_user"]["id"], await crowd.log_in("stranger", THIRD_APP, unionid="union-before")
    assert newcomer["is_new_user"] is True
    left = {"alice": ["union-bob"], "bob": ["union-now"]}[leaves]
    assert (await unionids_of(crowd, id_of(alice)), answer["user"]["unionid"]) == (left, left[0])
    moved = {"alice": ["union-now"], "bob": ["union-bob"]}[leaves]
    assert (await unionids_of(crowd, new_id), answer["new_user"]["unionid"]) == (moved, moved[0])


async def test_a_present_unionid_that_no_identity_has_is_forgotten(crowd: Crowd) -> None:
    alice, bob = await crowd.merged(unionid="union-1")
    await crowd.stage.rows.execute("UPDATE identities SET unionid = NULL")  # as after an import of only unionids
    answer = await crowd.split(alice, bob)
    assert [answer[name]["unionid"] for name in ("user", "new_user")] == [None, None]
    assert await crowd.stage.number("unionids") == 0


async def test_who_is_banned_does_not_escape_by_an_earlier_unionid(crowd: Crowd) -> None:
    alice, bob = await with_an_earlier_unionid(crowd)
    await crowd.root.change(id_of(alice), status="disabled")
    answer = await crowd.split(alice, bob)
    assert await unionids_of(crowd, id_of(alice)) == ["union-before", "union-now"]
    for unionid in ("union-before", "union-now", "union-bob"):
        refused = await crowd.stage.login.ask("stranger", app=THIRD_APP, unionid=unionid)
        problem_of(refused, "account_disabled", 403)
    assert (answer["user"]["unionid"], answer["new_user"]["unionid"]) == ("union-now", "union-bob")


@pytest.mark.parametrize("is_present", [True, False])
@pytest.mark.parametrize("how", ["taken out", "withdrawn"])
async def test_only_a_unionid_that_leaves_is_replaced(crowd: Crowd, how: str, is_present: bool) -> None:
    """Merge Alice, Bob and Carol, who registered in this order, and then let Carol leave."""
    apps, logins = {"alice": APP, "bob": OTHER_APP, "carol": THIRD_APP}, {}
    for person, app in apps.items():
        logins[person] = await crowd.log_in(person, app, unionid=f"union-{person}")
        crowd.stage.clock.advance(minutes=1)
    alice, bob, carol = logins.values()
    user, other = (carol, alice) if is_present else (alice, carol)  # the merged user keeps the unionid of `user`
    for former in (bob, other):
        await crowd.merge(former, user)
    if how == "taken out":
        await crowd.split(user, carol)
    else:
        identity = {name: carol["user"][name] for name in ("app_id", "openid")}
        user_id = UUID(id_of(user))
        async with crowd.stage.services.database.begin() as transaction:
            assert await lock_status_and_roles(transaction, user_id)
            assert await erase_identity(transaction, user_id, **identity, by=WECHAT, now=crowd.stage.clock())
    assert (await crowd.read(user))["unionid"] == ("union-bob" if is_present else "union-alice")
    assert await unionids_of(crowd, id_of(user)) == ["union-alice", "union-bob"]
    assert id_of(await crowd.log_in("bob", THIRD_APP, unionid="union-bob")) == id_of(user)
    assert id_of(await crowd.log_in("carol", OTHER_APP, unionid="union-carol")) != id_of(user)


@pytest.mark.parametrize("is_present", [True, False])
async def test_a_withdrawn_identity_leaves_the_unionid_that_another_one_has(crowd: Crowd, is_present: bool) -> None:
    """Withdraw one of Alice's two identities, which share a unionid. The user's own unionid is this one or Bob's."""
    alice, there = [await crowd.log_in("alice", app, unionid="union-alice") for app in (APP, OTHER_APP)]
    bob = await crowd.log_in("bob", THIRD_APP, unionid="union-bob")
    former, user = (bob, alice) if is_present else (alice, bob)
    await crowd.merge(former, user)
    identity = {name: there["user"][name] for name in ("app_id", "openid")}
    async with crowd.stage.services.database.begin() as transaction:
        await lock_status_and_roles(transaction, UUID(id_of(user)))
        assert await erase_identity(transaction, UUID(id_of(user)), **identity, by=WECHAT, now=crowd.stage.clock())
    assert (await crowd.read(user))["unionid"] == ("union-alice" if is_present else "union-bob")
    assert id_of(await crowd.log_in("alice", OTHER_APP, unionid="union-alice")) == id_of(user)


# External ids.


@pytest.mark.oldest_postgres
@pytest.mark.parametrize(
    ("given", "left", "moved"),
    [
        pytest.param({}, ("of-alice", ["of-bob"]), None, id="not named"),
        pytest.param({"external_id": None}, ("of-alice", ["of-bob"]), None, id="null"),
        pytest.param({"external_id": "of-bob"}, ("of-alice", None), "of-bob", id="a former one"),
        pytest.param({"external_id": "of-alice"}, (None, ["of-bob"]), "of-alice", id="the present one"),
    ],
)
async def test_an_external_id_stays_unless_it_is_named(
    crowd: Crowd, given: Body, left: tuple[str | None, list[str] | None], moved: str | None
) -> None:
    alice = await crowd.log_in("alice", unionid="union-1")
    bob = await crowd.log_in("bob", OTHER_APP)
    for person, external_id in ((alice, "of-alice"), (bob, "of-bob")):
        await crowd.give(person, external_id=external_id)
    await crowd.log_in("bob", OTHER_APP, unionid="union-1")  # WeChat sends a wrong unionid
    await crowd.log_in("bob", OTHER_APP, unionid="union-2")
    answer = await crowd.split(alice, bob, **given)
    user, new_user = answer["user"], answer["new_user"]
    assert (user["external_id"], user.get("former_external_ids")) == left
    assert (new_user["external_id"], "former_external_ids" in new_user) == (moved, False)
    token = jwt.get_unverified_claims((await crowd.log_in("bob", OTHER_APP))["access_token"])
    assert token.get("external_id") == moved


@pytest.mark.parametrize("external_id", ["of-carol", "formerly-of-carol", "of-nobody"])
async def test_an_external_id_of_somebody_else_is_refused(crowd: Crowd, external_id: str) -> None:
    alice, bob = await crowd.merged()
    carol = await crowd.log_in("carol")
    await crowd.give(carol, external_id="of-carol")
    await crowd.stage.rows.execute(
        "INSERT INTO former_external_ids (external_id, user_id) VALUES ('formerly-of-carol', $1::text::uuid)",
        id_of(carol),
    )
    before = await crowd.read(alice), await crowd.read(carol)
    problem_of(await crowd.ask_split(alice, bob, external_id=external_id), "split_refused", 409)
    assert (await crowd.read(alice), await crowd.read(carol)) == before
    assert await crowd.recorded("user.split", "session.ended") == []


# Bans of a user who is split.


@pytest.mark.parametrize("until", [None, "2099-01-02T00:00:00Z"])
@pytest.mark.parametrize("leaves", ["alice", "bob"])
async def test_a_ban_is_of_both(crowd: Crowd, leaves: str, until: str | None) -> None:
    alice, bob = await crowd.merged()
    await crowd.root.change(id_of(alice), status="disabled", reason="cheats", until=until)
    answer = await crowd.split(alice, {"alice": alice, "bob": bob}[leaves])
    assert [ban_of(answer[name]) for name in ("user", "new_user")] == [("disabled", "cheats", until)] * 2
    for person, app in (("alice", APP), ("bob", OTHER_APP)):
        problem_of(await crowd.stage.login.ask(person, app=app), "account_disabled", 403)
    told = [(kind, user_id, data) for kind, user_id, _, data in await crowd.recorded("user.split", "user.banned")]
    assert [(kind, user_id) for kind, user_id, _ in told[-2:]] == [
        ("user.split", id_of(alice)),
        ("user.banned", answer["new_user"]["id"]),
    ]
    assert told[-1][2]["reason"] == "cheats"
    if until is not None:
        crowd.stage.clock.advance(days=100 * 365)
        await lift_bans(crowd.stage.services.database, size=10, now=crowd.stage.clock())
        assert (await crowd.stage.login.ask("bob", app=OTHER_APP)).status_code == 200


# Splits that are rejected.


async def test_only_the_users_own_identity_is_taken_out_and_something_must_be_left(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice", unionid="union-alice"), await crowd.log_in("bob")
    await crowd.log_in("alice", OTHER_APP, unionid="union-alice")
    carol = await crowd.log_in("carol")
    problem_of(await crowd.ask_split(alice, alice), "split_refused", 409)
    problem_of(await crowd.ask_split(bob, bob), "split_refused", 409)
    await crowd.stage.rows.execute("INSERT INTO unionids VALUES ('union-unclaimed', $1::text::uuid)", id_of(bob))
    problem_of(await crowd.ask_split(bob, bob), "split_refused", 409)
    await crowd.merge(bob, alice)
    problem_of(await crowd.ask_split(alice, carol), "split_refused", 409)
    namesake = {"user": {**bob["user"], "app_id": OTHER_APP["app_id"]}}
    problem_of(await crowd.ask_split(alice, namesake), "split_refused", 409)
    assert openids(await crowd.read(alice)) == ["openid-a1-alice", "openid-a1-bob", "openid-b2-alice"]
    nobody = {"user": {"id": "01900000-0000-7000-8000-0000000000ff"}}
    problem_of(await crowd.ask_split(nobody, carol), "not_found", 404)


# Users who were split are not merged again.


async def test_a_late_unionid_merges_nobody_again_unless_an_operator_does(crowd: Crowd) -> None:
    alice, bob = await crowd.merged(unionid="union-1")
    bob = {"user": (await crowd.split(alice, bob))["new_user"]}
    for at in (0, 1):
        again = await crowd.log_in("bob", OTHER_APP, unionid="union-1", at=at)
        assert (id_of(again), again["user"]["unionid"]) == (id_of(bob), None)
    assert id_of(await crowd.log_in("alice", unionid="union-1")) == id_of(alice)
    ignored = [line["reason"] for line in crowd.stage.logged("unionid_ignored")]
    assert ignored == ["an administrator has split its user and this one"] * 2
    assert len(await crowd.recorded("user.merged")) == 1
    carol = await crowd.log_in("carol", THIRD_APP)
    await crowd.merge(alice, carol)
    assert id_of(await crowd.log_in("bob", OTHER_APP, unionid="union-1")) == id_of(bob), "apart from whom she became"
    await crowd.merge(bob, carol)
    again = await crowd.log_in("bob", OTHER_APP, unionid="union-1")
    assert (id_of(again), again["user"]["unionid"]) == (id_of(carol), "union-1")


@pytest.mark.parametrize("is_new", [True, False], ids=["taken out", "left behind"])
@pytest.mark.parametrize("is_holder", [True, False], ids=["the holder", "the other"])
async def test_a_late_unionid_merges_who_was_split_from_somebody_else(
    crowd: Crowd, is_holder: bool, is_new: bool
) -> None:
    holder, other = await crowd.log_in("alice", unionid="union-1"), await crowd.log_in("al", OTHER_APP)
    carol = await crowd.log_in("carol", THIRD_APP)
    one = holder if is_holder else other
    leaving, staying = (one, carol) if is_new else (carol, one)
    await crowd.merge(leaving, staying)
    await crowd.split(staying, leaving)
    joined = await crowd.read(await crowd.log_in("al", OTHER_APP, unionid="union-1"))
    assert openids(joined) == sorted([holder["user"]["openid"], other["user"]["openid"]])


async def test_a_split_user_is_no_snapshots_where_these_are_known(crowd: Crowd) -> None:
    alice, bob = await crowd.merged(unionid="union-1")
    new_id = (await crowd.split(alice, bob))["new_user"]["id"]
    whose = {"app_id": OTHER_APP["app_id"], "openid": bob["user"]["openid"], "unionid": "union-1"}
    login = Login(**whose, expires_in=None, may_sign_up=True, may_be_snapshot=True)
    entered = await record_login(crowd.stage.services.database, login, now=crowd.stage.clock())
    assert str(entered.user.id) == new_id
    assert id_of(await crowd.log_in("bob", OTHER_APP, unionid="union-bob")) == new_id, "by one of their own"


# Simultaneous splits.


@pytest.mark.slow
async def test_only_one_of_fifty_simultaneous_splits_succeeds(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    answers = await asyncio.gather(*(crowd.ask_split(alice, bob, at=number % 2) for number in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 49
    assert len(await crowd.recorded("user.split")) == 1


@pytest.mark.slow
async def test_logins_meanwhile_are_of_one_of_the_two_and_end_with_the_split(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    people = [("alice", APP), ("bob", OTHER_APP)]
    logins = [crowd.log_in(*people[number % 2], at=number % 3 % 2) for number in range(50)]
    splitting = crowd.split(alice, bob)
    answers = await asyncio.gather(*logins[:25], splitting, *logins[25:])
    new_id = answers.pop(25)["new_user"]["id"]
    for number, answer in enumerate(answers):
        person, user_id = (alice, id_of(alice)) if number % 2 == 0 else (bob, new_id)
        me = await crowd.stage.me(answer)
        if me.status_code == 200:
            assert (me.json()["id"], me.json()["openid"]) == (user_id, person["user"]["openid"])
        else:
            assert person is bob, "whose earlier sessions have ended"
            problem_of(me, "invalid_token", 401)
    assert await is_settled(crowd.stage.rows)
    assert id_of(await crowd.log_in("bob", OTHER_APP)) == new_id


async def is_settled(rows: Rows) -> bool:
    """Tell whether each session and each unionid belongs to the same user as its identity."""
    return await rows.fetchval("""
        SELECT NOT EXISTS (SELECT FROM sessions s JOIN identities i USING (app_id, openid) WHERE s.user_id <> i.user_id)
           AND NOT EXISTS (SELECT FROM identities i JOIN unionids u USING (unionid) WHERE u.user_id <> i.user_id)
           AND NOT EXISTS (SELECT FROM former_users JOIN users USING (id))
           AND NOT EXISTS (SELECT FROM users WHERE NOT EXISTS (SELECT FROM identities WHERE user_id = users.id))
    """)


async def test_a_late_unionid_during_a_split_merges_only_whom_it_names(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP)
    carol = await crowd.log_in("carol", THIRD_APP, unionid="union-carol")
    await crowd.merge(bob, alice)
    # The split waits with a lock on the user. If a login came before this lock, it would merge all three users.
    async with crowd.stage.rows.transaction():
        await crowd.stage.rows.execute("SELECT FROM identities WHERE openid = $1 FOR UPDATE", bob["user"]["openid"])
        split = asyncio.create_task(crowd.ask_split(alice, bob))
        await until_locked(crowd.stage.rows)
        late = [
            asyncio.create_task(crowd.log_in("bob", OTHER_APP, unionid="union-carol", at=number % 2))
            for number in range(10)
        ]
        await until_locked(crowd.stage.rows, 2)
    await asyncio.gather(split, *late)
    assert id_of(await crowd.log_in("bob", OTHER_APP)) == id_of(carol)
    assert await is_settled(crowd.stage.rows)


# Users' own data, and commands.


async def test_users_who_were_split_do_not_see_each_other_in_their_own_data(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    new_id = (await crowd.split(alice, bob))["new_user"]["id"]
    again = await crowd.log_in("bob", OTHER_APP)
    exports = [await crowd.stage.client.get("/v1/me/export", headers=bearer(login)) for login in (alice, again)]
    assert new_id not in exports[0].text
    for export, mine, theirs in zip(exports, (alice, again), (again, alice), strict=True):
        assert id_of(mine) in export.text
        assert theirs["user"]["openid"] not in export.text
    assert {session["id"] for session in exports[1].json()["sessions"]} == {bob["session_id"], again["session_id"]}


@pytest.mark.process
async def test_an_operator_splits_and_moves_out_and_in(crowd: Crowd, database_url: str, tmp_path: Path) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP, unionid="unionid-of-bob-0123456789")
    await crowd.give(bob, external_id="10023")
    await crowd.merge(bob, alice)
    users = make_command("users", cwd=tmp_path, env=service_env(database_url, apps=[APP, OTHER_APP]))
    identity = f"--identity={OTHER_APP['app_id']}:{bob['user']['openid']}"
    assert (await users("split", id_of(alice), identity)).returncode == 2
    done = await users("split", id_of(alice), identity, "--external-id=10024", "--yes")
    assert (done.returncode, "this external_id doesn't belong to the user" in done.stderr) == (1, True)
    done = await users("split", id_of(alice), identity, "--external-id=10023", "--yes")
    [(_, _, _, told)] = await crowd.recorded("user.split")
    new_id = told["new_user_id"]
    assert (done.returncode, [line.split() for line in done.stdout.splitlines()]) == (
        0,
        [
            ["ID", "EXTERNAL_ID", "IDENTITIES"],
            ["user", id_of(alice), "-", f"{APP['app_id']}:{alice['user']['openid']}"],
            ["new_user", new_id, "10023", f"{OTHER_APP['app_id']}:{bob['user']['openid']}"],
        ],
    )
    assert [actor for *_, actor, _ in await crowd.recorded("user.split")] == ["operator"]
    done = await users("split", id_of(alice), identity, "--yes")
    assert (done.returncode, "this identity doesn't belong to the user" in done.stderr) == (1, True)
    assert (await users("split", id_of(alice), "--identity=nonsense")).returncode == 2

    assert (await users("export", "users.jsonl")).returncode == 0
    exported = (tmp_path / "users.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "users.jsonl").write_text(
        "".join(line for line in exported if "bystander" not in line and "0fffffff-" not in line)
    )
    done = await users("import", "users.jsonl", "--json", "--allow-admin")
    assert (done.returncode, json.loads(done.stdout)["unchanged"]) == (0, 3)
    assert id_of(await crowd.log_in("bob", OTHER_APP)) == new_id
    assert id_of(await crowd.log_in("alice")) == id_of(alice)
