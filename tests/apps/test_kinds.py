"""Users log in to apps of several kinds.

wxauth accepts the login codes of mobile apps, but not those of browsers. A user of several kinds of apps stays one
user.
"""

import asyncio

import pytest

from tests.problems import problem_of
from tests.world import Admin, LogIn, Stage, bearer, make_admin
from wxauth.service.app import create_api
from wxauth.service.build import Timeouts
from wxauth.settings.urls import OWN_NAMES
from wxauth_desk.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE

MINI = APPS[0]["app_id"]
MOBILE, PAGE, SITE = (app["app_id"] for app in (MOBILE_APP, ACCOUNT, WEBSITE))
ALL = (*APPS, ACCOUNT, WEBSITE, MOBILE_APP)

pytestmark = [
    pytest.mark.usefixtures("simulated"),
    pytest.mark.settings(apps=ALL, timeouts=Timeouts(wechat_busy=(0, 0))),
]


async def people(stage: Stage) -> int:
    return await stage.number("users") + await stage.number("identities")


# Mobile apps.


async def test_a_person_is_the_same_user_in_the_mobile_app(stage: Stage) -> None:
    in_app = await stage.login(app_id=MOBILE)
    assert (in_app["is_new_user"], in_app["user"]["app_id"]) == (True, MOBILE)
    in_mini_program = await stage.login(app_id=MINI)
    assert not in_mini_program["is_new_user"]
    assert in_mini_program["user"]["id"] == in_app["user"]["id"]
    again = await stage.login(app_id=MOBILE)
    assert again["user"]["id"] == in_app["user"]["id"]
    assert (await stage.client.get("/v1/me", headers=bearer(again))).json()["openid"] == in_app["user"]["openid"]
    keys = await stage.rows.fetch("SELECT DISTINCT app_id FROM sessions WHERE session_key IS NOT NULL")
    assert [row["app_id"] for row in keys] == [MINI]


async def test_wechats_tokens_of_a_mobile_login_are_kept_nowhere(stage: Stage) -> None:
    await stage.login(app_id=MOBILE, nickname="Alice")
    tables = await stage.rows.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        stored = "\n".join(map(str, await stage.rows.fetch(f'SELECT * FROM "{table}"')))
        # the collector knows these tokens now and also searches the log for them at the end
        stage.secrets.check_log(stored)
    assert {call.api for call in stage.simulator.calls} == {"access_token"}


async def test_a_code_of_a_mobile_app_is_sent_again_only_if_wechat_was_busy(stage: Stage) -> None:
    busy = stage.code(app_id=MOBILE, busy=2)
    await stage.login(busy, app_id=MOBILE)
    assert len(stage.simulator.calls_of("access_token")) == 3
    problem_of(await stage.login.ask(busy, app_id=MOBILE), "code_used", 400)
    stage.simulator.fail("access_token", errcode=42003)
    assert problem_of(await stage.login.ask(app_id=MOBILE), "invalid_code", 400)["wechat_errcode"] == 42003
    stage.simulator.fail("access_token", drop=True)
    problem_of(await stage.login.ask(app_id=MOBILE), "wechat_unavailable", 503)
    assert len(stage.simulator.calls_of("access_token")) == 6


# Codes sent to the wrong endpoint.


@pytest.mark.parametrize("app_id", [PAGE, SITE])
async def test_a_browsers_code_is_refused_at_login_before_wechat_is_asked(stage: Stage, app_id: str) -> None:
    code = stage.code(app_id=app_id)
    problem_of(await stage.login.ask(code, app_id=app_id), "wrong_app_kind", 422)
    assert list(stage.simulator.calls) == []
    assert await people(stage) == 0


async def test_a_login_that_names_no_app_means_the_first_mini_program(stage: Stage) -> None:
    stage = await stage.replica(apps=[MOBILE_APP, ACCOUNT, *APPS])
    assert (await stage.login.ask()).json()["user"]["app_id"] == MINI
    stage = await stage.replica(apps=[MOBILE_APP])
    problem_of(await stage.login.ask(), "unknown_app", 400)


async def test_an_unknown_app_is_named_unless_it_cannot_be_an_appid(stage: Stage) -> None:
    named = problem_of(await stage.login.ask(app_id="wx0123456789abcdef"), "unknown_app", 400)
    assert "wx0123456789abcdef" in named["detail"]
    odd = problem_of(await stage.login.ask(app_id="<script>wx"), "unknown_app", 400)
    assert "script" not in odd["detail"]
    assert "wx0123456789abcdef" in odd["detail"]  # an example of a valid AppID


# Snapshot users, whom WeChat makes up.


