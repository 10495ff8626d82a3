"""Administrators and operators add, change and remove apps while the service runs. Every process then knows at once."""

import asyncio
import json
import socket
import tempfile
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from tests.database_proxy import Proxy
from tests.fakes import APP, LOGO, OTHER_SECRET_KEY, SECRET_KEY, Secrets, content_of, logo_of
from tests.problems import problem_of
from tests.processes import run, serving
from tests.sweeps import swept
from tests.world import Admin, Body, Rows, Stage, body_of, recorded, set_roles, until
from wxauth.apps.registry import Apps
from wxauth.core.sealing import CannotOpen, Sealer, app_context
from wxauth.service.build import Timeouts
from wxauth.service.resealing import reseal
from wxauth.settings.secrets import secret_key_bytes
from wxauth.wechat.wechat_tokens import WeChatTokens
from wxauth_desk.wechat import APPS, LATER_APP, MOBILE_APP, create_simulator

pytestmark = pytest.mark.usefixtures("simulated")

LATER = LATER_APP["app_id"]
FIRST = APPS[0]["app_id"]
WANTED = {"app_id": LATER, "app_secret": LATER_APP["app_secret"], "title": "小店"}
SECRET_OF_NOBODY = "a-secret-that-is-nobodys"

Command = Callable[..., Awaitable[CompletedProcess[str]]]


@dataclass(slots=True)
class Office(Admin):
    """An administrator of the apps, with the stage they work on."""

    stage: Stage

    async def beside(self, **settings: Any) -> Self:
        """Return the same administrator at another replica, with these settings."""
        stage = await self.stage.replica(**settings)
        return self.__class__(stage.client, self.answer, stage)

    async def add(self, **fields: Any) -> httpx.Response:
        return await self.ask("POST", "/apps", json={**WANTED, **fields})

    async def edit(self, **fields: Any) -> httpx.Response:
        return await self.ask("PATCH", f"/apps/{LATER}", json=fields)

    async def edited(self, **fields: Any) -> Body:
        return body_of(await self.edit(**fields))

    async def log_in(self, app_id: str | None = LATER, code: str = "alice") -> httpx.Response:
        """Log in to an app at the administrator's replica."""
        return await self.client.post("/v1/login", json={"code": code} | ({"app_id": app_id} if app_id else {}))


@pytest.fixture
async def root(stage: Stage) -> Office:
    office = Office(stage.client, await stage.login("root"), stage)
    await set_roles(stage.rows, "admin")
    return office


def refused(answer: httpx.Response, *fields: str) -> Body:
    """Check that the request is rejected because of these fields, and return the problem document."""
    problem = problem_of(answer, "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == [*fields]
    return problem


# Adding apps.


async def test_people_log_in_to_an_app_that_has_been_added(root: Office) -> None:
    problem_of(await root.log_in(), "unknown_app", 400)
    added = body_of(await root.add(push_token=LATER_APP["push_token"], sign_up="open"))
    shown = dict(added)
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "app_id": LATER,
        "kind": "mini_program",
        "unionid": "optional",
        "title": "小店",
        "logo": None,
        "source": "database",
        "is_default": False,
        "is_enabled": True,
        "sign_up": "open",
        "sign_up_roles": None,
        "claims": None,
        "max_sessions": None,
        "js_hosts": None,
        "has_app_secret": True,
        "has_push_token": True,
        "has_push_aes_key": False,
        "push_url": f"https://auth.test/v1/wechat/push/{LATER}",
        "push_forward": None,
        "wechat_token": {"expires_at": None, "error": None},
    }
    assert (await root.read(f"/apps/{LATER}")) == added
    assert (await root.log_in()).json()["user"]["app_id"] == LATER


