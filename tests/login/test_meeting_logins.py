"""A person remains one user, however many logins arrive at the same time in however many apps."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.database_proxy import PATIENT, Proxy
from tests.fakes import APP, OTHER_APP
from tests.world import HOLD_USERS, LogIn, Rows, Stage, behind, body_of, recorded, until_locked
from wxauth.login import login_queries
from wxauth.service.build import Timeouts

pytestmark = pytest.mark.oldest_postgres

APP_ID, OTHER_APP_ID = APP["app_id"], OTHER_APP["app_id"]
UNION = "union-alice"


def user_ids(answers: list[dict[str, Any]]) -> set[str]:
    return {answer["user"]["id"] for answer in answers}


async def people(rows: Rows) -> tuple[int, ...]:
    """Return the numbers of users, identities and sessions."""
    tables = ("users", "identities", "sessions")
    return tuple([await rows.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


@pytest.mark.slow
@pytest.mark.parametrize(("unionid", "apps"), [(None, [APP]), (UNION, [APP]), (UNION, [APP, OTHER_APP])])
async def test_simultaneous_first_logins_make_one_user(
    login: LogIn, rows: Rows, unionid: str | None, apps: list[dict[str, Any]]
) -> None:
    answers = await asyncio.gather(*(login(unionid=unionid, app=app) for app in apps for _ in range(100)))
    assert len(user_ids(answers)) == 1
    assert sum(answer["is_new_user"] for answer in answers) == 1
    assert await people(rows) == (1, len(apps), 100 * len(apps))


async def test_a_first_login_waits_for_a_login_with_the_same_unionid_and_joins_its_user(stage: Stage) -> None:
    async with stage.rows.transaction():
        holder = await stage.rows.fetchval(
            "INSERT INTO users (id, unionid, created_at, last_login_at)"
            " VALUES (gen_random_uuid(), $1, now(), now()) RETURNING id::text",
            UNION,
        )
        entering = asyncio.create_task(stage.login(unionid=UNION))
        await until_locked(stage.rows)
    answer = await entering
    assert (answer["user"]["id"], answer["is_new_user"]) == (holder, False)
    assert (await people(stage.rows))[:2] == (1, 1)


async def test_a_first_login_waiting_for_a_unionid_does_not_block_the_person_who_gets_the_unionid(stage: Stage) -> None:
    """Check the lock, because two logins that wait for each other would last until PostgreSQL ends one of them."""
    alice = (await stage.login())["user"]["id"]
    async with stage.rows.transaction():
        await stage.rows.execute("SET LOCAL lock_timeout = '500ms'")
        await stage.rows.execute("INSERT INTO unionids (unionid, user_id) VALUES ($1, $2::text::uuid)", UNION, alice)
        entering = asyncio.create_task(stage.login(unionid=UNION, app=OTHER_APP))
        await until_locked(stage.rows)
        await stage.rows.execute("UPDATE users SET unionid = $1", UNION)
    assert (await entering)["user"]["id"] == alice


@pytest.mark.slow
async def test_a_known_person_and_a_newcomer_with_one_new_unionid_are_one_user(login: LogIn, rows: Rows) -> None:
    persons = [f"person-{n}" for n in range(25)]
    for person in persons:
        await login(person)
    answers = await asyncio.gather(
        *(login(person, unionid=f"union-{person}", app=app) for person in persons for app in (APP, OTHER_APP))
    )
    assert {answer["user"]["unionid"] for answer in answers} == {f"union-{person}" for person in persons}
    for person in persons:
        assert user_ids([await login(person)]) == user_ids([await login(person, app=OTHER_APP)])
    assert (await people(rows))[:2] == (25, 50)


async def test_the_same_unionid_in_another_app_is_the_same_user(login: LogIn) -> None:
    first = await login(unionid=UNION, nickname="Alice")
    second = await login("somebody", unionid=UNION, app=OTHER_APP)
    assert (second["is_new_user"], second["session_id"] == first["session_id"]) == (False, False)
    assert second["user"] == {**first["user"], "app_id": OTHER_APP_ID, "openid": second["user"]["openid"]}


@pytest.mark.requirement("asvs-6.8.1")
async def test_without_a_unionid_two_apps_have_two_users(login: LogIn, rows: Rows) -> None:
    answers = [await login(app=APP), await login(app=OTHER_APP)]
    assert len(user_ids(answers)) == 2
    assert await people(rows) == (2, 2, 2)


async def test_a_login_of_any_kind_is_the_last_login(stage: Stage) -> None:
    in_both_apps: list[dict[str, Any]] = [{"unionid": UNION}, {"unionid": UNION, "app": OTHER_APP}]
    for how in ({}, {}, {"nickname": "Alice"}, *in_both_apps, {"unionid": UNION, "nickname": "Al"}):
        stage.clock.advance(minutes=1)
        await stage.login(**how)
        assert await stage.rows.fetchval("SELECT last_login_at FROM users") == stage.clock(), how


@pytest.mark.usefixtures("bystander")
async def test_a_unionid_that_comes_later_is_kept(login: LogIn, rows: Rows) -> None:
    first = await login()
    second, third = await login(unionid=UNION), await login()
    assert second["is_new_user"] is False
    assert second["user"] == {**first["user"], "unionid": UNION}
    assert third["user"] == second["user"]
    assert await rows.fetchval("SELECT unionid FROM identities") == UNION


async def test_a_unionid_that_comes_later_makes_one_user_of_two(stage: Stage) -> None:
    former = await stage.login(nickname="Alice", avatar_url="https://example.com/a.png")
    await stage.rows.execute(
        "UPDATE users SET roles = '{admin,editor}', phone = '+8613800138000', phone_verified_at = now()"
    )
    stage.clock.advance(hours=1)
    holder = await stage.login(unionid=UNION, app=OTHER_APP, nickname="Alice the second")
    await stage.rows.execute("UPDATE users SET roles = '{editor,reader}' WHERE unionid IS NOT NULL")

    linked = await stage.login(unionid=UNION)

    assert linked["is_new_user"] is False
    assert linked["user"] == {
        **holder["user"],
        "app_id": APP_ID,
        "openid": former["user"]["openid"],
        "avatar_url": "https://example.com/a.png",
        "phone": "+8613800138000",
        "phone_verified": True,
        "roles": ["admin", "editor", "reader"],
        "created_at": former["user"]["created_at"],
    }
    assert await people(stage.rows) == (1, 2, 3)
    moved = await stage.rows.fetchval("SELECT user_id::text FROM sessions WHERE id::text = $1", former["session_id"])
    assert moved == holder["user"]["id"]


@pytest.mark.parametrize("banned", ["former", "holder"])
@pytest.mark.parametrize("administrator", ["former", "holder"])
@pytest.mark.slow
async def test_a_unionid_that_comes_late_leaves_nobody_banned_with_the_role_admin(
    stage: Stage, administrator: str, banned: str
) -> None:
    """Check the roles. If the user kept `admin`, the end of the ban would make an unconfirmed administrator."""
    ids = {
        "former": (await stage.login("alice"))["user"]["id"],
        "holder": (await stage.login("alice", unionid=UNION, app=OTHER_APP))["user"]["id"],
        "root": (await stage.login("root"))["user"]["id"],
    }
    change = "UPDATE users SET {} WHERE id::text = $1"
    await stage.rows.execute(change.format("roles = '{admin}'"), ids["root"])
    await stage.rows.execute(change.format("roles = '{admin,editor}'"), ids[administrator])
    await stage.rows.execute(change.format("status = 'disabled'"), ids[banned])
    assert (await stage.login.ask("alice", unionid=UNION)).status_code == 403
    [remaining] = await stage.rows.fetch("SELECT id::text, roles, status FROM users WHERE id::text <> $1", ids["root"])
    assert tuple(remaining) == (ids["holder"], ["editor"], "disabled")


async def test_two_openids_to_which_wechat_gives_one_unionid_are_one_user_in_all_apps(stage: Stage) -> None:
    holder = await stage.login("bob", unionid="union-bob", app=OTHER_APP)
    former = await stage.login("alice", unionid=UNION)
    elsewhere = await stage.login("alice", unionid=UNION, app=OTHER_APP)
    assert (await stage.login("alice", unionid="union-bob"))["user"]["id"] == holder["user"]["id"]
    assert (await stage.login("alice", app=OTHER_APP))["user"]["id"] == holder["user"]["id"]
    assert (await people(stage.rows))[:2] == (1, 3)
    [merged] = await recorded(stage.rows, "user_id, actor, data", "type = 'user.merged'")
    assert merged == (holder["user"]["id"], "system", {"former_id": former["user"]["id"]})
    # wxauth rejects a token with the former id here, and a refresh returns a token with the remaining user's id.
    assert (await stage.me(elsewhere)).status_code == 401
    assert (await stage.refresh(elsewhere)).json()["user"]["id"] == holder["user"]["id"]


async def test_an_id_stays_while_apps_move_between_accounts_one_after_the_other(login: LogIn, rows: Rows) -> None:
    """Check that a person keeps one user id.

    This must not depend on which apps send which unionids, or in which order.
    """
    for person in ("alice", "bob"):
        await login(person, unionid=f"first-{person}", app=APP)
        await login(person, unionid=f"second-{person}", app=OTHER_APP)
    moved = await login(unionid="second-alice")
    ids = set()
    for unionid, app in 3 * [("first-alice", APP), ("second-alice", APP), ("second-alice", OTHER_APP)]:
        ids |= user_ids([await login(unionid=unionid, app=app)])
    assert ids == user_ids([moved])
    assert await rows.fetchval("SELECT count(*) FROM users") == 3  # nobody has merged Bob's two users
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'user.merged'") == 1


async def test_a_user_with_two_unionids_returns_in_one_statement(stage: Stage) -> None:
    await stage.login(unionid=UNION)
    await stage.login(unionid="union-2", app=OTHER_APP)
    await stage.login(unionid="union-2")  # now this is one user with two unionids
    await stage.login(unionid=UNION, app=APP)
    before = await stage.number("users, unionids WHERE users.id = unionids.user_id")
    version = "SELECT xmin FROM identities ORDER BY app_id"
    written = await stage.rows.fetch(version)
    for _ in range(3):
        await stage.login(unionid=UNION)
        await stage.login(unionid="union-2", app=OTHER_APP)
    assert await stage.rows.fetch(version) == written  # the slow path would have updated the identities
    assert before == 2


@pytest.mark.usefixtures("bystander")
async def test_a_unionid_that_changes_keeps_the_user(login: LogIn, rows: Rows) -> None:
    first = await login(unionid=UNION)
    assert (await login(unionid="union-new"))["user"] == {**first["user"], "unionid": "union-new"}
    assert user_ids([await login("other", unionid="union-new", app=OTHER_APP)]) == user_ids([first])
    assert (await people(rows))[:2] == (1, 2)


@pytest.mark.own_database
async def test_a_login_that_waits_for_a_merge_does_not_make_the_merge_wait(login: LogIn, rows: Rows) -> None:
    """Check that the merge gets its lock. If the login held it, both would wait until PostgreSQL ends one of them."""
    await login(unionid=UNION, app=OTHER_APP)
    merge = "SELECT FROM unionids FOR UPDATE NOWAIT"
    assert (await behind(rows, login(unionid=UNION), HOLD_USERS, then=merge))["is_new_user"] is False


@pytest.mark.slow
async def test_linking_meets_first_logins_and_logins_without_the_unionid(login: LogIn, rows: Rows) -> None:
    await login()
    answers = await asyncio.gather(
        *(login(unionid=UNION) for _ in range(20)),
        *(login() for _ in range(20)),
        *(login(unionid=UNION, app=OTHER_APP) for _ in range(20)),
    )
    assert sum(answer["is_new_user"] for answer in answers) <= 1
    assert await people(rows) == (1, 2, 61)


async def test_two_people_whose_unionids_change_places_stay_two_and_do_not_block_each_other(stage: Stage) -> None:
    unionids = ["union-1", "union-2"]
    for app in (APP, OTHER_APP):
        for person, unionid in zip(("alice", "bob"), unionids, strict=True):
            await stage.login(person, unionid=unionid, app=app)
    await asyncio.gather(
        *(
            stage.login(person, unionid=unionids[(turn + place) % 2], app=app)
            for turn in range(4)
            for app in (APP, OTHER_APP)
            for place, person in enumerate(("alice", "bob"))
        )
    )
    assert await people(stage.rows) == (2, 4, 4 + 16)
    assert await stage.number("former_users") == 0


@pytest.mark.usefixtures("bystander")
async def test_a_second_openid_of_an_app_does_not_join_the_user_of_its_unionid(stage: Stage) -> None:
    """Check two openids of one app, which are two people because WeChat has one openid for each person and app."""
    alice = await stage.login(unionid=UNION)
    answers = [await stage.login("mallory", unionid=unionid) for unionid in (UNION, UNION, None)]
    assert [answer["is_new_user"] for answer in answers] == [True, False, False]
    assert user_ids(answers).isdisjoint(user_ids([alice]))
    assert [answer["user"]["unionid"] for answer in answers] == [None] * 3
    assert user_ids([await stage.login("alice", unionid=UNION, app=OTHER_APP)]) == user_ids([alice])
    assert (await people(stage.rows))[:2] == (2, 3)
    lines = stage.logged("unionid_ignored")
    assert [(line["level"], line["app_id"]) for line in lines] == [("error", APP_ID)] * 2
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE unionid = $1", UNION)
    banned = await stage.login.ask("eve", unionid=UNION)
    assert (banned.status_code, banned.json()["code"]) == (403, "account_disabled"), "another openid evades no ban"


@pytest.mark.usefixtures("bystander")
async def test_a_second_openid_of_an_app_does_not_join_a_user_with_a_different_earlier_unionid(stage: Stage) -> None:
    alice = await stage.login(unionid="union-mallory")
    await stage.login(unionid=UNION)
    answers = [await stage.login("mallory", unionid="union-mallory") for _ in range(2)]
    assert [answer["is_new_user"] for answer in answers] == [True, False]
    assert user_ids(answers).isdisjoint(user_ids([alice]))
    assert (await people(stage.rows))[:2] == (2, 2)


async def test_a_known_user_is_not_merged_into_who_has_an_openid_of_the_same_app(login: LogIn, rows: Rows) -> None:
    mallory = await login("mallory", unionid="union-mallory")
    alice = await login(unionid=UNION)
    assert user_ids([await login("mallory", unionid=UNION)]) == user_ids([mallory]) != user_ids([alice])
    assert await rows.fetchval("SELECT count(*) FROM former_users") == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known in another app"])
async def test_only_one_of_many_strangers_at_once_gets_their_common_unionid(stage: Stage, is_known: bool) -> None:
    if is_known:
        await stage.login(unionid=UNION, app=OTHER_APP)
    answers = await asyncio.gather(*(stage.login(f"person-{n}", unionid=UNION) for n in range(20)))
    assert len(user_ids(answers)) == 20
    assert await stage.number(f"identities WHERE app_id = '{APP_ID}' AND unionid IS NOT NULL") == 1


@pytest.mark.slow
@pytest.mark.parametrize("banned_app_id", [APP_ID, OTHER_APP_ID])
async def test_a_ban_on_either_side_of_a_link_remains(login: LogIn, rows: Rows, banned_app_id: str) -> None:
    users = {APP_ID: await login(nickname="Alice"), OTHER_APP_ID: await login(unionid=UNION, app=OTHER_APP)}
    await rows.execute("UPDATE users SET status = 'disabled' WHERE id::text = $1", users[banned_app_id]["user"]["id"])
    refused = await asyncio.gather(*(login.ask(unionid=UNION, nickname="Eve") for _ in range(5)))
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "account_disabled")}
    assert await rows.fetch("SELECT status, nickname FROM users") == [("disabled", "Alice")]
    assert await people(rows) == (1, 2, 2)
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NULL OR session_key IS NOT NULL") == 0


async def test_a_banned_user_comes_back_unchanged(stage: Stage) -> None:
    await stage.login(unionid=UNION, nickname="Alice")
    await stage.rows.execute("UPDATE users SET status = 'disabled'")
    before = await stage.rows.fetch("SELECT * FROM users")
    stage.clock.advance(hours=1)
    for app in (APP, OTHER_APP):
        assert (await stage.login.ask(unionid=UNION, nickname="Eve", app=app)).status_code == 403
    assert await stage.rows.fetch("SELECT * FROM users") == before
    assert await people(stage.rows) == (1, 2, 1)


@pytest.mark.parametrize("unionid", [None, UNION])
async def test_a_login_whose_answer_is_lost_is_written_once(stage: Stage, proxy: Proxy, unionid: str | None) -> None:
    client = await stage.make(database_url=proxy.url, timeouts=Timeouts(database=PATIENT))
    await stage.login.ask("bob", at=client)  # this prepares the statement
    proxy.lose_next_answer()
    answer = body_of(await stage.login.ask("alice", unionid=unionid, at=client))
    assert answer["is_new_user"] is True
    assert await people(stage.rows) == (2, 2, 2)
    assert await stage.number(f"sessions WHERE id = '{answer['session_id']}'") == 1


async def test_a_returning_users_login_keeps_to_the_locks_that_cost_little(stage: Stage) -> None:
    """Check the number of locks.

    PostgreSQL can keep sixteen locks of a transaction out of its shared table of locks, where all backends contend.
    """
    await stage.client.post("/v1/login", json={"code": stage.wechat.code_for("alice"), "nickname": "Al"})
    user = await stage.rows.fetchrow("SELECT app_id, openid, now() FROM identities")
    prepared = await stage.rows.prepare(login_queries.RETURNING_LOGIN.text)
    values = {
        "app_id": user["app_id"],
        "openid": user["openid"],
        "unionid": None,
        "now": user["now"],
        "session_id": uuid4(),
        "session_key": b"sealed",
        "ip": None,
        "user_agent": None,
        "expires_in": 60,
        "nickname": "Al",
        "avatar_url": None,
    }
    async with stage.rows.transaction():
        assert await prepared.fetchrow(*login_queries.RETURNING_LOGIN.arguments(values))
        locked = await stage.rows.fetchval(
            "SELECT count(DISTINCT relation) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
            " AND relation <> 'pg_locks'::regclass"
        )
    assert locked <= 16