async def test_a_made_up_person_is_refused_and_nothing_is_stored(stage: Stage) -> None:
    for snapshot in ("shown", "false_alarm"):
        code = stage.code(app_id=MOBILE, snapshot=snapshot)
        problem_of(await stage.login.ask(code, app_id=MOBILE), "snapshot_user", 403)
    assert await people(stage) == 0
    assert "snapshot_user" in [line.get("reason") for line in stage.log_lines()]
    await stage.login(app_id=MOBILE)


async def test_a_snapshot_whose_flag_is_missing_is_known_by_its_unionid(stage: Stage) -> None:
    def hidden(person: str) -> str:
        return stage.code(person, app_id=MOBILE, snapshot="hidden")

    await stage.login(hidden("alice"), app_id=MOBILE)  # at this login, nothing shows that the user is made up
    before = await people(stage)
    problem_of(await stage.login.ask(hidden("bob"), app_id=MOBILE), "snapshot_user", 403)
    assert await people(stage) == before


async def test_at_the_same_time_two_openids_of_one_unionid_make_one_user(stage: Stage) -> None:
    codes = [stage.code(f"p{n}", app_id=MOBILE, snapshot="hidden") for n in range(5)]
    answers = await asyncio.gather(*(stage.login.ask(code, app_id=MOBILE) for code in codes))
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403, 403]
    assert await people(stage) == 2


async def test_a_made_up_person_of_an_app_without_unionids_has_none(stage: Stage) -> None:
    stage = await stage.replica(apps=[{**MOBILE_APP, "unionid": "optional"}])
    stage.simulator.account(MOBILE).has_unionids = False
    entered = await stage.login(stage.code("alice", app_id=MOBILE, snapshot="hidden"), app_id=MOBILE)
    assert entered["user"]["unionid"] is None


# Apps that aren't bound to an Open Platform account.


async def test_a_known_person_logs_in_even_without_a_unionid(stage: Stage) -> None:
    known = await stage.login(app_id=MOBILE)
    stage.simulator.account(MOBILE).has_unionids = False
    assert (await stage.login(app_id=MOBILE))["user"]["id"] == known["user"]["id"]


async def test_each_app_says_whether_a_unionid_is_required(stage: Stage) -> None:
    apps = [{**APPS[0], "unionid": "required"}, {**MOBILE_APP, "unionid": "optional"}]
    stage = await stage.replica(apps=apps)
    for app in apps:
        stage.simulator.account(app["app_id"]).has_unionids = False
    problem_of(await stage.login.ask(app_id=MINI), "wechat_misconfigured", 502)
    assert await people(stage) == 0
    assert "Open Platform" in stage.logged("wechat_misconfigured")[0]["what_to_change"]
    alone = await stage.login(app_id=MOBILE)
    for app in apps:
        stage.simulator.account(app["app_id"]).has_unionids = True
    await stage.login(app_id=MINI)
    late = await stage.login(app_id=MOBILE)  # its unionid belongs to another user by now
    assert late["user"]["unionid"]
    assert await stage.number("users") == 1, alone


# What the session of a mobile app can't do.


async def test_a_mobile_session_neither_scans_nor_logs_in_to_sites(stage: Stage) -> None:
    headers = bearer(await stage.login(app_id=MOBILE))
    scan = "/v1/me/scans/0199d0a8-0000-7000-8000-000000000000"
    for path, body in (
        ("/v1/me/scans", {"user_code": "ABCD-EFGH"}),
        (f"{scan}/approve", {"login_code": "alice"}),
        (f"{scan}/deny", None),
        ("/v1/me/authorizations", {"login_code": "alice", "client_id": "shop"}),
    ):
        problem_of(await stage.client.post(path, json=body, headers=headers), "insufficient_scope", 403)
    in_mini_program = bearer(await stage.login(app_id=MINI))
    asked = {"login_code": "alice", "client_id": "shop"}
    answer = await stage.client.post("/v1/me/authorizations", json=asked, headers=in_mini_program)
    problem_of(answer, "invalid_request", 422)  # no client has this name
    problem_of(await stage.client.post(f"{scan}/deny", headers=in_mini_program), "scan_over", 404)


@pytest.mark.oldest_postgres
async def test_wechat_is_asked_for_no_mini_program_code_of_a_mobile_app(stage: Stage) -> None:
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    tv = {"name": "tv", "title": "TV", "device": True}
    secret = (await root.ask("POST", "/clients", json=tv)).json()["client_secret"]
    # no command and no request can set this any more
    await stage.rows.execute("UPDATE clients SET app_id = $1", MOBILE)
    started = (await stage.client.post("/v1/device_authorization", auth=("tv", secret))).json()
    scene = started["verification_uri_complete"].rpartition("/")[2]
    code = await stage.client.get(f"/v1/scans/{scene}/code")
    assert code.headers["content-type"] == "image/png"  # an ordinary QR code
    assert {call.api for call in stage.simulator.calls} == {"code2session"}