async def test_the_settings_apps_come_first_and_are_changed_only_there(root: Office) -> None:
    problem_of(await root.add(app_id=FIRST), "app_taken", 409)
    problem_of(await root.ask("PATCH", f"/apps/{FIRST}", json={"title": "x"}), "app_in_settings", 409)
    problem_of(await root.ask("DELETE", f"/apps/{FIRST}"), "app_in_settings", 409)
    body_of(await root.add())
    problem_of(await root.add(), "app_taken", 409)
    listed = await root.read("/apps")
    assert listed["next_cursor"] is None
    assert [(app["app_id"], app["source"], app["is_default"]) for app in listed["items"]] == [
        (FIRST, "settings", True),
        (APPS[1]["app_id"], "settings", False),
        (LATER, "database", False),
    ]
    assert not any("secret" in name and name != "has_app_secret" for app in listed["items"] for name in app)
    await root.edit(is_enabled=False)
    named_there = await root.beside(apps=[*APPS, LATER_APP])
    later = next(app for app in (await named_there.read("/apps"))["items"] if app["app_id"] == LATER)
    assert (later["source"], later["is_enabled"]) == ("settings", True)


async def test_every_process_has_a_change_at_its_next_look(root: Office) -> None:
    other = await root.beside(timeouts=Timeouts(apps_refresh=0.01))
    problem_of(await other.log_in(), "unknown_app", 400)
    assert Timeouts().apps_refresh < 15
    looking = asyncio.create_task(other.stage.services[Apps].keep_fresh())

    async def status_is(status: int) -> bool:
        return (await other.log_in()).status_code == status

    await root.add()
    await until(lambda: status_is(200))
    await root.edit(is_enabled=False)
    await until(lambda: status_is(400))
    looking.cancel()


async def test_a_wrong_secret_is_not_stored(root: Office, secrets: Secrets) -> None:
    secrets.add(SECRET_OF_NOBODY)
    assert refused(await root.add(app_secret=SECRET_OF_NOBODY), "app_secret")["wechat_errcode"] == 40125
    assert refused(await root.add(app_id="wxnobodys00000000"), "app_id")["wechat_errcode"] == 40013
    assert await root.stage.number("apps") == 0
    assert (await root.add(app_secret=SECRET_OF_NOBODY, check=False)).status_code == 200


async def test_a_rejected_ip_address_is_no_fault_of_the_secret(root: Office) -> None:
    root.stage.simulator.fail("code2session", times=1, errcode=40164)
    problem = refused(await root.add())
    assert problem["wechat_errcode"] == 40164
    assert "IP whitelist" in problem["detail"]
    assert await root.stage.number("apps") == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"hang": True}, {"drop": True}, {"status": 503}, {"errcode": -1}], ids=str)
async def test_no_app_is_stored_while_wechat_is_unavailable(root: Office, fault: dict[str, Any]) -> None:
    root = await root.beside(wechat_timeout=1, timeouts=Timeouts(wechat_busy=(0, 0)))
    root.stage.simulator.fail("code2session", times=None, **fault)
    refused = await root.add()
    problem_of(refused, "wechat_unavailable", 503)
    assert refused.headers["retry-after"]
    assert await root.stage.number("apps") == 0
    assert (await root.add(check=False)).status_code == 200


async def test_no_app_has_the_name_of_a_site_or_the_audience_and_no_site_that_of_an_app(root: Office) -> None:
    site = {"name": "shop", "device": True}
    assert (await root.ask("POST", "/clients", json=site)).status_code == 200
    for taken in ("shop", root.stage.services.settings.audience):
        refused(await root.add(app_id=taken, check=False), "app_id")
    assert await root.stage.number("apps") == 0
    assert (await root.add(app_id="kiosk", check=False)).status_code == 200
    assert (await root.ask("POST", "/clients", json={"name": "kiosk"})).status_code == 200
    refused(await root.ask("POST", "/clients", json={**site, "name": "kiosk"}), "name")
    refused(await root.ask("PATCH", "/clients/kiosk", json={"device": True}), "name")


