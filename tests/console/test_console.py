"""The administration console: its sessions, its response headers, and its page in a real browser."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.console.asking import ASKED_BY_THE_PAGE, COOKIE, SESSION, extend_session
from tests.dev.running import running_dev
from tests.docs import guide, openapi
from tests.fakes import Clock
from tests.forked import stand_in
from tests.problems import problem_of
from tests.processes import run
from tests.programs import needs, run_node_tests
from tests.sweeps import swept
from tests.world import HOLD_USERS, NOBODY, Admin, Body, Client, Stage, bearer, behind, body_of, make_admin, set_roles
from wxauth.clients.models import SITE_SCOPE_NAMES, Scope
from wxauth.console.links import NoLink, make_link
from wxauth.console.routes import CONSOLE_PAGE
from wxauth.core.trail import SENT_TO_SIBLINGS, EventType

pytestmark = pytest.mark.settings(admin_page=True)


@dataclass(slots=True)
class Console:
    """The console in a browser, and the administrator who opens it."""

    stage: Stage
    root: Admin

    async def link(self, who: Admin | None = None) -> str:
        """Make a link for this administrator, and return the link's secret."""
        user_id = UUID((who or self.root).id)
        return (await make_link(self.stage.services.database, user_id, now=self.stage.services.clock())).secret

    async def post(self, secret: str, path: str = SESSION, **headers: str) -> httpx.Response:
        return await self.stage.client.post(path, json={"secret": secret}, headers={**ASKED_BY_THE_PAGE, **headers})

    async def opened(self, who: Admin | None = None) -> Body:
        return body_of(await self.post(await self.link(who)))

    async def extend(self) -> httpx.Response:
        return await extend_session(self.stage.client)

    async def read_users(self, session: Body) -> httpx.Response:
        return await self.stage.client.get("/v1/admin/users", headers=bearer(session))

    async def another(self, name: str = "other") -> Admin:
        """Return another administrator."""
        return await make_admin(self.stage.client, self.stage.rows, await self.stage.login(name))

    def taken_cookie(self) -> str:
        """Remove the session's cookie from the browser, and return its value."""
        value = self.stage.client.cookies[COOKIE]
        self.stage.client.cookies.clear()
        return value


@pytest.fixture
def console(stage: Stage, root: Admin) -> Console:
    return Console(stage, root)


# Whether the console is enabled.


@swept("path", ["/admin", "/admin/", "/admin/main.js", "/admin/session"])
async def test_without_admin_page_the_console_has_no_paths(stage: Stage, path: str) -> None:
    client = await stage.make(admin_page=False)
    method = "PUT" if path == SESSION else "GET"
    problem_of(await client.request(method, path, headers=ASKED_BY_THE_PAGE), "not_found", 404)


