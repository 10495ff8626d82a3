"""Two users are merged if both have verified the same phone number, or if an operator merges them."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import httpx
import pytest

from tests.metrics import scrape
from tests.pictures.samples import encoded, plain
from tests.problems import problem_of
from tests.processes import Command
from tests.world import (
    NOBODY,
    NUMBER,
    Admin,
    Body,
    Stage,
    bearer,
    behind,
    body_of,
    leave,
    make_admin,
    recorded,
    set_roles,
)
from wxauth_desk.wechat import APPS, Simulator

pytestmark = pytest.mark.usefixtures("bystander")

LEFT = "user_authorization_cancellation"
FIRST, SECOND = (app["app_id"] for app in APPS)


async def enter(
    stage: Stage, person: str = "alice", app_id: str = FIRST, *, has_unionid: bool = False, **fields: object
) -> Body:
    """Log in to a mini-program. By default, WeChat's response contains no unionid."""
    code = stage.code(person, app_id=app_id, has_unionid=has_unionid)
    return await stage.login(code, app_id=app_id, **fields)


async def enter_with_number(stage: Stage, person: str = "alice", app_id: str = FIRST, **fields: Any) -> Body:
    return await enter(stage, person, app_id, phone_code=stage.phone_code(person, app_id=app_id), **fields)


async def verify(stage: Stage, login: Body, person: str = "alice", app_id: str = FIRST) -> httpx.Response:
    return await stage.bind(login, stage.phone_code(person, app_id=app_id))


async def entered_root(stage: Stage) -> Admin:
    return await make_admin(stage.client, stage.rows, await enter(stage, "root"))


@pytest.fixture
async def linking(stage: Stage, simulated: Simulator) -> Stage:
    """Return a replica that merges two users who have verified the same phone number."""
    return await stage.replica(phone_policy="link")


async def users(seen: Stage) -> set[str]:
    return {row["id"] for row in await seen.rows.fetch("SELECT id::text FROM users")}


async def merges(seen: Stage) -> list[tuple[str, str, str]]:
    return await seen.rows.fetch("""
        SELECT user_id::text, data ->> 'former_id', COALESCE(data ->> 'by', 'unionid') FROM events
         WHERE type = 'user.merged' ORDER BY id
    """)


# Merges by phone number.


async def test_a_new_user_who_verifies_a_number_becomes_its_holder(linking: Stage) -> None:
    alice = await enter(linking, nickname="Alice")
    await verify(linking, alice)
    newcomer = await enter(linking, app_id=SECOND, nickname="A.")
    await set_roles(linking.rows, "editor", user_id=newcomer["user"]["id"])
    bound = body_of(await verify(linking, newcomer, app_id=SECOND))
    shown = [bound[name] for name in ("id", "nickname", "phone", "app_id", "roles")]
    assert shown == [alice["user"]["id"], "Alice", NUMBER, SECOND, []]
    assert await users(linking) == {alice["user"]["id"]}
    assert await merges(linking) == [(alice["user"]["id"], newcomer["user"]["id"], "phone")]
    problem_of(await linking.client.get("/v1/me", headers=bearer(newcomer)), "invalid_token", 401)
    refreshed = await linking.client.post("/v1/refresh", json={"refresh_token": newcomer["refresh_token"]})
    assert refreshed.json()["user"]["id"] == alice["user"]["id"]


async def test_a_login_with_the_number_returns_its_holder_at_once(linking: Stage) -> None:
    alice = await enter_with_number(linking)
    there = await enter_with_number(linking, app_id=SECOND)
    assert (there["user"]["id"], there["is_new_user"], "phone_error" in there) == (alice["user"]["id"], False, False)
    assert await linking.user(there) == there["user"]
    assert len(await users(linking)) == 1


@pytest.mark.parametrize("has_unionid", [True, False], ids=["the newcomer", "the holder"])
async def test_one_of_the_two_may_have_a_unionid(linking: Stage, has_unionid: bool) -> None:
    alice = await enter_with_number(linking, has_unionid=not has_unionid)
    there = await enter_with_number(linking, app_id=SECOND, has_unionid=has_unionid)
    assert (there["user"]["id"], await linking.number("users")) == (alice["user"]["id"], 1)
    assert await linking.number("unionids") == 1


