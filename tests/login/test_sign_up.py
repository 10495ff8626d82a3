"""`SIGN_UP` decides who can log in while sign-up is closed."""

import pytest
from jose import jwt

from tests.fakes import APP, OTHER_APP, Secrets
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Body, Client, Rows, Stage, recorded, set_roles
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth_desk.wechat import APPS, LATER_APP, CodeRequest


async def stored(rows: Rows) -> dict[str, int]:
    tables = ("users", "identities", "unionids", "sessions", "events")
    return {table: await rows.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_nothing_is_stored_about_an_unknown_person(stage: Stage, unionid: str | None) -> None:
    client = await stage.make(sign_up="closed")
    problem_of(await stage.login.ask(at=client, unionid=unionid), "sign_up_closed", 403)
    assert set((await stored(stage.rows)).values()) == {0}
    assert not any("openid-a1-alice" in str(line) for line in stage.log_lines())


async def test_a_known_person_logs_in_and_to_another_app_by_the_unionid(stage: Stage) -> None:
    alice = await stage.login()
    client = await stage.make(sign_up="closed", apps=[APP, OTHER_APP])
    for how in ({}, {"unionid": "union-alice"}, {"unionid": "union-alice", "app": OTHER_APP}):
        answer = await stage.login(at=client, **how)
        assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
        assert answer["user"]["unionid"] == how.get("unionid")
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
    assert (await stage.login(at=closed, unionid="union-alice"))["user"]["id"] == holder["user"]["id"]


@pytest.mark.parametrize(
    ("service", "app", "comes_in"),
    [("closed", "open", True), ("open", "closed", False), ("closed", None, False), ("open", "", True)],
)
async def test_an_apps_sign_up_beats_the_services(stage: Stage, service: str, app: str | None, comes_in: bool) -> None:
    client = await stage.make(sign_up=service, apps=[{**APP, "sign_up": app}])
    assert (await stage.login.ask(at=client)).status_code == (200 if comes_in else 403)


# The roles of a new user.


FIRST, SECOND = (app["app_id"] for app in APPS)


@pytest.fixture
async def club(stage: Stage) -> Client:
    return await stage.make(sign_up_roles="member,reader", apps=[APP, OTHER_APP], login_rate_limit="")


async def test_an_apps_own_roles_take_precedence(stage: Stage) -> None:
    apps = [APP | {"sign_up_roles": []}, OTHER_APP | {"sign_up_roles": ["guest"]}]
    client = await stage.make(sign_up_roles="member", apps=apps)
    assert (await stage.login(at=client))["user"]["roles"] == []
    assert (await stage.login("bob", at=client, app=OTHER_APP))["user"]["roles"] == ["guest"]


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_a_new_user_has_the_roles_in_the_first_token(stage: Stage, club: Client, unionid: str | None) -> None:
    alice = await stage.login(at=club, unionid=unionid)
    assert alice["user"]["roles"] == ["member", "reader"]
    assert jwt.get_unverified_claims(alice["access_token"])["roles"] == ["member", "reader"]
    assert await recorded(stage.rows, "type, data") == [("user.created", {"roles": ["member", "reader"]})]


async def test_a_lost_role_comes_back_with_no_login_and_with_no_identity_that_is_added(
    stage: Stage, club: Client
) -> None:
    await stage.login(at=club)
    await set_roles(stage.rows, "reader")
    for how in ({}, {"unionid": "union-alice"}, {"unionid": "union-alice", "app": OTHER_APP}):
        assert (await stage.login(at=club, **how))["user"]["roles"] == ["reader"]
    created = ("user.created", {"roles": ["member", "reader"]})
    assert await recorded(stage.rows, "type, data") == [created, ("identity.added", {})]


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
@pytest.mark.usefixtures("simulated")
async def test_a_number_links_a_user_without_roles(stage: Stage, secrets: Secrets, role: str, is_linked: bool) -> None:
    staff_app = {**LATER_APP, "sign_up": "closed", "sign_up_roles": ["clerk"]}  # clerks signed up before it was closed
    apps = [*APPS, staff_app]
    stage = await stage.replica(phone_policy="link", sign_up_roles="member,reader", apps=apps)

    async def log_in_with_number(app_id: str) -> Body:
        code = stage.simulator.make_code(CodeRequest(person="alice", app_id=app_id, has_unionid=False))
        phone_code = stage.phone_code(app_id=app_id)
        return await stage.login(secrets.add(code), app_id=app_id, phone_code=phone_code)

    holder = await log_in_with_number(FIRST)
    await set_roles(stage.rows, role)
    newcomer = await log_in_with_number(SECOND)
    assert (newcomer["user"]["id"] == holder["user"]["id"]) is is_linked
    if is_linked:
        assert newcomer["user"]["roles"] == [role]