@pytest.mark.requirement("asvs-14.2.3")
async def test_the_page_loads_nothing_from_elsewhere_and_cannot_be_framed(client: Client) -> None:
    page = await client.get("/admin/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    whole = page.headers["content-security-policy"]
    assert not re.search(r"unsafe|\*", whole)
    policy = dict(directive.split(" ", 1) for directive in whole.split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert (page.headers["x-frame-options"], page.headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "://" not in page.text
    assert (await client.get("/admin")).headers["location"] == "/admin/"
    for name in ("none.js", "..%2froutes.py", "%2e%2e/routes.py"):
        assert (await client.get(f"/admin/{name}")).status_code == 404


async def test_the_console_below_a_path_stays_below_the_path(console: Console) -> None:
    for issuer, cookie, path in (
        ("https://auth.test", f"{COOKIE}=wxc_", "Path=/;"),  # the prefix __Host- requires this path
        ("http://127.0.0.1:8000", "wxauth-console=wxc_", "Path=/auth/admin/"),
    ):
        console.stage = await console.stage.replica(issuer=f"{issuer}/auth")
        assert (await console.stage.client.get("/auth/admin")).headers["location"] == "/auth/admin/"
        set_cookie = (await console.post(await console.link(), "/auth/admin/session")).headers["set-cookie"]
        assert (set_cookie.startswith(cookie), path in set_cookie) == (True, True)


# Links.


@pytest.mark.requirement("asvs-6.4.1")
async def test_a_link_opens_a_session_once(console: Console) -> None:
    secret, root = await console.link(), console.root
    await console.stage.rows.execute("UPDATE users SET external_id = '10023'")
    answer = await console.post(secret)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=wxc_")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=3600"):
        assert attribute.lower() in cookie.lower().split("; ")
    assert "domain" not in cookie.lower()
    assert answer.json()["user"] == {"id": root.id, "nickname": "Root", "avatar_url": None}
    assert "wxc_" not in answer.text
    assert (await console.read_users(answer.json())).status_code == 200
    for session in (answer.json(), (await console.extend()).json()):
        assert get_unverified_claims(session["access_token"])["external_id"] == "10023"
    problem_of(await console.post(secret), "session_revoked", 400)
    events = [(event["type"], event["actor"], event["user_id"]) for event in await root.events()]
    assert events == [("console.opened", root.id, root.id), ("console.link_made", "operator", root.id)]


async def test_a_link_is_over_after_ten_minutes(console: Console, clock: Clock) -> None:
    secret = await console.link()
    clock.advance(minutes=10)
    for wrong in (secret, "nonsense", "x" * 128):
        problem_of(await console.post(wrong), "session_revoked", 400)
    for unfit in ("", "x" * 129):
        problem_of(await console.post(unfit), "invalid_request", 422)


async def test_a_link_opens_nothing_for_a_user_who_is_no_longer_an_administrator(console: Console) -> None:
    other, root = await console.another(), console.root
    changes: list[Body] = [{"roles": []}, {"roles": ["admin"], "status": "disabled"}]
    for change in changes:
        await root.change(other.id, roles=["admin"], status="active")
        secret = await console.link(other)
        await root.change(other.id, **change)
        problem_of(await console.post(secret), "session_revoked", 400)


async def test_a_link_opens_no_session_of_an_identity_that_leaves_meanwhile(console: Console) -> None:
    secret, rows = await console.link(), console.stage.rows
    leave = """
        WITH other AS (
            INSERT INTO users (id, created_at, last_login_at) VALUES (gen_random_uuid(), now(), now()) RETURNING id
        )
        UPDATE identities SET user_id = other.id FROM other
    """
    opened = await behind(rows, console.post(secret), HOLD_USERS, then=leave)
    problem_of(opened, "session_revoked", 400)
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE user_id::text = $1", console.root.id) == 0


async def test_a_link_is_for_the_only_administrator_by_default(console: Console) -> None:
    database, now = console.stage.services.database, console.stage.services.clock()
    assert str((await make_link(database, None, now=now)).user_id) == console.root.id
    await console.another()
    with pytest.raises(NoLink, match="several administrators"):
        await make_link(database, None, now=now)
    await set_roles(console.stage.rows)
    with pytest.raises(NoLink, match="no administrator yet"):
        await make_link(database, None, now=now)


# The session.


async def test_a_console_session_lasts_while_used_and_twelve_hours_at_most(console: Console, clock: Clock) -> None:
    await console.opened()
    for _ in range(14):
        clock.advance(minutes=50)
        assert (await console.extend()).status_code == 200
    clock.advance(minutes=20)  # now the session is twelve hours old
    problem_of(await console.extend(), "session_revoked", 400)


async def test_a_console_session_and_its_token_end_after_an_hour_without_use(console: Console, clock: Clock) -> None:
    console.stage = await console.stage.replica(access_token_ttl=86400)
    session = await console.opened()
    assert session["expires_in"] == 3600
    clock.advance(minutes=59)
    assert (await console.read_users(session)).status_code == 200
    clock.advance(minutes=1)
    problem_of(await console.extend(), "session_revoked", 400)
    assert (await console.read_users(session)).status_code == 401


@pytest.mark.requirement("asvs-7.4.4")
async def test_signing_out_ends_a_console_session_for_good(console: Console) -> None:
    session, cookies = await console.opened(), console.stage.client.cookies
    kept = cookies[COOKIE]
    assert (await console.stage.client.delete(SESSION, headers=ASKED_BY_THE_PAGE)).status_code == 204
    assert COOKIE not in cookies
    problem_of(await console.read_users(session), "invalid_token", 401)
    cookies.set(COOKIE, kept, domain="auth.test", path="/")
    problem_of(await console.extend(), "session_revoked", 400)
    assert (await console.extend()).status_code == 204  # the browser has deleted the cookie


async def test_a_neighbours_cookie_neither_replaces_nor_hides_the_consoles(console: Console) -> None:
    await console.opened(await console.another("thief"))
    thiefs = console.taken_cookie()
    await console.opened()
    ours = console.stage.client.cookies[COOKIE]
    for both in (f"{COOKIE}={ours}; {COOKIE}={thiefs}", f"{COOKIE}={thiefs}; {COOKIE}="):
        for method in ("PUT", "DELETE"):
            answer = await console.stage.client.request(method, SESSION, headers={**ASKED_BY_THE_PAGE, "Cookie": both})
            problem_of(answer, "invalid_request", 400)
            assert "set-cookie" not in answer.headers
        secret = await console.link()
        problem_of(await console.post(secret, Cookie=both), "invalid_request", 400)
        assert (await console.post(secret, Cookie="")).status_code == 200  # the link has not been used
    console.stage.client.cookies.set(COOKIE, ours, domain="auth.test", path="/")
    console.stage.client.cookies.set("neighbour", "x" * 60_000, domain="auth.test", path="/")
    assert (await console.extend()).json()["user"]["id"] == console.root.id


async def test_a_name_that_only_looks_like_the_consoles_is_not_its_cookie(console: Console) -> None:
    await console.opened()
    thiefs = console.taken_cookie()
    for space in ("\xa0", "\x85", "\x1f"):
        named = f"{space}{COOKIE}={thiefs}".encode("latin-1")
        answer = await console.stage.client.put(SESSION, headers=[(b"X-Wxauth-Console", b"1"), (b"Cookie", named)])
        assert answer.status_code == 204, ascii(space)


async def test_a_ban_and_the_loss_of_the_role_end_a_console_session_for_good(console: Console) -> None:
    other, root = await console.another(), console.root
    changes: list[Body] = [{"status": "disabled"}, {"roles": ["editor"]}]
    for change in changes:
        session = await console.opened(other)
        await root.change(other.id, **change)
        await root.change(other.id, roles=["admin", "editor"], status="active")
        problem_of(await console.read_users(session), "invalid_token", 401)
        problem_of(await console.extend(), "session_revoked", 400)
    other.answer = await console.stage.login("other")
    await console.opened(other)
    await root.change(other.id, roles=["admin"])  # the loss of another role doesn't end the session
    assert (await console.extend()).status_code == 200
    await root.change(other.id, roles=[])  # the loss of this role doesn't end the session of a phone
    assert (await console.stage.client.get("/v1/me", headers=bearer(other.answer))).status_code == 200


async def test_a_role_removed_in_the_database_ends_a_console_session_at_its_next_use(console: Console) -> None:
    await console.opened()
    await set_roles(console.stage.rows)
    problem_of(await console.extend(), "insufficient_role", 403)
    await set_roles(console.stage.rows, "admin")
    assert (await console.extend()).status_code == 204


async def test_console_tokens_and_phone_tokens_do_not_replace_each_other(console: Console) -> None:
    await console.opened()
    kept, phones = console.stage.client.cookies[COOKIE], console.root.answer["refresh_token"]
    for token in (kept, kept.replace("wxc_", "wxr_")):
        problem_of(await console.stage.refresh(token), "invalid_refresh_token", 400)
    for token in (phones, phones.replace("wxr_", "wxc_")):
        console.stage.client.cookies.set(COOKIE, token, domain="auth.test", path="/")
        problem_of(await console.extend(), "session_revoked", 400)
    assert (await console.stage.refresh(phones)).status_code == 200


@pytest.mark.slow
@pytest.mark.requirement("asvs-14.3.1")
async def test_another_site_cannot_use_the_consoles_session(console: Console) -> None:
    await console.opened()
    secret = await console.link()
    for wrong in (
        None,
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ):
        headers = {} if wrong is None else {**ASKED_BY_THE_PAGE, **wrong}
        for method, body in (("POST", {"secret": secret}), ("PUT", None), ("DELETE", None)):
            answer = await console.stage.client.request(method, SESSION, headers=headers, json=body)
            problem_of(answer, "invalid_request", 403)
    assert (await console.extend()).status_code == 200
    own = {"Origin": "https://auth.test", "Sec-Fetch-Site": "same-origin"}
    assert (await console.post(secret, **own)).status_code == 200


async def test_an_origin_of_cors_may_not_use_the_session(stage: Stage) -> None:
    client = await stage.make(cors_origins="https://friend.test")
    preflight = {
        "Origin": "https://friend.test",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "x-wxauth-console",
    }
    assert (await client.options(SESSION, headers=preflight)).status_code == 400
    asked = {**ASKED_BY_THE_PAGE, "Origin": "https://friend.test"}
    problem_of(await client.put(SESSION, headers=asked), "invalid_request", 403)


# The command `wxauth admin link`.


@pytest.mark.process
async def test_an_operator_makes_a_link(database_url: str, tmp_path: Path, console: Console) -> None:
    async def make(*words: str, page: str = "true") -> CompletedProcess[str]:
        env = {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_ISSUER": "https://auth.test", "WXAUTH_ADMIN_PAGE": page}
        return await asyncio.to_thread(run, "admin", "link", *words, cwd=tmp_path, env=env)

    made = await make("--json")
    link = json.loads(made.stdout)
    assert (link["user_id"], made.stderr) == (console.root.id, "")
    url = urlsplit(link["url"])
    assert (url.netloc, url.path, url.query) == ("auth.test", "/admin/", "")
    nobody = await make(str(NOBODY))
    assert (nobody.returncode, "users grant" in nobody.stderr) == (1, True)
    plain = await make(console.root.id, page="false")
    assert plain.stdout.startswith("https://auth.test/admin/#link=")
    assert "WXAUTH_ADMIN_PAGE=true" in plain.stderr


# The page.


def texts_of_console() -> dict[str, str]:
    texts: dict[str, str] = json.loads((CONSOLE_PAGE / "texts.json").read_text(encoding="utf-8"))
    return texts


def test_the_console_offers_for_a_webhook_the_types_that_siblings_get() -> None:
    sentences = (CONSOLE_PAGE / "event_sentences.js").read_text(encoding="utf-8")
    [(form, but)] = re.findall(r"/(\^\(.+\)\\\.)/\.test\(type\) && type !== '(.+)'", sentences)
    offered = {kind for kind in EventType if re.match(form, kind) and kind != but}
    wrong = offered ^ set(SENT_TO_SIBLINGS)
    assert not wrong, f"change SENT_TYPES in src/wxauth/console/page/event_sentences.js, because of {wrong}"


async def test_the_page_recognizes_a_path_that_the_service_lacks(client: Client) -> None:
    problem = problem_of(await client.get("/v1/admin/nothing"), "not_found", 404)
    parts = (CONSOLE_PAGE / "parts.js").read_text(encoding="utf-8")
    assert f'detail === "{problem["detail"]}"' in parts


@pytest.mark.slow
def test_every_code_with_which_a_login_is_refused_is_told_to_support() -> None:
    login = openapi()["paths"]["/v1/login"]["post"]
    codes = set(re.findall(r"'code': '(\w+)'", str(login["responses"])))
    assert "snapshot_user" in codes
    assert {name.removeprefix("refused_") for name in texts_of_console() if name.startswith("refused_")} == codes
    for page in (guide("console"), guide("console", "zh")):
        shown = page.read_text(encoding="utf-8")
        assert [code for code in codes if f"`{code}`" not in shown] == []


@pytest.mark.no_database
def test_every_scope_can_be_given_in_the_console_and_is_in_the_guide() -> None:
    offered = re.findall(r"_SCOPES = \[([^\]]*)\]", (CONSOLE_PAGE / "services.js").read_text(encoding="utf-8"))
    assert [set(re.findall(r"'(\w+)'", each)) for each in offered] == [set(Scope), set(SITE_SCOPE_NAMES)]
    for page in (guide("clients"), guide("clients", "zh")):
        shown = page.read_text(encoding="utf-8")
        assert [scope for scope in (*Scope, *SITE_SCOPE_NAMES) if f"| `{scope}`" not in shown] == []


@pytest.mark.own_database
@pytest.mark.no_signing_key
@pytest.mark.process
@pytest.mark.browser
@pytest.mark.node
@pytest.mark.parametrize("part", ["0/2", "1/2"])
def test_the_page_in_a_browser(tmp_path: Path, database_url: str, part: str) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    with running_dev(tmp_path, WXAUTH_DATABASE_URL=database_url) as dev:
        env = {
            "CHROMIUM": chromium,
            "SERVICE_URL": dev.url,
            "DESK_URL": f"{dev.wechat_url}/desk/",
            "WXAUTH": str(stand_in(tmp_path)),
            "WXAUTH_DATABASE_URL": database_url,
            "WXAUTH_ISSUER": dev.url,
            "WXAUTH_ADMIN_PAGE": "true",
            "PART": part,
        }
        run_node_tests("console/console.test.js", env)