@pytest.mark.slow
async def test_fifty_phones_at_once_end_in_one_user(linking: Stage) -> None:
    alice = await enter_with_number(linking)
    answers = await asyncio.gather(*(enter_with_number(linking, app_id=SECOND) for _ in range(50)))
    assert {"rate_limited"} >= {answer["phone_error"] for answer in answers if "phone_error" in answer}
    assert (await enter(linking, app_id=SECOND))["user"]["id"] == alice["user"]["id"]
    assert await users(linking) == {alice["user"]["id"]}


HOLDER = "UPDATE users SET {} WHERE phone IS NOT NULL"
NEWCOMER = "UPDATE users SET {} WHERE phone IS NULL"
IDENTITY = (
    "INSERT INTO identities (app_id, openid, user_id, created_at)"
    " SELECT '{}', 'another', id, now() FROM users WHERE phone IS {}"
)


# The cases in which a shared number merges nobody. Each value is the SQL statement that sets up the case.
PROTECTED = {
    "who has a role": HOLDER.format("roles = '{editor}'"),
    "who is banned": HOLDER.format("status = 'disabled'"),
    "who is leaving": HOLDER.format("erase_at = now() + interval '7 days'"),
    "who verified it long ago": HOLDER.format("phone_verified_at = phone_verified_at - interval '61 days'"),
    "by who came before": NEWCOMER.format("created_at = created_at - interval '25 hours'"),
    "by an administrator": NEWCOMER.format("roles = '{admin}'"),
    "with two unionids": "UPDATE users SET unionid = 'union-' || id",
    "with two external ids": "UPDATE users SET external_id = id",
    "by who has two identities": IDENTITY.format("wxthird", "NULL"),
    "with an app in common": IDENTITY.format(SECOND, "NOT NULL"),
    "who shares the number": (
        "INSERT INTO users (id, phone, phone_verified_at, created_at)"
        " SELECT gen_random_uuid(), phone, now(), now() FROM users WHERE phone IS NOT NULL"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", PROTECTED.values(), ids=PROTECTED)
async def test_a_number_does_not_merge_a_protected_user(linking: Stage, change: str) -> None:
    await enter_with_number(linking)
    newcomer = await enter(linking, app_id=SECOND)
    await linking.rows.execute(change)
    before = await users(linking)
    problem_of(await verify(linking, newcomer, app_id=SECOND), "phone_taken", 409)
    assert await users(linking) == before
    assert await merges(linking) == []


@pytest.mark.oldest_postgres
async def test_an_imported_number_does_not_merge_users(linking: Stage) -> None:
    alice = await enter_with_number(linking)
    await linking.rows.execute("UPDATE users SET phone_verified_at = NULL")
    newcomer = await enter_with_number(linking, app_id=SECOND)
    assert newcomer["user"]["id"] != alice["user"]["id"]
    assert newcomer["user"]["phone"] == NUMBER, "who verifies it takes it"


async def test_an_imported_number_of_somebody_else_is_no_obstacle(linking: Stage) -> None:
    alice = await enter_with_number(linking)
    await enter(linking, "carol")
    await linking.rows.execute("UPDATE users SET phone = $1 WHERE phone IS NULL", NUMBER)
    assert (await enter_with_number(linking, app_id=SECOND))["user"]["id"] == alice["user"]["id"]


@pytest.mark.usefixtures("simulated")
async def test_the_days_are_the_operators(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="link", link_phone_days=7)
    alice = await enter_with_number(stage)
    stage.clock.advance(days=7, seconds=1)
    late = await enter_with_number(stage, app_id=SECOND)
    assert late["phone_error"] == "phone_taken"
    again = await verify(stage, await enter(stage))
    assert again.json()["id"] == alice["user"]["id"], "who had verified the same number before"
    assert (await verify(stage, late, app_id=SECOND)).json()["id"] == alice["user"]["id"]


async def test_a_holder_cannot_keep_an_account_warm_for_the_next_owner_of_the_number(linking: Stage) -> None:
    """Use the account of a holder who has given up the number, without a new tap on the phone button."""
    code = linking.phone_code()
    holder = await enter(linking, phone_code=code)
    for days in (6, 1, 30, 30):
        linking.clock.advance(days=days)
        holder = await enter(linking, nickname=f"day {days}", phone_code=code)
        await linking.bind(holder, code)
    assert (await enter_with_number(linking, "bob", SECOND))["phone_error"] == "phone_taken"
    assert await merges(linking) == []


@pytest.mark.usefixtures("simulated")
async def test_a_number_is_as_old_as_its_tap_however_late_it_is_bound(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="link", link_phone_days=3)
    alice = await enter_with_number(stage)
    code = stage.phone_code("bob")
    assert (await enter(stage, "bob", phone_code=code))["phone_error"] == "phone_taken"
    stage.clock.advance(days=4)
    alice = await enter(stage)
    assert (await leave(stage.client, alice)).status_code == 204
    assert (await enter(stage, "bob", phone_code=code))["user"]["phone"] == NUMBER
    assert (await enter_with_number(stage, "carol", SECOND))["phone_error"] == "phone_taken"


# Merges by an operator.


async def test_the_remaining_user_keeps_their_values(stage: Stage, root: Admin) -> None:
    alice, bob = await stage.login("alice", nickname="Alice"), await stage.login("bob", nickname="Bob")
    ids = [answer["user"]["id"] for answer in (alice, bob)]
    await stage.rows.execute(
        "UPDATE users SET unionid = 'union-' || nickname, phone = '+861380013800' || length(nickname),"
        " roles = ARRAY [lower(nickname)] WHERE nickname IN ('Alice', 'Bob')"
    )
    await stage.rows.execute("UPDATE users SET external_id = '10023' WHERE nickname = 'Bob'")
    remaining = (await root.merge(ids[0], into=ids[1])).json()
    shown = [remaining[name] for name in ("id", "nickname", "unionid", "phone", "external_id", "roles")]
    assert shown == [ids[1], "Bob", "union-Bob", "+8613800138003", "10023", ["alice", "bob"]]
    assert {identity["openid"] for identity in remaining["identities"]} == {"openid-a1-alice", "openid-a1-bob"}
    held = await stage.rows.fetch("SELECT unionid FROM unionids WHERE user_id = $1::text::uuid ORDER BY 1", ids[1])
    assert held == [("union-Alice",), ("union-Bob",)]
    assert await merges(stage) == [(ids[1], ids[0], "operator")]
    assert await stage.rows.fetchval("SELECT actor FROM events WHERE type = 'user.merged'") == root.id
    assert (await stage.login("alice"))["user"]["id"] == ids[1]


Number = tuple[str | None, str | None]
"""A phone number, and the day on which the user verified it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formers", "remaining", "verified_at"),
    [
        ((NUMBER, "2026-11-01"), (NUMBER, "2026-10-01"), "2026-11-01"),
        ((NUMBER, "2026-10-01"), (NUMBER, "2026-11-01"), "2026-11-01"),
        ((NUMBER, "2026-11-01"), (NUMBER, None), "2026-11-01"),
        ((NUMBER, None), (NUMBER, "2026-11-01"), "2026-11-01"),
        ((NUMBER, "2026-11-01"), (None, None), "2026-11-01"),
        ((NUMBER, "2026-11-01"), ("+85291234567", "2026-10-01"), "2026-10-01"),
        ((NUMBER, "2026-11-01"), ("+85291234567", None), None),
        ((None, None), (NUMBER, None), None),
    ],
)
async def test_the_later_proof_of_the_same_number_counts_and_else_the_remaining_users_number(
    stage: Stage, root: Admin, formers: Number, remaining: Number, verified_at: str | None
) -> None:
    ids = [(await stage.login(name))["user"]["id"] for name in ("alice", "bob")]
    for user_id, (number, at) in zip(ids, (formers, remaining), strict=True):
        give = "UPDATE users SET phone = $2, phone_verified_at = $3::text::timestamptz WHERE id::text = $1"
        await stage.rows.execute(give, user_id, number, at)
    await root.merge(ids[0], into=ids[1])
    kept = "SELECT phone, to_char(phone_verified_at, 'YYYY-MM-DD') FROM users WHERE id::text = $1"
    assert await stage.rows.fetchrow(kept, ids[1]) == (remaining[0] or formers[0], verified_at)


@pytest.mark.own_database
async def test_a_merge_locks_administrators_and_others_in_one_order(stage: Stage, root: Admin) -> None:
    """Check the order of the locks, because transactions that lock users in different orders can deadlock."""
    alice, bob = [(await stage.login(person))["user"]["id"] for person in ("alice", "bob")]
    await set_roles(stage.rows, "admin", user_id=bob)
    lock = "SELECT FROM users WHERE id = '{}' FOR UPDATE NOWAIT".format
    merged = await behind(stage.rows, root.merge(alice, into=bob), lock(alice), then=lock(bob))
    assert merged.status_code == 200


async def test_a_merge_that_makes_no_sense_or_would_lose_something_is_refused(stage: Stage, root: Admin) -> None:
    ids = alice, bob, carol = [
        (await stage.login(name, nickname=name))["user"]["id"] for name in ("alice", "bob", "carol")
    ]
    await stage.rows.execute("UPDATE users SET external_id = nickname WHERE nickname IN ('alice', 'bob')")
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE nickname = 'carol'")
    nobody = str(NOBODY)
    for former, into, code in (
        *((alice, alice, "merge_refused"), (alice, bob, "merge_refused"), (bob, alice, "merge_refused")),
        *((alice, nobody, "not_found"), (nobody, alice, "not_found"), (carol, root.id, "last_admin")),
    ):
        problem_of(await root.merge(former, into=into), code, 404 if code == "not_found" else 409)
    assert set(ids) < await users(stage)
    assert (await root.merge(carol, into=alice)).status_code == 200
    for former, into in ((carol, alice), (alice, carol)):
        problem_of(await root.merge(former, into=into), "merge_refused", 409)


@pytest.mark.slow
async def test_fifty_merges_crosswise_at_once_end_in_one_user(stage: Stage, root: Admin) -> None:
    people = [(await stage.login(f"person-{n}"))["user"]["id"] for n in range(10)]
    random = Random(7)
    pairs = [*pairwise(people), *pairwise(reversed(people))]
    pairs += [tuple(random.sample(people, 2)) for _ in range(50 - len(pairs))]
    random.shuffle(pairs)
    answers = await asyncio.gather(*(root.merge(pair[0], into=pair[1]) for pair in pairs))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [409] * 41
    assert len(await users(stage) - {root.id}) == 1
    assert len(await merges(stage)) == 9


@pytest.mark.process
async def test_an_operator_merges_by_a_command(stage: Stage, users: Command) -> None:
    alice, bob = [(await stage.login(name))["user"]["id"] for name in ("alice", "bob")]
    refused = await users("merge", alice, bob)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert (await users("merge", alice, bob, "--yes")).stdout == f"{alice} was merged into {bob}, roles: -\n"
    assert await stage.rows.fetchval("SELECT actor FROM events WHERE type = 'user.merged'") == "operator"
    for former, said in ((alice, "these two users are already one user"), (str(NOBODY), "doesn't exist")):
        done = await users("merge", former, bob, "--yes")
        assert (done.returncode, said in done.stderr) == (1, True)
    carol = (await stage.login("carol", nickname="Carol"))["user"]["id"]
    await set_roles(stage.rows, "editor", user_id=bob)
    await users("ban", carol, "--reason", "cheats", "--until", "2099-01-02T00:00:00Z")
    done = await users("merge", carol, bob, "--yes")
    assert done.stdout.splitlines() == [
        f"{carol} was merged into {bob}, roles: editor",
        f"{carol}: Carol, roles: -, banned until 2099-01-02T00:00+00:00: cheats",
        f"{bob}: -, roles: editor",
    ]


# Users who close one of their WeChat accounts.


async def test_merges_are_counted_by_their_source(linking: Stage) -> None:
    async def counted() -> list[float | None]:
        scraped = await scrape(linking.client)
        return [scraped("wxauth_merges_total", by=source) for source in ("unionid", "phone", "operator")]

    assert await counted() == [0, 0, 0]
    alice = await enter_with_number(linking)
    await enter_with_number(linking, app_id=SECOND)
    assert await counted() == [0, 1, 0]
    for app_id, has_unionid in ((FIRST, False), (SECOND, True), (FIRST, True)):
        bob = await enter(linking, "bob", app_id, has_unionid=has_unionid)
    assert await counted() == [1, 1, 0]
    root = await make_admin(linking.client, linking.rows, bob)
    assert (await root.merge(alice["user"]["id"], into=root.id)).status_code == 200
    assert await counted() == [1, 1, 1]


@pytest.mark.oldest_postgres
async def test_a_closed_account_of_a_user_merged_by_number_is_erased_alone(linking: Stage) -> None:
    alice = await enter_with_number(linking, has_unionid=True)
    there = await enter_with_number(linking, app_id=SECOND)
    assert there["user"]["id"] == alice["user"]["id"]
    await linking.push_about(alice, LEFT)
    assert await linking.rows.fetch("SELECT id::text, unionid FROM users") == [(alice["user"]["id"], None)]
    assert await linking.rows.fetch("SELECT app_id FROM identities") == [(SECOND,)]
    assert await linking.number("unionids") == 0
    await linking.push_about(there, LEFT)
    assert await users(linking) == set()
    told = "SELECT type, data -> 'session_ids' ->> 0 FROM events WHERE actor = 'wechat' ORDER BY at, id"
    assert await linking.rows.fetch(told) == [
        ("session.ended", alice["session_id"]),
        ("identity.removed", None),
        ("user.phone_removed", None),
        ("session.ended", there["session_id"]),
        ("user.erased", None),
    ]


async def test_a_closed_account_of_a_user_whom_an_import_joined_is_erased_alone(linking: Stage) -> None:
    alice = await enter(linking, has_unionid=True)
    there = await enter(linking, "bob", SECOND, has_unionid=True)
    alice_id, bob_id = alice["user"]["id"], there["user"]["id"]
    # An import of two lines with the same external_id leaves such rows, and records no event of a merge.
    await linking.rows.execute("UPDATE identities SET user_id = $1::text::uuid WHERE app_id = $2", alice_id, SECOND)
    await linking.rows.execute("UPDATE unionids SET user_id = $1::text::uuid", alice_id)
    await linking.rows.execute("DELETE FROM users WHERE id = $1::text::uuid", bob_id)
    await linking.push_about(there, LEFT)
    assert await users(linking) == {alice_id}
    assert await linking.rows.fetch("SELECT app_id FROM identities") == [(FIRST,)]
    await linking.push_about(alice, LEFT)
    assert await users(linking) == set()


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("leaves", ["bob", "alice"])
async def test_what_may_be_a_closed_accounts_is_cleared_and_the_rest_stays(stage: Stage, leaves: str) -> None:
    """Close one of two accounts that an operator has merged.

    wxauth does not know which account the nickname and the phone number came from, so it clears them.
    """
    stage = await stage.replica(consents="privacy:1")
    root = await entered_root(stage)
    alice = await enter(stage, nickname="Alice", consents={"privacy": "1"})
    given: Body = {"avatar_url": "https://a.test/bob.png", "consents": {"privacy": "1"}}
    bob = await enter(stage, "bob", SECOND, nickname="Bob", **given)
    assert (await verify(stage, bob, "bob", SECOND)).status_code == 200
    bob_id, alice_id = bob["user"]["id"], alice["user"]["id"]
    await stage.rows.execute("UPDATE users SET external_id = '10023' WHERE id = $1::text::uuid", bob_id)
    await stage.rows.execute(
        "INSERT INTO refusals (id, at, code, user_id, network, request_id)"
        " VALUES (gen_random_uuid(), now(), 'phone_taken', $1::text::uuid, '203.0.113.0/24', 'of-bob')",
        bob_id,
    )
    await root.change(bob_id, status="disabled", reason="Bob has cheated")
    assert (await root.merge(bob_id, into=alice_id)).status_code == 200
    await stage.push_about(bob if leaves == "bob" else alice, LEFT)
    user = await root.read(f"/users/{alice_id}")
    assert [user[name] for name in ("nickname", "avatar_url", "phone", "phone_verified")] == [None] * 4
    assert (user["external_id"], len(user["consents"]), user["former_ids"]) == ("10023", 2, [bob_id])
    assert (user["status"], user["reason"]) == ("disabled", "Bob has cheated")
    assert [identity["app_id"] for identity in user["identities"]] == [FIRST if leaves == "bob" else SECOND]
    assert await stage.number("refusals") == 1
    told = await recorded(stage.rows, "type, data", "actor = 'wechat' AND type LIKE 'user.%'")
    assert told == [("user.profile_changed", {"fields": ["nickname", "avatar_url"]}), ("user.phone_removed", {})]


@pytest.mark.usefixtures("simulated")
async def test_other_services_learn_what_is_lost_with_a_closed_account(stage: Stage) -> None:
    """Check the events, because a service that only reads the feed would still count Alice as a user of Bob's app."""
    stage = await stage.replica(consents="privacy:2,terms:3")
    root = await entered_root(stage)
    alice = await enter(stage, consents={"privacy": "2"})
    bob = await enter(stage, "bob", SECOND, consents={"terms": "3"})
    assert (await verify(stage, bob, "bob", SECOND)).status_code == 200
    await root.merge(bob["user"]["id"], into=alice["user"]["id"])
    await stage.push_about(bob, LEFT)
    of_alice = "actor = 'wechat' AND user_id = $1"
    assert await recorded(stage.rows, "type, app_id, data", of_alice, alice["user"]["id"]) == [
        ("session.ended", None, {"reason": "erased", "session_ids": [bob["session_id"]]}),
        ("identity.removed", SECOND, {}),
        ("user.phone_removed", None, {}),
    ]
    user = await root.read(f"/users/{alice['user']['id']}")
    assert sorted(each["document"] for each in user["consents"]) == ["privacy", "terms"]


async def test_a_merge_by_number_does_not_renew_the_proof_of_its_holder(linking: Stage) -> None:
    """Check when the number was verified.

    If a merge renewed this time, the next owner of the number could be merged long after the holder had proved it.
    """
    alice = await enter_with_number(linking)
    linking.clock.advance(days=50)
    assert (await enter_with_number(linking, "bob", SECOND))["user"]["id"] == alice["user"]["id"]
    verified_at = await linking.rows.fetchval("SELECT phone_verified_at FROM users")
    assert linking.clock() - verified_at == timedelta(days=50)


async def split(root: Admin, user: Body, login: Body) -> Body:
    """Split the identity of this login from the user."""
    identity = {name: login["user"][name] for name in ("app_id", "openid")}
    return (await root.ask("POST", f"/users/{user['user']['id']}/split", json=identity)).json()


FIRST_PROOF, SECOND_PROOF = 1, 2
"""The minutes after the start of the test at which the first and the second user prove the number."""


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize(
    ("provers", "leaves", "proved_at"),
    [
        pytest.param(["alice"], "alice", None, id="only who leaves"),
        pytest.param(["alice"], "bob", FIRST_PROOF, id="only who stays"),
        pytest.param(["alice", "bob"], "alice", SECOND_PROOF, id="both, last who stays"),
        pytest.param(["alice", "bob"], "bob", FIRST_PROOF, id="both, last who leaves"),
    ],
)
async def test_a_number_goes_if_only_who_leaves_has_proved_it(
    stage: Stage, provers: list[str], leaves: str, proved_at: int | None
) -> None:
    stage = await stage.replica(phone_policy="share")
    began, root = stage.clock(), await entered_root(stage)
    logins = {"alice": await enter(stage), "bob": await enter(stage, "bob", SECOND)}
    for person in provers:
        stage.clock.advance(minutes=1)
        assert (await verify(stage, logins[person], person, logins[person]["user"]["app_id"])).status_code == 200
    alice, bob = logins.values()
    await root.merge(bob["user"]["id"], into=alice["user"]["id"])
    answer = await split(root, alice, logins[leaves])
    assert (answer["new_user"]["phone"], answer["new_user"]["phone_verified"]) == (None, None)
    assert (answer["user"]["phone"], answer["user"]["phone_verified"]) == (
        (NUMBER, True) if proved_at else (None, None)
    )
    stored = await stage.rows.fetchrow(
        "SELECT phone, phone_verified_at FROM users WHERE id = $1::text::uuid", alice["user"]["id"]
    )
    assert stored == ((NUMBER, began + timedelta(minutes=proved_at)) if proved_at else (None, None))
    assert await stage.number("identities WHERE phone_proved_at IS NOT NULL") == bool(proved_at)
    told = await recorded(stage.rows, "type, user_id, actor, data", "type = 'user.phone_removed'")
    assert told == ([] if proved_at else [("user.phone_removed", alice["user"]["id"], root.id, {})])


@pytest.mark.parametrize("leaves", ["alice", "bob"])
async def test_a_number_of_a_file_that_nobody_has_proved_stays(linking: Stage, leaves: str) -> None:
    root, alice, bob = await entered_root(linking), await enter(linking), await enter(linking, "bob", SECOND)
    await root.merge(bob["user"]["id"], into=alice["user"]["id"])
    await linking.rows.execute("UPDATE users SET phone = $1 WHERE id = $2::text::uuid", NUMBER, alice["user"]["id"])
    answer = await split(root, alice, {"alice": alice, "bob": bob}[leaves])
    assert [answer[name]["phone"] for name in ("user", "new_user")] == [NUMBER, None]


async def test_a_number_stays_if_who_leaves_has_proved_another_one_last(linking: Stage) -> None:
    alice, bob = await enter_with_number(linking), await enter(linking, "bob", SECOND)
    linking.clock.advance(minutes=1)
    code = linking.phone_code("bob", app_id=SECOND, phone="+85291234567")
    assert (await linking.bind(bob, code)).status_code == 200
    root = await entered_root(linking)
    await root.merge(bob["user"]["id"], into=alice["user"]["id"])
    answer = await split(root, alice, bob)
    assert [answer[name]["phone"] for name in ("user", "new_user")] == [NUMBER, None]


@pytest.mark.parametrize("is_erased", [False, True])
async def test_a_former_external_id_replaces_no_removed_one_at_a_parting(linking: Stage, is_erased: bool) -> None:
    root, carol = await entered_root(linking), await enter(linking, "carol")
    await enter(linking)
    there = await enter(linking, app_id=SECOND, has_unionid=True)
    await linking.rows.execute("UPDATE users SET external_id = id")
    await enter(linking, has_unionid=True)
    await linking.rows.execute("UPDATE users SET external_id = NULL")
    assert (await root.merge(carol["user"]["id"], into=there["user"]["id"])).status_code == 200
    await (linking.push_about(carol, LEFT) if is_erased else split(root, there, carol))
    user = await root.read(f"/users/{there['user']['id']}")
    left = len(user["identities"]), user["external_id"], len(user.get("former_external_ids", []))
    assert left == (2, None, 1)


async def test_a_number_does_not_merge_again_who_was_taken_out(linking: Stage) -> None:
    alice = await enter_with_number(linking)
    linking.clock.advance(minutes=1)  # Alice's user is still new enough to be merged by a number
    bob = await enter_with_number(linking, "bob", SECOND)
    assert bob["user"]["id"] == alice["user"]["id"]
    answer = await split(await entered_root(linking), alice, bob)
    assert [answer[name]["phone"] for name in ("user", "new_user")] == [NUMBER, None], "which both have proved"
    again = await enter_with_number(linking, "bob", SECOND)
    assert (again["user"]["id"], again["phone_error"]) == (answer["new_user"]["id"], "phone_taken")
    again = await enter_with_number(linking)
    assert (again["user"]["id"], "phone_error" in again) == (alice["user"]["id"], False)


async def test_a_user_joined_by_wechat_itself_is_erased_completely(linking: Stage) -> None:
    alice = await enter(linking)
    there = await enter(linking, app_id=SECOND, has_unionid=True)
    await enter(linking, has_unionid=True)
    # An identity that was imported without a unionid looks like this.
    await linking.rows.execute("UPDATE identities SET unionid = NULL WHERE app_id = $1", alice["user"]["app_id"])
    await linking.push_about(there, LEFT)
    assert await users(linking) == set()


async def test_an_uploaded_picture_goes_to_the_user_who_remains(linking: Stage) -> None:
    alice, bob, root = await enter(linking), await enter(linking, "bob", SECOND), await entered_root(linking)
    files = {"file": ("a.png", encoded(plain(), "PNG"), "image/png")}
    url = body_of(await linking.client.post("/v1/me/avatar", files=files, headers=bearer(bob)))["avatar_url"]
    merged = body_of(await root.merge(bob["user"]["id"], into=alice["user"]["id"]))
    assert merged["avatar_url"] == url
    assert (await linking.client.get(httpx.URL(url).path)).status_code == 200
    assert str(await linking.rows.fetchval("SELECT user_id FROM avatars")) == alice["user"]["id"]