@swept(
    ("field", "value"),
    [
        ("app_secret", "with space"),
        ("logo", "https://shop.example.com/logo.png"),
        ("logo", "data:image/svg+xml;base64,PHN2Zz4="),
        ("logo", f'{LOGO}" onerror="'),
        ("logo", LOGO.replace("png", "jpeg")),  # the content is a PNG
        ("logo", f"{LOGO.rstrip('=')}{'A' * 44_000}="),
        ("push_token", "no spaces please"),
        ("push_aes_key", "9" * 43),  # needs a push_token
        ("is_enabled", None),
    ],
)
async def test_an_invalid_field_of_an_app_is_refused_by_its_name(root: Office, field: str, value: object) -> None:
    refused(await root.add(check=False, **{field: value}), field)
    assert await root.stage.number("apps") == 0


# Changing and removing apps.


async def test_only_the_given_fields_of_an_app_are_changed_and_a_secret_cannot_be_removed(root: Office) -> None:
    await root.add(push_token=LATER_APP["push_token"], sign_up="closed")
    shown = await root.edited(title="大店")
    assert (shown["title"], shown["sign_up"], shown["has_push_token"]) == ("大店", "closed", True)
    shown = await root.edited(title=None, sign_up="", push_token=None)
    assert (shown["title"], shown["sign_up"], shown["has_push_token"]) == (None, None, False)
    refused(await root.edit(app_secret=None), "app_secret")


async def test_newcomers_of_an_app_have_its_roles(root: Office) -> None:
    await root.add(sign_up_roles=["member"])
    assert (await root.log_in()).json()["user"]["roles"] == ["member"]
    problem_of(await root.edit(sign_up_roles=["support"]), "invalid_request", 422)
    for roles in ([], ["reader", "member"], None):
        assert (await root.edited(sign_up_roles=roles))["sign_up_roles"] == roles


async def test_a_key_of_push_goes_no_other_way_than_with_its_token(root: Office) -> None:
    await root.add()
    problem_of(await root.edit(push_aes_key="9" * 43), "invalid_request", 422)
    assert (await root.edited(push_token=LATER_APP["push_token"], push_aes_key="9" * 43))["has_push_aes_key"]
    problem_of(await root.edit(push_token=None), "invalid_request", 422)


def lead_to_metadata(host: str, *_: object, flags: int = 0, **__: object) -> list[tuple[object, ...]]:
    if flags & socket.AI_NUMERICHOST:
        raise socket.gaierror
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]


