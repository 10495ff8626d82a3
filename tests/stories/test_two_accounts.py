"""A person with two WeChat accounts, whose users an operator has merged, is one user however they log in."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import Admin, Body, LogIn, Rows, Stage, make_admin
from wxauth_desk.wechat import APPS, MOBILE_APP

pytestmark = [pytest.mark.oldest_postgres, pytest.mark.usefixtures("bystander")]

WORK, HOME = "union-work", "union-home"


def ids(answers: Sequence[Body]) -> set[str]:
    return {answer["user"]["id"] for answer in answers}


async def identities(rows: Rows, app: dict[str, str] = APP) -> list[tuple[str, str | None]]:
    found = await rows.fetch(
        "SELECT openid, identities.unionid FROM identities JOIN users ON users.id = identities.user_id"
        " WHERE app_id = $1 AND roles = '{}' ORDER BY openid",
        app["app_id"],
    )
    return [tuple(row) for row in found]


async def join(stage: Stage, root: Admin, **of_work: Any) -> Body:
    """Merge the user of the home account, who has logged in to the other app, into the user of the work account."""
    work = await stage.login("work", **{"unionid": WORK, **of_work})
    home = await stage.login("home", unionid=HOME, app=OTHER_APP)
    await root.merge(home["user"]["id"], into=work["user"]["id"])
    return work


async def test_the_second_account_enters_an_app_where_the_first_has_an_identity(stage: Stage, root: Admin) -> None:
    work = await join(stage, root)
    answers = [await stage.login("home", unionid=HOME) for _ in range(2)]
    assert [answer["is_new_user"] for answer in answers] == [False, False]
    answers += [await stage.login("work", unionid=WORK), await stage.login("work", unionid=WORK, app=OTHER_APP)]
    assert ids(answers) == ids([work])
    assert await identities(stage.rows) == [("openid-a1-home", HOME), ("openid-a1-work", WORK)]
    assert await identities(stage.rows, OTHER_APP) == [("openid-b2-home", HOME), ("openid-b2-work", WORK)]


@pytest.mark.parametrize("was_there_before", [False, True])
async def test_the_second_account_enters_an_app_where_the_first_came_without_a_unionid(
    stage: Stage, root: Admin, was_there_before: bool
) -> None:
    """With `PHONE_POLICY=link`, a shared phone number also makes two such accounts one user."""
    if was_there_before:
        await stage.login("home")
    work = await join(stage, root, unionid=None)
    answers = [await stage.login("home", unionid=HOME) for _ in range(2)]
    assert [answer["is_new_user"] for answer in answers] == [False, False]
    assert ids(answers) == ids([work])
    assert await identities(stage.rows) == [("openid-a1-home", HOME), ("openid-a1-work", None)]
    assert ids([await stage.login("work", unionid=WORK)]) == ids([work])
    assert await stage.number("users WHERE roles = '{}'") == 1


async def test_the_second_account_enters_by_a_unionid_that_no_identity_has_now(stage: Stage, root: Admin) -> None:
    work = await join(stage, root)
    await stage.login("home", unionid="union-home-now", app=OTHER_APP)
    assert ids([await stage.login("home", unionid=HOME)]) == ids([work])


async def test_a_third_openid_with_either_unionid_is_another_person(stage: Stage, root: Admin) -> None:
    work = await join(stage, root)
    await stage.login("home", unionid=HOME)
    strangers = [await stage.login(f"stranger-{unionid}", unionid=unionid) for unionid in (WORK, HOME)]
    assert [answer["is_new_user"] for answer in strangers] == [True, True]
    assert len(ids([*strangers, work])) == 3


async def test_first_logins_of_both_accounts_at_once_make_no_second_user(stage: Stage, root: Admin) -> None:
    work = await join(stage, root, app=OTHER_APP)
    both = [stage.login(name, unionid=unionid) for name, unionid in (("work", WORK), ("home", HOME)) for _ in range(5)]
    assert ids(await asyncio.gather(*both)) == ids([work])
    assert await identities(stage.rows) == [("openid-a1-home", HOME), ("openid-a1-work", WORK)]


async def test_a_ban_is_of_both_accounts_in_every_app(stage: Stage, root: Admin) -> None:
    work = await join(stage, root)
    await root.change(work["user"]["id"], status="disabled")
    users = await stage.number("users")
    for app in (APP, OTHER_APP):
        for name, unionid in (("work", WORK), ("home", HOME)):
            problem_of(await stage.login.ask(name, unionid=unionid, app=app), "account_disabled", 403)
    assert await stage.number("users") == users


@pytest.mark.parametrize("unionid", ["union-before", "union-now"])
async def test_a_ban_holds_for_another_openid_with_the_users_unionid(stage: Stage, root: Admin, unionid: str) -> None:
    alice = await stage.login("alice", unionid="union-before")
    await stage.login("alice", unionid="union-now")
    await root.change(alice["user"]["id"], status="disabled")
    users = await stage.number("users")
    problem_of(await stage.login.ask("another", unionid=unionid), "account_disabled", 403)
    assert await stage.number("users") == users


@pytest.mark.usefixtures("simulated")
async def test_where_snapshots_are_known_the_second_account_is_none_with_a_unionid(stage: Stage, rows: Rows) -> None:
    """Without a unionid, an openid could be made up even if the first account has an identity in the app."""
    client = (await stage.replica(apps=[*APPS, MOBILE_APP], login_rate_limit="")).client
    root = await make_admin(client, rows, await LogIn(client)("root"))
    work, home = await LogIn(client)("work", app=MOBILE_APP), await LogIn(client)("home")
    await root.merge(home["user"]["id"], into=work["user"]["id"])
    assert ids([await LogIn(client)("home", app=MOBILE_APP)]) == ids([work])
    await root.change(work["user"]["id"], status="disabled")
    problem_of(await LogIn(client).ask("home", app=MOBILE_APP), "account_disabled", 403)
    await root.change(work["user"]["id"], status="active")
    of_app = "app_id = $1 AND openid <> $2"
    await rows.execute(f"DELETE FROM identities WHERE {of_app}", MOBILE_APP["app_id"], work["user"]["openid"])
    await rows.execute("UPDATE identities SET unionid = NULL WHERE app_id = $1", MOBILE_APP["app_id"])
    problem_of(await LogIn(client).ask("home", app=MOBILE_APP), "snapshot_user", 403)
