"""A wrong merge is undone, and stays undone."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import APP, OTHER_APP, service_env
from tests.pictures.test_thumbnails import encoded, plain
from tests.problems import problem_of
from tests.processes import make_command
from tests.world import NUMBER, Admin, Body, Client, Rows, Stage, bearer, body_of, make_admin, recorded, until_locked
from wxauth.server.login.login_queries import Login, record_login
from wxauth.server.users.consent_queries import PRESENT_CONSENTS

THIRD_APP = {"app_id": "wxthird00000000a3", "app_secret": "secret-of-the-third-app"}


def id_of(answer: Body) -> str:
    return answer["user"]["id"]


def openids(user: Body) -> list[str]:
    return sorted(identity["openid"] for identity in user["identities"])


def ban_of(user: Body) -> tuple[str, str | None, str | None]:
    return user["status"], user.get("reason"), user.get("until")


FREE = ("active", None, None)
BANNED = ("disabled", "cheats", None)
SINCE = ("disabled", "spams", "2099-01-02T00:00:00Z")


@dataclass(frozen=True, slots=True)
class Crowd:
    """People with three apps, and an administrator, at two replicas."""

    stage: Stage
    root: Admin
    other_client: Client

    async def log_in(self, person: str, app: Body = APP, *, at: int = 0, **how: Any) -> Body:
        return await self.stage.login(person, at=(self.stage.client, self.other_client)[at], app=app, **how)

    async def log_in_with_all(self, person: str, app: Body = APP, *, unionid: str | None = None) -> Body:
        """Log in somebody with a name, a picture and a consent."""
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
        """Alice, and Bob of another app, who has been merged into her."""
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


# What the split user gets, and what remains.


async def test_an_identity_that_a_merge_has_brought_gets_its_id_back(crowd: Crowd) -> None:
    alice = await crowd.log_in("alice")
    crowd.stage.clock.advance(minutes=1)
    bob = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    await crowd.merge(bob, alice)
    crowd.stage.clock.advance(minutes=1)
    again = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    assert id_of(again) == id_of(alice)
    answer = await crowd.split(bob, bob)  # whose former id means Alice
    user, new_user = answer["user"], answer["new_user"]
    assert (user["id"], openids(user), user["unionid"]) == (id_of(alice), ["openid-a1-alice"], None)
    assert "former_ids" not in user
    assert (new_user["id"], openids(new_user), new_user["unionid"]) == (id_of(bob), ["openid-b2-bob"], "union-bob")
    assert (new_user["status"], new_user["roles"], new_user["sessions"]) == ("active", [], [])
    assert (new_user["created_at"], new_user["last_login_at"]) == (bob["user"]["created_at"], user["last_login_at"])
    for login in (bob, again):
        problem_of(await crowd.stage.me(login), "invalid_token", 401)
        problem_of(await crowd.stage.refresh(login), "session_revoked", 400)
    assert (await crowd.stage.me(alice)).status_code == 200
    assert await crowd.read(bob) == new_user
    assert await crowd.read(alice) == user
    assert id_of(await crowd.log_in("bob", OTHER_APP, unionid="union-bob")) == id_of(bob)
    assert id_of(await crowd.log_in("alice")) == id_of(alice)
    ended = {"session_ids": sorted([bob["session_id"], again["session_id"]]), "reason": "administrator"}
    split = {"new_user_id": id_of(bob), "former_ids": []}
    split |= {"app_ids": [OTHER_APP["app_id"]], "kept_app_ids": [APP["app_id"]]}
    assert await crowd.recorded("user.split", "session.ended") == [
        ("session.ended", id_of(alice), crowd.root.id, ended),
        ("user.split", id_of(alice), crowd.root.id, split),
    ]


async def test_an_identity_that_came_after_the_merge_gets_a_new_id(crowd: Crowd) -> None:
    alice = await crowd.log_in("alice", unionid="union-alice")
    bob = await crowd.log_in("bob", OTHER_APP, unionid="union-bob")
    await crowd.merge(bob, alice)
    await crowd.log_in("bob", THIRD_APP, unionid="union-bob")
    answer = await crowd.split(alice, bob)
    assert openids(answer["new_user"]) == ["openid-a3-bob", "openid-b2-bob"]
    assert [answer[name]["unionid"] for name in ("user", "new_user")] == ["union-alice", "union-bob"]
    assert answer["new_user"]["id"] not in (id_of(bob), id_of(alice))
    assert ("former_ids" in answer["user"], answer["new_user"]["former_ids"]) == (False, [id_of(bob)])
    assert (await crowd.read(bob))["id"] == answer["new_user"]["id"]


# Chains of merges.


async def test_a_part_of_a_chain_of_merges_that_is_split_off_gets_a_new_id(crowd: Crowd) -> None:
    apps = {"al": APP, "bob": OTHER_APP, "carol": THIRD_APP}
    al, bob, carol = [await crowd.log_in(person, app) for person, app in apps.items()]
    for former, into in ((al, bob), (bob, carol)):
        assert (await crowd.merge(former, into)).status_code == 200
    first = await crowd.split(carol, bob)
    assert first["new_user"]["id"] not in {id_of(each) for each in (al, bob, carol)}
    assert first["user"]["former_ids"] == [id_of(al), id_of(bob)]
    second = await crowd.split(carol, al)
    assert (second["new_user"]["id"], second["user"]["former_ids"]) == (id_of(al), [id_of(bob)])


async def test_ids_and_earlier_unionids_merged_into_the_split_user_go_along(crowd: Crowd) -> None:
    bob = await crowd.log_in("bob", unionid="union-1")
    bob_there = await crowd.log_in("bob", OTHER_APP)
    await crowd.log_in("bob", unionid="union-2")  # the app has moved to another Open Platform account
    await crowd.log_in("bob", OTHER_APP, unionid="union-2")
    carol = await crowd.log_in("carol", THIRD_APP, unionid="union-carol")
    await crowd.merge(bob, carol)
    assert {*(await crowd.read(carol))["former_ids"]} == {id_of(bob_there), id_of(bob)}
    new_user = (await crowd.split(carol, bob))["new_user"]
    assert (new_user["id"], new_user["former_ids"]) == (id_of(bob), [id_of(bob_there)])
    [(_, _, _, told)] = await crowd.recorded("user.split")
    assert (told["new_user_id"], told["former_ids"]) == (id_of(bob), [id_of(bob_there)])
    assert told["app_ids"] == sorted([APP["app_id"], OTHER_APP["app_id"]])
    assert told["kept_app_ids"] == [THIRD_APP["app_id"]]
    assert new_user["unionid"] == "union-2"
    held = await crowd.stage.rows.fetch(
        "SELECT unionid FROM unionids WHERE user_id = $1::text::uuid ORDER BY 1", id_of(bob)
    )
    assert [row["unionid"] for row in held] == ["union-1", "union-2"]
    assert id_of(await crowd.log_in("bob", unionid="union-1")) == id_of(bob)
    assert (await crowd.read(bob_there))["id"] == id_of(bob)


# What each has brought goes with them.


def shown(user: Body) -> tuple[object, ...]:
    """What a user has: name, number, whether it is proved, external id and the number of consents."""
    fields = [user[name] for name in ("nickname", "phone", "phone_verified", "external_id")]
    return (*fields, len(user["consents"]))


NOTHING = (None, None, None, None, 0)


async def test_a_split_gives_back_all_that_a_merge_has_brought_and_siblings_learn_it(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in_with_all("bob", OTHER_APP)
    await crowd.give(bob, phone=NUMBER, phone_verified_at=crowd.stage.clock(), external_id="10023", roles=["editor"])
    merged = (await crowd.merge(bob, alice)).json()
    assert shown(merged) == ("Bob", NUMBER, True, "10023", 1)
    answer = await crowd.split(alice, bob)
    assert shown(answer["new_user"]) == ("Bob", NUMBER, True, "10023", 1)
    assert answer["new_user"]["avatar_url"] == "https://a.test/bob.png"
    assert (shown(answer["user"]), answer["user"]["avatar_url"]) == (NOTHING, None)
    assert [answer[name]["roles"] for name in ("user", "new_user")] == [["editor"], []]
    told = await crowd.recorded(
        *("user.split", "user.phone_removed", "user.phone_bound", "user.profile_changed"),
        *("consent.given", "consent.withdrawn"),
    )
    after = told[[kind for kind, *_ in told].index("user.split") + 1 :]
    assert [(kind, user_id, data) for kind, user_id, _, data in after] == [
        ("user.profile_changed", id_of(alice), {"fields": ["nickname", "avatar_url"]}),
        ("user.phone_removed", id_of(alice), {}),
        ("consent.withdrawn", id_of(alice), {"document": "privacy", "version": "1"}),
        ("user.phone_bound", id_of(bob), {}),
        ("consent.given", id_of(bob), {"document": "privacy", "version": "1"}),
    ]
    there = await crowd.log_in("bob", OTHER_APP)
    assert (there["user"]["external_id"], there["user"]["consents_due"]) == ("10023", [])
    assert len((await crowd.log_in("alice"))["user"]["consents_due"]) == 1


async def test_the_user_who_remained_takes_their_own_along(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in_with_all("alice"), await crowd.log_in("bob", OTHER_APP)
    await crowd.give(alice, phone=NUMBER, external_id="1")
    await crowd.give(bob, nickname=None)
    await crowd.merge(bob, alice)
    answer = await crowd.split(alice, alice)
    assert answer["new_user"]["id"] not in (id_of(alice), id_of(bob))
    assert (answer["user"]["id"], answer["user"]["former_ids"]) == (id_of(alice), [id_of(bob)])
    assert shown(answer["new_user"]) == ("Alice", NUMBER, False, "1", 1)
    assert shown(answer["user"]) == NOTHING
    assert openids(answer["user"]) == ["openid-b2-bob"]


async def test_what_an_identity_has_changed_since_the_merge_goes_with_it(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    there = await crowd.log_in_with_all("bob", OTHER_APP)
    assert id_of(there) == id_of(alice)
    answer = await crowd.split(alice, bob)
    assert (shown(answer["user"]), shown(answer["new_user"])) == (NOTHING, ("Bob", None, None, None, 1))
    await crowd.merge(bob, alice)
    here = await crowd.log_in("alice")
    await crowd.stage.client.patch("/v1/me", json={"nickname": "Alice B."}, headers=bearer(here))
    answer = await crowd.split(alice, bob)
    assert (shown(answer["user"])[0], shown(answer["new_user"])) == ("Alice B.", (None, None, None, None, 1))


async def test_an_uploaded_picture_goes_with_who_has_uploaded_it(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    there = await crowd.log_in("bob", OTHER_APP)
    files = {"file": ("a.png", encoded(plain(), "PNG"), "image/png")}
    changed = body_of(await crowd.stage.client.post("/v1/me/avatar", files=files, headers=bearer(there)))
    answer = await crowd.split(alice, bob)
    url = changed["avatar_url"]
    assert [answer[name]["avatar_url"] for name in ("user", "new_user")] == [None, url]
    assert (await crowd.stage.client.get(httpx.URL(url).path)).status_code == 200


async def test_each_of_a_chain_of_merges_gets_back_what_is_theirs(crowd: Crowd) -> None:
    al, bob = await crowd.log_in_with_all("al"), await crowd.log_in("bob", OTHER_APP)
    carol = await crowd.log_in("carol", THIRD_APP)
    await crowd.give(bob, phone=NUMBER, external_id="of-bob")
    await crowd.merge(al, bob)
    await crowd.merge(bob, carol)
    assert shown(await crowd.read(carol)) == ("Al", NUMBER, False, "of-bob", 1)
    first = await crowd.split(carol, al)
    assert (first["new_user"]["id"], first["user"]["former_ids"]) == (id_of(al), [id_of(bob)])
    assert shown(first["new_user"]) == ("Al", None, None, None, 1)
    assert shown(first["user"]) == (None, NUMBER, False, "of-bob", 0)
    second = await crowd.split(carol, bob)
    assert (second["new_user"]["id"], shown(second["new_user"])) == (id_of(bob), (None, NUMBER, False, "of-bob", 0))
    assert shown(second["user"]) == NOTHING


async def test_two_merged_users_leave_together_with_what_both_had(crowd: Crowd) -> None:
    """Bob's two identities were two users, whom WeChat's unionid has merged before the wrong merge."""
    bob, there = await crowd.log_in_with_all("bob", unionid="union-1"), await crowd.log_in("bob", OTHER_APP)
    await crowd.give(bob, external_id="one")
    await crowd.give(there, external_id="two", phone=NUMBER)
    await crowd.log_in("bob", OTHER_APP, unionid="union-1")
    carol = await crowd.log_in("carol", THIRD_APP)
    await crowd.merge(bob, carol)
    answer = await crowd.split(carol, bob)
    assert shown(answer["new_user"]) == ("Bob", NUMBER, False, "one", 1)
    assert answer["new_user"]["former_external_ids"] == ["two"]
    assert (shown(answer["user"]), "former_external_ids" in answer["user"]) == (NOTHING, False)
    assert answer["new_user"]["former_ids"] == [id_of(there)]


async def test_who_is_erased_after_a_split_leaves_nothing_with_the_other_one(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in_with_all("bob", OTHER_APP)
    await crowd.give(bob, phone=NUMBER, external_id="10023")
    await crowd.root.change(id_of(bob), status="disabled", reason="Bob has cheated")
    await crowd.merge(bob, alice)
    answer = await crowd.split(alice, bob)
    assert (ban_of(answer["user"]), answer["new_user"]["reason"]) == (FREE, "Bob has cheated")
    assert (await crowd.root.ask("DELETE", f"/users/{id_of(bob)}")).status_code == 204
    stored = await crowd.stage.rows.fetchval("""
        SELECT (SELECT jsonb_agg(to_jsonb(u)) FROM users u)::text || (SELECT jsonb_agg(to_jsonb(i)) FROM identities i)
            || (SELECT COALESCE(jsonb_agg(to_jsonb(c)), '[]') FROM consents c)
    """)
    for trace in ("Bob", "bob", NUMBER, "10023", "privacy"):
        assert trace not in stored, trace
    assert await crowd.stage.number("events WHERE data::text LIKE '%cheated%'") == 0
    assert shown(await crowd.read(alice)) == NOTHING


async def test_what_is_not_known_is_removed_from_both_or_asked_for(crowd: Crowd) -> None:
    """An import has joined two people by an external id that their table gave both."""
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP)
    ids = id_of(alice), id_of(bob)
    await crowd.stage.rows.execute(
        "UPDATE identities SET user_id = $1::text::uuid WHERE user_id = $2::text::uuid", *ids
    )
    await crowd.stage.rows.execute("DELETE FROM users WHERE id = $1::text::uuid", id_of(bob))
    await crowd.give(alice, nickname="A or B", phone=NUMBER, external_id="10023")
    await crowd.stage.rows.execute(
        """INSERT INTO consents (id, user_id, document, version, given_at, app_id)
           SELECT gen_random_uuid(), $1::text::uuid, 'privacy', '1', now(), app_id FROM unnest($2::text[]) AS app_id""",
        id_of(alice),
        [APP["app_id"], OTHER_APP["app_id"], None],
    )
    problem_of(await crowd.ask_split(alice, bob), "split_refused", 409)
    answer = await crowd.split(alice, bob, external_id=None)
    assert shown(answer["user"]) == (None, None, None, "10023", 1)
    assert shown(answer["new_user"]) == (None, None, None, None, 1)


# External ids.


@pytest.mark.slow
@pytest.mark.oldest_postgres
@pytest.mark.parametrize(
    ("given", "left", "moved"),
    [
        pytest.param({}, "of-alice", "of-bob", id="not named"),
        pytest.param({"external_id": "of-bob"}, "of-alice", "of-bob", id="the own one"),
        pytest.param({"external_id": "of-alice"}, "of-bob", "of-alice", id="the other one's"),
        pytest.param({"external_id": None}, "of-alice", None, id="none"),
    ],
)
async def test_a_former_external_id_goes_to_whose_it_was_unless_an_operator_says_otherwise(
    crowd: Crowd, given: Body, left: str, moved: str | None
) -> None:
    alice = await crowd.log_in("alice", unionid="union-1")
    bob = await crowd.log_in("bob", OTHER_APP)
    for person, external_id in ((alice, "of-alice"), (bob, "of-bob")):
        await crowd.give(person, external_id=external_id)
    await crowd.log_in("bob", OTHER_APP, unionid="union-1")  # a wrong unionid of WeChat
    await crowd.log_in("bob", OTHER_APP, unionid="union-2")
    answer = await crowd.split(alice, bob, **given)
    assert [answer[name]["external_id"] for name in ("user", "new_user")] == [left, moved]
    assert answer["user"].get("former_external_ids") == (["of-bob"] if moved is None else None)


# Refusals.


@pytest.mark.parametrize("who", ["the one merged", "the one who remained"])
@pytest.mark.parametrize("leaves", ["the one merged", "the one who remained"])
async def test_a_ban_goes_back_to_whom_it_was_given(crowd: Crowd, who: str, leaves: str) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP)
    banned = bob if who == "the one merged" else alice
    await crowd.root.change(id_of(banned), status="disabled", reason="cheats")
    answer = body_of(await crowd.merge(bob, alice))
    assert [(each["id"], ban_of(each)) for each in answer["before"]] == [
        (id_of(each), BANNED if each is banned else FREE) for each in (bob, alice)
    ]
    assert answer["earlier_bans"] == {id_of(banned): {"reason": "cheats", "until": None}}
    await crowd.root.change(id_of(alice), roles=["editor"])
    gone, left = (bob, alice) if leaves == "the one merged" else (alice, bob)
    both = await crowd.split(alice, gone)
    assert ban_of(both["new_user"]) == (BANNED if gone is banned else FREE)
    assert ban_of(both["user"]) == (BANNED if left is banned else FREE)
    assert (both["user"]["roles"], both["new_user"]["roles"]) == (["editor"], [])


async def test_a_ban_that_was_given_or_lifted_since_the_merge_is_of_the_user(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP)
    status, reason, until = SINCE
    for change, of_alice, of_bob in (
        ({"status": "active"}, FREE, FREE),
        ({"status": status, "reason": reason, "until": until}, SINCE, BANNED),
    ):
        await crowd.root.change(id_of(bob), status="disabled", reason="cheats")
        await crowd.merge(bob, alice)
        await crowd.root.change(id_of(alice), **change)
        both = await crowd.split(alice, bob)
        assert (ban_of(both["user"]), ban_of(both["new_user"])) == (of_alice, of_bob)


async def test_each_of_several_merged_users_gets_back_their_own_ban_unless_it_has_ended(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP)
    carol = await crowd.log_in("carol", THIRD_APP)
    soon = (crowd.stage.clock() + timedelta(minutes=5)).isoformat()
    for person, reason, until in ((alice, "spams", soon), (bob, "cheats", None), (carol, "begs", SINCE[2])):
        await crowd.root.change(id_of(person), status="disabled", reason=reason, until=until)
    await crowd.merge(carol, bob)
    await crowd.merge(bob, alice)
    assert ban_of(await crowd.read(alice)) == BANNED
    crowd.stage.clock.advance(minutes=5)
    both = await crowd.split(alice, carol)
    assert (ban_of(both["user"]), ban_of(both["new_user"])) == (BANNED, ("disabled", "begs", SINCE[2]))
    both = await crowd.split(alice, bob)
    assert (ban_of(both["user"]), ban_of(both["new_user"])) == (FREE, BANNED)
    told = [(kind, user_id) for kind, user_id, *_ in await crowd.recorded("user.banned", "user.unbanned")]
    assert told[-3:] == [("user.banned", id_of(carol)), ("user.unbanned", id_of(alice)), ("user.banned", id_of(bob))]


async def test_only_the_users_own_identity_is_split_off_and_something_must_be_left(crowd: Crowd) -> None:
    alice, bob = await crowd.log_in("alice", unionid="union-alice"), await crowd.log_in("bob")
    await crowd.log_in("alice", OTHER_APP, unionid="union-alice")
    carol = await crowd.log_in("carol")
    await crowd.give(carol, external_id="7")
    problem_of(await crowd.ask_split(alice, alice), "split_refused", 409)
    problem_of(await crowd.ask_split(bob, bob), "split_refused", 409)
    await crowd.merge(bob, alice)
    problem_of(await crowd.ask_split(alice, carol), "split_refused", 409)
    problem_of(await crowd.ask_split(alice, bob, external_id="7"), "split_refused", 409)
    assert openids(await crowd.read(alice)) == ["openid-a1-alice", "openid-a1-bob", "openid-b2-alice"]
    nobody = {"user": {"id": "01900000-0000-7000-8000-0000000000ff"}}
    problem_of(await crowd.ask_split(nobody, carol), "not_found", 404)


# It stays undone.


async def test_a_late_unionid_merges_nobody_again_unless_an_operator_does(crowd: Crowd) -> None:
    alice, bob = await crowd.merged(unionid="union-1")
    await crowd.split(alice, bob)
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


async def test_a_split_user_is_no_snapshots_where_these_are_known(crowd: Crowd) -> None:
    alice, bob = await crowd.merged(unionid="union-1")
    await crowd.split(alice, bob)
    whose = {"app_id": OTHER_APP["app_id"], "openid": bob["user"]["openid"], "unionid": "union-1"}
    login = Login(**whose, expires_in=None, may_sign_up=True, may_be_snapshot=True)
    entered = await record_login(crowd.stage.services.database, login, now=crowd.stage.clock())
    assert str(entered.user.id) == id_of(bob)
    assert id_of(await crowd.log_in("bob", OTHER_APP, unionid="union-bob")) == id_of(bob), "by one of their own"


# Many at once.


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
    answers = [each for each in await asyncio.gather(*logins[:25], splitting, *logins[25:]) if "access_token" in each]
    for number, answer in enumerate(answers):
        person = alice if number % 2 == 0 else bob
        me = await crowd.stage.me(answer)
        if me.status_code == 200:
            assert (me.json()["id"], me.json()["openid"]) == (id_of(person), person["user"]["openid"])
        else:
            assert person is bob, "whose earlier sessions have ended"
            problem_of(me, "invalid_token", 401)
    assert await is_settled(crowd.stage.rows)
    assert id_of(await crowd.log_in("bob", OTHER_APP)) == id_of(bob)


async def is_settled(rows: Rows) -> bool:
    """Whether each session and each unionid of an identity is that identity's user's."""
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
    async with crowd.stage.rows.transaction():  # the split waits, holding the user: a login before would merge all
        await crowd.stage.rows.execute("SELECT FROM former_users WHERE id = $1::text::uuid FOR UPDATE", id_of(bob))
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


# Own data, and commands.


async def test_users_who_were_split_do_not_see_each_other_in_their_own_data(crowd: Crowd) -> None:
    alice, bob = await crowd.merged()
    await crowd.split(alice, bob)
    again = await crowd.log_in("bob", OTHER_APP)
    exports = [await crowd.stage.client.get("/v1/me/export", headers=bearer(login)) for login in (alice, again)]
    for export, mine, theirs in zip(exports, (alice, bob), (bob, alice), strict=True):
        assert id_of(mine) in export.text
        assert id_of(theirs) not in export.text
        assert theirs["user"]["openid"] not in export.text
    assert {session["id"] for session in exports[1].json()["sessions"]} == {bob["session_id"], again["session_id"]}


@pytest.mark.process
async def test_an_operator_splits_and_moves_out_and_in(crowd: Crowd, database_url: str, tmp_path: Path) -> None:
    alice, bob = await crowd.log_in("alice"), await crowd.log_in("bob", OTHER_APP, unionid="unionid-of-bob-0123456789")
    await crowd.merge(bob, alice)
    users = make_command("users", cwd=tmp_path, env=service_env(database_url, apps=[APP, OTHER_APP]))
    identity = f"--identity={OTHER_APP['app_id']}:{bob['user']['openid']}"
    assert (await users("split", id_of(alice), identity)).returncode == 2
    done = await users("split", id_of(alice), identity, "--yes")
    assert (done.returncode, [line.split() for line in done.stdout.splitlines()]) == (
        0,
        [
            ["ID", "EXTERNAL_ID", "IDENTITIES"],
            ["user", id_of(alice), "-", f"{APP['app_id']}:{alice['user']['openid']}"],
            ["new_user", id_of(bob), "-", f"{OTHER_APP['app_id']}:{bob['user']['openid']}"],
        ],
    )
    assert [actor for *_, actor, _ in await crowd.recorded("user.split")] == ["operator"]
    done = await users("split", id_of(alice), identity, "--yes")
    assert (done.returncode, "no such identity" in done.stderr) == (1, True)
    assert (await users("split", id_of(alice), "--identity=nonsense")).returncode == 2

    assert (await users("export", "users.jsonl")).returncode == 0
    done = await users("import", "users.jsonl", "--json", "--allow-admin")
    assert (done.returncode, json.loads(done.stdout)["unchanged"]) == (0, 3)
    assert id_of(await crowd.log_in("bob", OTHER_APP)) == id_of(bob)
    assert id_of(await crowd.log_in("alice")) == id_of(alice)