async def test_messages_are_handed_on_only_where_a_token_is_and_never_to_wxauth_itself(
    root: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://shop.invalid/wechat?own=1"
    await root.add()
    problem_of(await root.edit(push_forward=url), "invalid_request", 422)
    assert (await root.edited(push_token=LATER_APP["push_token"], push_forward=url))["push_forward"] == url
    assert (await root.events(type="app.changed"))[0]["data"] == {"fields": ["push_token", "push_forward"]}
    problem_of(await root.edit(push_token=None), "invalid_request", 422)
    for wrong in (
        *("https://auth.test/x", "https://169.254.169.254/", "http://shop.invalid/", "https://a:b@shop.invalid/"),
        *("https://shop.invalid/#a", "https://2852039166/", "https://[::ffff:169.254.169.254]/"),
    ):
        assert wrong not in str(refused(await root.edit(push_forward=wrong), "push_forward"))
    # A proxy on a laptop resolves names to made-up addresses. So wxauth checks the address of a name only when it
    # forwards a message.
    monkeypatch.setattr(socket, "getaddrinfo", lead_to_metadata)
    assert (await root.edited(push_forward="https://shop.test/"))["push_forward"] == "https://shop.test/"
    refused(await root.edit(push_forward="http://shop.test/"), "push_forward")
    own = {"push_token": "x" * 8, "push_forward": "https://auth.test/"}
    refused(await root.add(app_id="wxother", check=False, **own), "push_forward")
    shown = await root.edited(push_token=None, push_forward="")
    assert (shown["push_forward"], shown["has_push_token"]) == (None, False)


async def test_a_new_secret_counts_at_once_for_logins_and_for_wechat_tokens(root: Office, secrets: Secrets) -> None:
    secrets.add(SECRET_OF_NOBODY)
    await root.add(app_secret=SECRET_OF_NOBODY, check=False)
    problem_of(await root.log_in(), "wechat_misconfigured", 502)
    with pytest.raises(Exception, match="WeChat"):
        await root.stage.services[WeChatTokens].get(root.stage.services[Apps].find(LATER))
    assert (await root.read(f"/apps/{LATER}"))["wechat_token"]["error"] == "wechat_misconfigured"

    wrong = await root.edit(app_secret=SECRET_OF_NOBODY + "-either")
    assert problem_of(wrong, "invalid_request", 422)["wechat_errcode"] == 40125
    assert (await root.edit(app_secret=LATER_APP["app_secret"])).status_code == 200
    assert (await root.log_in()).status_code == 200
    await root.stage.services[WeChatTokens].get(root.stage.services[Apps].find(LATER))
    state = (await root.read(f"/apps/{LATER}"))["wechat_token"]
    assert (state["expires_at"] is not None, state["error"]) == (True, None)


async def test_a_disabled_or_removed_app_lets_nobody_in_and_its_sessions_go_on(root: Office) -> None:
    await root.add()
    alice = (await root.log_in()).json()
    await root.edit(is_enabled=False)
    assert problem_of(await root.log_in(), "unknown_app", 400)["detail"] == f"the app {LATER} is disabled"
    refreshed = body_of(await root.client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]}))
    assert (await root.stage.bind(refreshed, "phone-13800138000")).json()["phone"] == "+8613800138000"
    await root.edit(is_enabled=True)
    alice = body_of(await root.log_in())
    assert (await root.ask("DELETE", f"/apps/{LATER}")).status_code == 204
    problem_of(await root.log_in(), "unknown_app", 400)
    assert (await root.client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})).status_code == 200
    assert await root.stage.number("apps") == 0


@pytest.mark.oldest_postgres
async def test_the_trail_names_actor_app_and_changed_fields(root: Office) -> None:
    await root.add()
    await root.edit(title="大店", app_secret=LATER_APP["app_secret"])
    await root.edit(title="大店")  # the app already has this title
    await root.ask("DELETE", f"/apps/{LATER}")
    events = [event for event in await root.events() if event["type"].startswith("app.")]
    assert [(event["type"], event["actor"], event["app_id"], event["data"]) for event in reversed(events)] == [
        ("app.added", root.id, LATER, {}),
        ("app.changed", root.id, LATER, {"fields": ["title"]}),
        ("app.removed", root.id, LATER, {}),
    ]


# Without any app in the settings.


async def test_without_apps_in_the_settings_the_one_added_first_is_the_default(root: Office) -> None:
    bare = await root.beside(apps=[])
    problem_of(await bare.log_in(None), "unknown_app", 400)
    await bare.add()
    root.stage.clock.advance(seconds=60)
    await bare.add(app_id=FIRST, app_secret=APPS[0]["app_secret"])
    assert (await bare.log_in(None)).json()["user"]["app_id"] == LATER
    await bare.edit(is_enabled=False)
    problem_of(await bare.log_in(None), "unknown_app", 400)  # the code isn't sent to an app it isn't meant for
    await bare.ask("DELETE", f"/apps/{LATER}")
    assert (await bare.log_in(None)).json()["user"]["app_id"] == FIRST


async def test_before_the_stored_apps_are_read_no_app_is_reported_as_unknown(root: Office, proxy: Proxy) -> None:
    await root.add()
    services = (await root.beside(database_url=proxy.url)).stage.services
    settings = services.settings.model_copy(update={"apps": []})
    unread = Apps(database=services.database, sealer=services[Sealer], settings=settings)
    await proxy.refuse()
    await unread.try_refresh()
    with pytest.raises(Exception, match="have not been read"):
        unread.for_login(LATER)
    await proxy.accept()
    await unread.try_refresh()
    assert unread.for_login(LATER).app_id == LATER
    await proxy.refuse()
    await unread.try_refresh()
    assert unread.for_login(LATER).app_id == LATER  # the app stays known during an outage


