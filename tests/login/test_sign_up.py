"""`SIGN_UP`: who may log in while sign-up is closed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jose import jwt

from tests.fakes import APP, OTHER_APP, Secrets
from tests.problems import problem_of
from tests.processes import run
from tests.sweeps import swept
from tests.world import NUMBER, MakeClient, MakeServices, Rows, Stage, log_in, set_roles
from wxauth.server.core.settings import InvalidSettings, Settings, settings_from
from wxauth.server.dev.wechat import APPS, LATER_APP, CodeRequest, PhoneCodeRequest, Simulator

TABLES = ("users", "identities", "unionids", "sessions", "events")


async def stored(rows: Rows) -> dict[str, int]:
    return {table: await rows.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_nothing_is_stored_about_an_unknown_person(stage: Stage, unionid: str | None) -> None:
    client = await stage.make(sign_up="closed")
    problem_of(await stage.login.ask(at=client, unionid=unionid), "sign_up_closed", 403)
    assert set((await stored(stage.rows)).values()) == {0}
    assert not any("openid-a1-alice" in str(line) for line in stage.log_lines())


async def test_a_known_person_logs_in(stage: Stage) -> None:
    alice = await stage.login()
    client = await stage.make(sign_up="closed")
    answer = await stage.login(at=client)
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    named = await stage.login(at=client, unionid="union-alice")
    assert (named["user"]["id"], named["user"]["unionid"]) == (alice["user"]["id"], "union-alice")


async def test_a_person_known_by_the_unionid_logs_in_to_another_app(stage: Stage) -> None:
    alice = await stage.login(unionid="union-alice")
    client = await stage.make(sign_up="closed", apps=[APP, OTHER_APP])
    answer = await stage.login(at=client, app=OTHER_APP, unionid="union-alice")
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    assert (await stored(stage.rows))["identities"] == 2


async def test_a_unionid_of_somebody_who_has_another_openid_of_the_app_lets_nobody_in(stage: Stage) -> None:
    await stage.login.ask(unionid="union-alice")
    before = await stored(stage.rows)
    client = await stage.make(sign_up="closed")
    problem_of(await stage.login.ask("mallory", at=client, unionid="union-alice"), "sign_up_closed", 403)
    assert await stored(stage.rows) == before


async def test_two_known_users_are_merged_although_sign_up_is_closed(stage: Stage) -> None:
    client = await stage.make(sign_up="open", apps=[APP, OTHER_APP])
    await stage.login.ask(at=client)
    holder = await stage.login(at=client, app=OTHER_APP, unionid="union-alice")
    closed = await stage.make(sign_up="closed", apps=[APP, OTHER_APP])
    answer = await stage.login(at=closed, unionid="union-alice")
    assert answer["user"]["id"] == holder["user"]["id"]


@pytest.mark.parametrize(
    ("service", "app", "comes_in"),
    [("closed", "open", True), ("open", "closed", False), ("closed", None, False), ("open", "", True)],
)
async def test_the_sign_up_of_an_app_overrides_that_of_the_service(
    stage: Stage, service: str, app: str | None, comes_in: bool
) -> None:
    apps: list[dict[str, Any]] = [{**APP, "sign_up": app}]
    client = await stage.make(sign_up=service, apps=apps)
    answer = await stage.login.ask(at=client)
    assert answer.status_code == (200 if comes_in else 403)


# The roles of a new user.


FIRST, SECOND = (app["app_id"] for app in APPS)


@pytest.fixture
async def club(make_services: MakeServices, make_client: MakeClient) -> httpx.AsyncClient:
    return make_client(await make_services(sign_up_roles="member,reader", apps=[APP, OTHER_APP], login_rate_limit=""))


async def recorded(rows: Rows) -> list[tuple[str, Any]]:
    events = await rows.fetch("SELECT type, data FROM events ORDER BY id")
    return [(event["type"], json.loads(event["data"])) for event in events]


async def test_an_apps_own_roles_take_precedence(stage: Stage) -> None:
    apps = [APP | {"sign_up_roles": []}, OTHER_APP | {"sign_up_roles": ["guest"]}]
    client = await stage.make(sign_up_roles="member", apps=apps)
    assert (await stage.login(at=client))["user"]["roles"] == []
    assert (await stage.login("bob", at=client, app=OTHER_APP))["user"]["roles"] == ["guest"]


@pytest.mark.no_database
def test_no_app_makes_its_new_users_staff() -> None:
    apps = [APP | {"sign_up_roles": ["admin"]}]
    with pytest.raises(InvalidSettings, match=r"WXAUTH_APPS.*sign_up_roles"):
        settings_from(Settings, secret_key="A" * 43 + "=", database_url="postgresql://", apps=apps)


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_a_new_user_has_the_roles_in_the_first_token(
    stage: Stage, club: httpx.AsyncClient, unionid: str | None
) -> None:
    alice = await stage.login(at=club, unionid=unionid)
    assert alice["user"]["roles"] == ["member", "reader"]
    assert jwt.get_unverified_claims(alice["access_token"])["roles"] == ["member", "reader"]
    assert await recorded(stage.rows) == [("user.created", {"roles": ["member", "reader"]})]


async def test_a_user_who_has_lost_a_role_does_not_get_it_again(stage: Stage, club: httpx.AsyncClient) -> None:
    await stage.login(at=club)
    await set_roles(stage.rows, "reader")
    assert (await stage.login(at=club))["user"]["roles"] == ["reader"]
    assert (await stage.login(at=club, unionid="union-alice"))["user"]["roles"] == ["reader"]


async def test_an_identity_that_is_added_to_a_user_brings_no_roles(stage: Stage, club: httpx.AsyncClient) -> None:
    await stage.login(unionid="union-alice")
    there = await stage.login(at=club, app=OTHER_APP, unionid="union-alice")
    assert there["user"]["roles"] == []
    assert await recorded(stage.rows) == [("user.created", {}), ("identity.added", {})]


@pytest.mark.slow
async def test_fifty_first_logins_at_once_give_the_roles_once(stage: Stage, club: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(stage.login(at=club, unionid="union-alice") for _ in range(50)))
    assert {tuple(answer["user"]["roles"]) for answer in answers} == {("member", "reader")}
    assert await recorded(stage.rows) == [("user.created", {"roles": ["member", "reader"]})]


@pytest.mark.process
async def test_imported_users_have_the_roles_of_the_file(rows: Rows, database_url: str, tmp_path: Path) -> None:
    lines = [
        {"app_id": APP["app_id"], "openid": "openid-of-alice", "roles": ["editor"]},
        {"app_id": APP["app_id"], "openid": "openid-of-bob"},
    ]
    file = tmp_path / "users.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    env = {
        "WXAUTH_DATABASE_URL": database_url,
        "WXAUTH_APPS": json.dumps([APP]),
        "WXAUTH_SECRET_KEY": "A" * 43 + "=",
        "WXAUTH_SIGN_UP_ROLES": "member",
    }
    done = await asyncio.to_thread(run, "users", "import", str(file), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert sorted((await rows.fetch("SELECT roles FROM users")), key=str) == [(["editor"],), ([],)]
    events = await recorded(rows)
    assert sorted(events, key=str) == [("user.created", {"roles": ["editor"]}), ("user.created", {})]


@swept("value", ["admin", "member,admin", "support", "Member", "1st", "a b", ",".join(f"r{n}" for n in range(33))])
@pytest.mark.no_database
def test_sign_up_roles_cannot_contain_a_staff_role(value: str) -> None:
    with pytest.raises(InvalidSettings, match="WXAUTH_SIGN_UP_ROLES: must"):
        settings_from(
            Settings, secret_key="A" * 43 + "=", database_url="postgresql://", apps=[APP], sign_up_roles=value
        )


@pytest.mark.parametrize(
    ("role", "is_linked"),
    [("member", True), ("editor", False), ("clerk", False)],
    ids=["own", "given", "of_closed_app"],
)
async def test_a_phone_number_links_a_user_without_other_roles(
    make_simulated_services: MakeServices,
    make_client: MakeClient,
    simulator: Simulator,
    secrets: Secrets,
    rows: Rows,
    role: str,
    is_linked: bool,
) -> None:
    staff_app = {**LATER_APP, "sign_up": "closed", "sign_up_roles": ["clerk"]}  # open until all clerks had signed up
    apps = [*APPS, staff_app]
    client = make_client(await make_simulated_services(phone_policy="link", sign_up_roles="member,reader", apps=apps))

    async def log_in_with_number(app_id: str) -> dict[str, Any]:
        wanted = PhoneCodeRequest(person="alice", app_id=app_id, phone=NUMBER)
        code = secrets.add(simulator.make_code(CodeRequest(person="alice", app_id=app_id, has_unionid=False)))
        phone_code = secrets.add(simulator.make_phone_code(wanted))
        return await log_in(client, code, app_id=app_id, phone_code=phone_code)

    holder = await log_in_with_number(FIRST)
    await set_roles(rows, role)
    newcomer = await log_in_with_number(SECOND)
    assert (newcomer["user"]["id"] == holder["user"]["id"]) is is_linked
    if is_linked:
        assert newcomer["user"]["roles"] == [role]


async def test_sign_up_roles_protect_no_risky_user_from_a_ban(
    make_simulated_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    client = make_client(await make_simulated_services(risk_policy="block", sign_up_roles="member"))
    answer = await client.post("/v1/login", json={"code": "risky-4"})
    assert (answer.status_code, answer.json()["code"]) == (403, "wechat_user_blocked")
    assert await rows.fetch("SELECT status, roles FROM users") == [("disabled", ["member"])]
    assert [kind for kind, _ in await recorded(rows)] == ["user.created", "user.banned", "session.ended"]