async def test_only_a_mini_program_has_a_session_key_and_a_phone_button(stage: Stage) -> None:
    tokens = await stage.login(app_id=MOBILE, phone_code="phone-13800138000")
    assert (tokens["phone_error"], tokens["user"]["phone"]) == ("wrong_app_kind", None)
    headers = bearer(tokens)
    sealed = {"encrypted_data": "q0EJbVMXC0kYb9rMbJcMdA==", "iv": "r7BXXKkLb8qrSNn05n0qiA=="}
    problem_of(await stage.client.post("/v1/me/decrypt", json=sealed, headers=headers), "wrong_app_kind", 422)
    phone = await stage.client.post("/v1/me/phone", json={"code": "phone-13800138000"}, headers=headers)
    problem_of(phone, "wrong_app_kind", 422)
    assert {call.api for call in stage.simulator.calls} == {"access_token"}


# WeChat tokens and pushed messages.


@pytest.mark.oldest_postgres
async def test_a_mobile_app_and_a_website_have_no_wechat_token(stage: Stage) -> None:
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    made = (await root.ask("POST", "/clients", json={"name": "orders", "scopes": ["access_token"]})).json()
    auth = ("orders", made["client_secret"])
    for app_id in (MOBILE, SITE):
        problem_of(await stage.client.get(f"/v1/apps/{app_id}/access-token", auth=auth), "wrong_app_kind", 422)
    for app_id in (MINI, PAGE):
        assert (await stage.client.get(f"/v1/apps/{app_id}/access-token", auth=auth)).json()["access_token"]


# Adding and changing apps.


@pytest.fixture
async def root(stage: Stage) -> Admin:
    """An administrator of a service that has two mini-programs in its settings."""
    stage = await stage.replica(apps=APPS)
    return await make_admin(stage.client, stage.rows, await stage.login("root"))


async def test_an_app_of_each_kind_is_added_and_shows_which_unionid_it_requires(root: Admin) -> None:
    for app in (MOBILE_APP, WEBSITE, ACCOUNT):
        fields = {name: app[name] for name in ("app_id", "app_secret", "kind")}
        # wxauth asks WeChat with the call for this kind of app
        added = (await root.ask("POST", "/apps", json=fields)).json()
        assert (added["kind"], added["unionid"], added["is_default"]) == (app["kind"], "required", False)
    listed = {app["app_id"]: (app["kind"], app["unionid"]) for app in (await root.read("/apps"))["items"]}
    assert listed[MINI] == ("mini_program", "optional")
    changed = (await root.ask("PATCH", f"/apps/{MOBILE}", json={"unionid": "optional"})).json()
    assert changed["unionid"] == "optional"
    assert (await root.ask("PATCH", f"/apps/{MOBILE}", json={"unionid": None})).json()["unionid"] == "required"
    assert (await LogIn(root.client).ask(app_id=MOBILE)).status_code == 200


async def test_a_mobile_app_has_push_and_its_kind_never_changes(root: Admin) -> None:
    assert (await root.ask("POST", "/apps", json=MOBILE_APP)).json()["has_push_token"]
    problem = problem_of(
        await root.ask("PATCH", f"/apps/{MOBILE}", json={"kind": "mini_program"}), "invalid_request", 422
    )
    assert [error["field"] for error in problem["errors"]] == ["kind"]
    same = await root.ask("PATCH", f"/apps/{MOBILE}", json={"kind": "mobile_app", "title": "App"})
    assert (same.json()["title"], same.json()["kind"]) == ("App", "mobile_app")
    assert (await root.ask("PATCH", f"/apps/{MOBILE}", json={"app_secret": MOBILE_APP["app_secret"]})).is_success


# The files that WeChat checks a domain with.


@pytest.mark.parametrize("path", ["", "/auth"])
async def test_check_files_are_at_the_root_of_the_issuer(stage: Stage, path: str) -> None:
    files = "MP_verify_a1B2.txt:a1B2,b.txt:second"
    client = (await stage.replica(check_files=files, issuer=f"https://auth.test{path}")).client
    for name, content in (("MP_verify_a1B2.txt", "a1B2"), ("b.txt", "second")):
        answer = await client.get(f"{path}/{name}")
        assert (answer.text, answer.headers["content-type"]) == (content, "text/plain; charset=utf-8")
    problem_of(await client.get(f"{path}/MP_verify_other.txt"), "not_found", 404)
    problem_of(await client.post(f"{path}/b.txt"), "method_not_allowed", 405)


@pytest.mark.no_database
def test_no_check_file_takes_the_place_of_a_route() -> None:
    parts = {route.path.split("/")[1] for route in create_api().routes if hasattr(route, "path")}
    assert {part for part in parts if not part.startswith(".")} == OWN_NAMES