# Sealed values.


async def test_the_secrets_are_sealed_for_their_own_app(root: Office) -> None:
    await root.add(push_token=LATER_APP["push_token"], push_aes_key="9" * 43)
    stored = str(await root.stage.rows.fetchrow("SELECT * FROM apps"))
    for plain in (LATER_APP["app_secret"], LATER_APP["push_token"], "9" * 43):
        assert plain not in stored
    await root.stage.rows.execute("UPDATE apps SET app_id = 'wxanother000000001'")
    problem_of(await root.ask("GET", "/apps/wxanother000000001"), "storage_unavailable", 503)


async def test_secrets_that_do_not_open_are_logged_and_affect_no_other_app(root: Office) -> None:
    await root.add()
    await root.stage.rows.execute("UPDATE apps SET secrets = '\\x00'")
    await root.stage.services[Apps].try_refresh()
    await root.stage.services[Apps].try_refresh()
    assert [line["app_ids"] for line in root.stage.logged("apps_not_opened")] == [[LATER]]
    problem_of(await root.log_in(), "storage_unavailable", 503)
    assert (await root.log_in(FIRST)).status_code == 200
    for answer in (await root.ask("GET", f"/apps/{LATER}"), await root.edit(app_secret="0" * 32)):
        problem_of(answer, "storage_unavailable", 503)


async def test_a_required_value_that_is_good_no_more_is_named(root: Office) -> None:
    await root.add()
    sealer = root.stage.services[Sealer]
    spaced = sealer.seal(b'{"app_secret": "0 0"}', context=app_context(LATER))
    await root.stage.rows.execute("UPDATE apps SET secrets = $1", spaced)
    await root.stage.services[Apps].try_refresh()
    await root.stage.services[Apps].try_refresh()
    assert [line["apps"] for line in root.stage.logged("apps_not_valid")] == [{LATER: ["app_secret"]}]
    answers = [await root.log_in(), await root.ask("GET", f"/apps/{LATER}"), await root.edit(app_secret="0" * 32)]
    for answer in answers:
        assert "the stored app_secret" in problem_of(answer, "storage_unavailable", 503)["detail"]
    found = await root.ask("GET", "/check")
    assert any(f"{LATER} (app_secret)" in result["message"] for result in found.json()["items"])
    office = await root.beside(apps=[*APPS, LATER_APP])  # the settings' app is used instead
    found = await office.ask("GET", "/check")
    assert not any(LATER in result["message"] for result in found.json()["items"] if result["level"] == "bad")


@pytest.mark.oldest_postgres
async def test_a_stored_value_that_is_good_no_more_stops_no_login(root: Office) -> None:
    body_of(await root.add(logo=LOGO, js_hosts=["shop.test"]))
    old = {"logo": logo_of(1025), "js_hosts": ["shop.test:99999"]}
    await root.stage.rows.execute("UPDATE apps SET fields = fields || $1::text::jsonb", json.dumps(old))
    office = await root.beside()
    assert (await office.log_in()).status_code == 200
    shown = await office.edited(title="Shop")
    assert (shown["title"], shown["logo"], shown["js_hosts"]) == ("Shop", None, None)
    [line] = office.stage.logged("app_fields_ignored")
    assert line["apps"] == {LATER: ["js_hosts", "logo"]}


async def test_a_stored_value_that_needs_one_that_is_good_no_more_stops_no_other_app(root: Office) -> None:
    body_of(await root.add(push_token=LATER_APP["push_token"], push_forward="https://shop.test/wechat"))
    await root.stage.rows.execute("""UPDATE apps SET fields = fields || '{"kind": "website"}'""")
    assert (await (await root.beside()).log_in(FIRST)).status_code == 200


async def test_a_logo_is_decoded_once(root: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    body_of(await root.add(logo=logo_of(7)))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("each look takes 15 ms for each logo"))
    await root.stage.services[Apps].refresh()


async def test_a_reseal_covers_the_apps(root: Office) -> None:
    await root.add(push_token=LATER_APP["push_token"])
    keys = [secret_key_bytes(SecretStr(it)) for it in (OTHER_SECRET_KEY, SECRET_KEY)]
    done = await reseal(root.stage.services.database, Sealer(keys), now=root.stage.services.clock())
    assert (done.apps, done.not_opened) == (1, 0)
    other = await root.beside(secret_key=OTHER_SECRET_KEY)
    assert other.stage.services[Apps].unopened == []
    assert (await other.log_in()).status_code == 200
    with pytest.raises(CannotOpen):
        root.stage.services[Sealer].open(await root.stage.rows.fetchval("SELECT secrets FROM apps"), context=b"any")
    assert (await reseal(root.stage.services.database, Sealer(keys), now=root.stage.services.clock())).apps == 0


# The command `wxauth apps`.


@pytest.fixture
def wechat_url() -> Iterator[str]:
    with serving(create_simulator()) as url:
        yield url


@pytest.fixture
def apps(database_url: str, wechat_url: str, tmp_path: Path) -> Command:
    """A function that runs `wxauth apps` on this test's database and a simulated WeChat.

    `given` is its standard input.
    """

    async def command(*arguments: str, given: str = "", **settings: str) -> CompletedProcess[str]:
        env = {
            "WXAUTH_DATABASE_URL": database_url,
            "WXAUTH_SECRET_KEY": SECRET_KEY,
            "WXAUTH_WECHAT_BASE_URL": wechat_url,
            **settings,
        }
        with tempfile.TemporaryFile() as file:
            file.write(given.encode())
            file.seek(0)
            done = await asyncio.to_thread(run, "apps", *arguments, cwd=tmp_path, env=env, stdin=file.fileno())
        said = done.stdout + done.stderr
        assert not any(word in said for word in ("Traceback", LATER_APP["app_secret"], SECRET_OF_NOBODY))
        return done

    return command


@pytest.mark.process
async def test_an_operator_adds_changes_and_removes_an_app(apps: Command, rows: Rows, tmp_path: Path) -> None:
    secret, token = LATER_APP["app_secret"], LATER_APP["push_token"]
    added = await apps("add", LATER, "--title", "小店", "--push-token", given=f"\ufeff{secret}\n{token}\n")
    assert (added.returncode, added.stdout) == (0, f"added {LATER}\n"), added.stderr
    assert "within 15 seconds" in added.stderr
    listed = json.loads((await apps("list", "--json")).stdout)["items"]
    assert [(app["app_id"], app["source"], app["is_default"], app["has_push_token"]) for app in listed] == [
        (LATER, "database", True, True)
    ]
    given = ("--disable", "--no-push", "--sign-up", "closed", "--sign-up-roles=a,b", "--max-sessions=2")
    shown = json.loads((await apps("set", LATER, *given, "--json")).stdout)
    assert (shown["sign_up_roles"], shown["max_sessions"]) == (["a", "b"], 2)
    assert (shown["is_enabled"], shown["has_push_token"], shown["sign_up"]) == (False, False, "closed")
    for hosts in (["a.test", "b.test:8443"], None):
        options = [f"--js-host={host}" for host in hosts or [""]]
        assert json.loads((await apps("set", LATER, *options, "--json")).stdout)["js_hosts"] == hosts
    assert (await apps("set", LATER, "--js-host=https://a.test")).returncode == 2
    assert (await apps("set", LATER, "--secret", given=f"{secret}\n")).returncode == 0
    (tmp_path / "logo.png").write_bytes(content_of(LOGO))
    photo = Image.new("L", (1, 1))
    photo.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[photo])
    of_photo = f"data:image/jpeg;base64,{b64encode((tmp_path / 'photo.jpg').read_bytes()).decode()}"
    for file, logo in ((tmp_path / "logo.png", LOGO), (tmp_path / "photo.jpg", of_photo), ("default", None)):
        assert json.loads((await apps("set", LATER, "--logo", str(file), "--json")).stdout)["logo"] == logo
    for file in (__file__, tmp_path / "no-such-file"):
        assert (await apps("set", LATER, "--logo", str(file))).returncode == 2
    url = "https://shop.invalid/wechat"
    for arguments, forward in (
        (["--push-token", "--push-forward", url], url),
        (["--no-push-forward"], None),
        (["--push-forward", url], url),
        (["--no-push"], None),
    ):
        done = await apps("set", LATER, *arguments, "--json", given=f"{token}\n")
        assert json.loads(done.stdout)["push_forward"] == forward, done.stderr
    for arguments in (["--no-push", "--push-forward", url], ["--push-forward", url, "--no-push-forward"]):
        assert (await apps("set", LATER, *arguments)).returncode == 2
    table = (await apps("list", WXAUTH_APPS=json.dumps([APP]))).stdout.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [
        [APP["app_id"], "settings", "enabled"],
        [LATER, "database", "disabled"],
    ]
    assert (await apps("remove", LATER)).stdout == f"removed {LATER}\n"
    assert await recorded(rows, "type, actor, app_id") == [
        (kind, "operator", LATER) for kind in ("app.added", *["app.changed"] * 10, "app.removed")
    ]


@pytest.mark.process
async def test_an_operator_adds_a_mobile_app_and_lists_it(apps: Command) -> None:
    kind = ("--kind", "mobile_app", "--unionid", "optional", "--no-check", "--json")
    added = json.loads((await apps("add", "wxmobile", *kind, given=MOBILE_APP["app_secret"])).stdout)
    assert (added["kind"], added["unionid"]) == ("mobile_app", "optional")
    assert json.loads((await apps("set", "wxmobile", "--unionid", "default", "--json")).stdout)["unionid"] == "required"
    listed = await apps("list", WXAUTH_APPS=json.dumps([APP]))
    assert [line.split()[5] for line in listed.stdout.splitlines()] == ["KIND", "mini_program", "mobile_app"]


@pytest.mark.process
async def test_a_command_that_fails_prints_one_line(apps: Command, rows: Rows) -> None:
    wrong = await apps("add", LATER, given=f"{SECRET_OF_NOBODY}\n")
    assert (wrong.returncode, "40125" in wrong.stderr) == (1, True)
    assert await rows.fetchval("SELECT count(*) FROM apps") == 0
    assert (await apps("add", LATER, "--no-check", given=f"{SECRET_OF_NOBODY}\n")).returncode == 0
    taken = await apps("add", LATER, "--no-check", given=f"{SECRET_OF_NOBODY}\n")
    assert (taken.returncode, f"app {LATER} already exists" in taken.stderr) == (1, True)
    nobody = await apps("remove", "wxnobody")
    assert (nobody.returncode, "wxnobody" in nobody.stderr) == (1, True)
    settings = {"WXAUTH_APPS": json.dumps([APP])}
    of_settings = await apps("set", APP["app_id"], "--disable", **settings)
    assert (of_settings.returncode, "settings" in of_settings.stderr) == (1, True)
    alone = await apps("set", LATER, "--push-forward", "http://127.0.0.1/", LC_ALL="zh_CN.UTF-8")
    assert (alone.returncode, alone.stderr) == (1, "push_forward：必须与 push_token 一起设置\n")
    assert (await apps("set", LATER)).returncode == 2
    missing = await apps("add", "wxother", "--no-check", "--push-token", given="hunter2\n")
    assert (missing.returncode, "Token must be on its own line" in missing.stderr) == (1, True), missing.stderr
    misspelt = await apps("add", "wx other", "--no-check", given="hunter2\n")
    assert (misspelt.returncode, "app_id" in misspelt.stderr, "hunter2" in misspelt.stderr) == (2, True, False)
