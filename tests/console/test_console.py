"""The console: its session is opened, extended and ended; its headers; and its page in a real browser."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.console.asking import ASKED_BY_THE_PAGE, COOKIE, SESSION, extend_session
from tests.dev.running import running_dev
from tests.docs import DOCS, openapi
from tests.fakes import Clock
from tests.forked import stand_in
from tests.problems import problem_of
from tests.processes import run
from tests.programs import needs, run_node_tests
from tests.sweeps import swept
from tests.world import (
    Admin,
    Body,
    Client,
    LogIn,
    MakeClient,
    MakeServices,
    Rows,
    bearer,
    make_admin,
    set_roles,
    until_locked,
)
from wxauth.server.clients.models import SITE_SCOPE_NAMES, Scope
from wxauth.server.console.links import NoAdministrator, SeveralAdministrators, make_link
from wxauth.server.console.routes import CONSOLE_PAGE
from wxauth.server.core.services import Services
from wxauth.server.core.trail import EventType


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(admin_page=True)


async def secret_for(services: Services, root: Admin) -> str:
    return (await make_link(services.database, UUID(root.id), now=services.clock())).secret


async def opened(services: Services, client: Client, root: Admin) -> dict[str, Any]:
    answer = await post(client, await secret_for(services, root))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(client: Client, secret: str) -> httpx.Response:
    return await client.post(SESSION, json={"secret": secret}, headers=ASKED_BY_THE_PAGE)


# Whether the console is enabled.


@swept("path", ["/admin", "/admin/", "/admin/main.js", "/admin/session"])
async def test_without_admin_page_the_console_has_no_paths(
    make_services: MakeServices, make_client: MakeClient, path: str
) -> None:
    client = make_client(await make_services())
    method = "PUT" if path == SESSION else "GET"
    problem_of(await client.request(method, path, headers=ASKED_BY_THE_PAGE), "not_found", 404)


async def test_the_page_loads_nothing_from_elsewhere_and_cannot_be_framed(client: Client) -> None:
    page = await client.get("/admin/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert (page.headers["x-frame-options"], page.headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "://" not in page.text
    assert (await client.get("/admin")).headers["location"] == "/admin/"


@pytest.mark.parametrize("name", ["none.js", "..%2froutes.py", "%2e%2e/routes.py"])
async def test_the_console_serves_only_its_own_files(client: Client, name: str) -> None:
    assert (await client.get(f"/admin/{name}")).status_code == 404


async def test_the_console_below_a_path_stays_below_the_path(
    make_services: MakeServices, make_client: MakeClient, root: Admin
) -> None:
    services = await make_services(admin_page=True, issuer="https://auth.test/auth")
    client = make_client(services)
    assert (await client.get("/auth/admin")).headers["location"] == "/auth/admin/"
    answer = await client.post(
        "/auth/admin/session", json={"secret": await secret_for(services, root)}, headers=ASKED_BY_THE_PAGE
    )
    assert "Path=/;" in answer.headers["set-cookie"]  # which the prefix requires
    services = await make_services(admin_page=True, issuer="http://127.0.0.1:8000/auth")
    answer = await make_client(services).post(
        "/auth/admin/session", json={"secret": await secret_for(services, root)}, headers=ASKED_BY_THE_PAGE
    )
    assert answer.headers["set-cookie"].startswith("wxauth-console=wxc_")
    assert "Path=/auth/admin/" in answer.headers["set-cookie"]


# A link.


async def test_a_link_opens_a_session_once(services: Services, client: Client, root: Admin) -> None:
    secret = await secret_for(services, root)
    answer = await post(client, secret)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=wxc_")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=3600"):
        assert attribute.lower() in cookie.lower().split("; ")
    assert "domain" not in cookie.lower()
    body = answer.json()
    assert body["user"] == {"id": root.id, "nickname": "Root", "avatar_url": None}
    assert "wxc_" not in answer.text
    assert (await client.get("/v1/admin/users", headers=bearer(body))).status_code == 200
    problem_of(await post(client, secret), "session_revoked", 400)


async def test_the_consoles_access_token_contains_the_external_id_as_any_does(
    services: Services, client: Client, root: Admin, rows: Rows
) -> None:
    await rows.execute("UPDATE users SET external_id = '10023'")
    tokens = [await opened(services, client, root), (await extend_session(client)).json()]
    assert [get_unverified_claims(each["access_token"])["external_id"] for each in tokens] == ["10023", "10023"]


async def test_a_link_is_over_after_ten_minutes(services: Services, client: Client, root: Admin, clock: Clock) -> None:
    secret = await secret_for(services, root)
    clock.advance(minutes=10)
    problem_of(await post(client, secret), "session_revoked", 400)
    for wrong in ("nonsense", "x" * 128):
        problem_of(await post(client, wrong), "session_revoked", 400)
    for unfit in ("", "x" * 129):
        problem_of(await post(client, unfit), "invalid_request", 422)


async def test_a_link_opens_nothing_for_a_user_who_is_no_longer_an_administrator(
    services: Services, client: Client, root: Admin, login: LogIn, rows: Rows
) -> None:
    other = await make_admin(client, rows, await login("other"))
    changes: list[Body] = [{"roles": []}, {"roles": ["admin"], "status": "disabled"}]
    for change in changes:
        await root.change(other.id, roles=["admin"], status="active")
        secret = await secret_for(services, other)
        await root.change(other.id, **change)
        problem_of(await post(client, secret), "session_revoked", 400)


async def test_a_link_opens_no_session_of_an_identity_that_leaves_the_administrator_meanwhile(
    services: Services, client: Client, root: Admin, rows: Rows
) -> None:
    secret = await secret_for(services, root)
    async with rows.transaction():
        await rows.execute("SELECT FROM users FOR UPDATE")
        opening = asyncio.create_task(post(client, secret))
        await until_locked(rows)
        await rows.execute("""
            WITH other AS (
                INSERT INTO users (id, created_at, last_login_at) VALUES (gen_random_uuid(), now(), now()) RETURNING id
            )
            UPDATE identities SET user_id = other.id FROM other
        """)
    problem_of(await opening, "session_revoked", 400)
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE user_id::text = $1", root.id) == 0


async def test_a_link_is_for_the_only_administrator_by_default(
    services: Services, client: Client, login: LogIn, rows: Rows
) -> None:
    now = services.clock()
    with pytest.raises(NoAdministrator):
        await make_link(services.database, None, now=now)
    root = await make_admin(client, rows, await login("root"))
    assert str((await make_link(services.database, None, now=now)).user_id) == root.id
    await make_admin(client, rows, await login("other"))
    with pytest.raises(SeveralAdministrators):
        await make_link(services.database, None, now=now)


async def test_a_link_and_its_session_are_in_the_trail(services: Services, client: Client, root: Admin) -> None:
    await opened(services, client, root)
    events = [(event["type"], event["actor"], event["user_id"]) for event in await root.events()]
    assert events == [("console.opened", root.id, root.id), ("console.link_made", "operator", root.id)]


# The session.


async def test_a_console_session_lasts_as_long_as_it_is_used_and_twelve_hours_at_most(
    services: Services, client: Client, root: Admin, clock: Clock
) -> None:
    await opened(services, client, root)
    for _ in range(14):
        clock.advance(minutes=50)
        assert (await extend_session(client)).status_code == 200
    clock.advance(minutes=20)  # twelve hours in all
    problem_of(await extend_session(client), "session_revoked", 400)


async def test_a_console_session_and_its_access_token_end_after_an_hour_without_use(
    make_services: MakeServices, make_client: MakeClient, root: Admin, clock: Clock
) -> None:
    services = await make_services(admin_page=True, access_token_ttl=86400)
    client = make_client(services)
    body = await opened(services, client, root)
    assert body["expires_in"] == 3600
    clock.advance(minutes=59)
    assert (await client.get("/v1/admin/users", headers=bearer(body))).status_code == 200
    clock.advance(minutes=1)
    problem_of(await extend_session(client), "session_revoked", 400)
    assert (await client.get("/v1/admin/users", headers=bearer(body))).status_code == 401


async def test_signing_out_ends_a_console_session_for_good(services: Services, client: Client, root: Admin) -> None:
    body = await opened(services, client, root)
    kept = client.cookies[COOKIE]
    ended = await client.delete(SESSION, headers=ASKED_BY_THE_PAGE)
    assert ended.status_code == 204
    assert COOKIE not in client.cookies
    problem_of(await client.get("/v1/admin/users", headers=bearer(body)), "invalid_token", 401)
    client.cookies.set(COOKIE, kept, domain="auth.test", path="/")
    problem_of(await extend_session(client), "session_revoked", 400)
    assert (await extend_session(client)).status_code == 204  # the browser has deleted the cookie


async def test_a_neighbours_cookie_does_not_replace_the_consoles(
    services: Services, client: Client, root: Admin, login: LogIn, rows: Rows
) -> None:
    await opened(services, client, await make_admin(client, rows, await login("thief")))
    thiefs = client.cookies[COOKIE]
    client.cookies.clear()
    await opened(services, client, root)
    for both in (f"{COOKIE}={client.cookies[COOKIE]}; {COOKIE}={thiefs}", f"{COOKIE}={thiefs}; {COOKIE}="):
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, SESSION, headers={**ASKED_BY_THE_PAGE, "Cookie": both})
            problem_of(answer, "invalid_request", 400)
            assert "set-cookie" not in answer.headers
    assert (await extend_session(client)).json()["user"]["id"] == root.id


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x1f"], ids=ascii)
async def test_a_name_that_only_looks_like_the_consoles_is_not_its_cookie(
    services: Services, client: Client, root: Admin, space: str
) -> None:
    await opened(services, client, root)
    thiefs = client.cookies[COOKIE]
    client.cookies.clear()
    named = f"{space}{COOKIE}={thiefs}".encode("latin-1")
    answer = await client.put(SESSION, headers=[(b"X-Wxauth-Console", b"1"), (b"Cookie", named)])
    assert answer.status_code == 204


async def test_a_ban_and_the_loss_of_the_role_end_a_console_session_for_good(
    services: Services, client: Client, root: Admin, login: LogIn, rows: Rows
) -> None:
    other = await make_admin(client, rows, await login("other"))
    for change in ({"status": "disabled"}, {"roles": ["editor"]}):
        body = await opened(services, client, other)
        await root.change(other.id, **change)
        await root.change(other.id, roles=["admin"], status="active")
        problem_of(await client.get("/v1/admin/users", headers=bearer(body)), "invalid_token", 401)
        problem_of(await extend_session(client), "session_revoked", 400)


async def test_the_loss_of_another_role_ends_nothing_nor_does_that_of_admin_end_a_phones_session(
    services: Services, client: Client, root: Admin, login: LogIn, rows: Rows
) -> None:
    other = await make_admin(client, rows, await login("other"))
    await root.change(other.id, roles=["admin", "editor"])
    await opened(services, client, other)
    await root.change(other.id, roles=["admin"])
    assert (await extend_session(client)).status_code == 200
    await root.change(other.id, roles=[])
    assert (await client.get("/v1/me", headers=bearer(other.answer))).status_code == 200


async def test_a_role_removed_in_the_database_ends_a_console_session_at_its_next_use(
    services: Services, client: Client, root: Admin, rows: Rows
) -> None:
    await opened(services, client, root)
    await set_roles(rows)
    problem_of(await extend_session(client), "insufficient_role", 403)
    await set_roles(rows, "admin")
    assert (await extend_session(client)).status_code == 204


async def test_console_tokens_and_phone_tokens_do_not_replace_each_other(
    services: Services, client: Client, root: Admin
) -> None:
    await opened(services, client, root)
    kept = client.cookies[COOKIE]
    for token in (kept, kept.replace("wxc_", "wxr_")):
        problem_of(await client.post("/v1/refresh", json={"refresh_token": token}), "invalid_refresh_token", 400)
    phones = root.answer["refresh_token"]
    for token in (phones, phones.replace("wxr_", "wxc_")):
        client.cookies.set(COOKIE, token, domain="auth.test", path="/")
        problem_of(await extend_session(client), "session_revoked", 400)
    assert (await client.post("/v1/refresh", json={"refresh_token": phones})).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**ASKED_BY_THE_PAGE, "Origin": "https://evil.test"},
        {**ASKED_BY_THE_PAGE, "Origin": "null"},
        {**ASKED_BY_THE_PAGE, "Sec-Fetch-Site": "same-site"},
        {**ASKED_BY_THE_PAGE, "Sec-Fetch-Site": "cross-site"},
        {**ASKED_BY_THE_PAGE, "Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_another_site_cannot_use_the_consoles_session(
    services: Services, client: Client, root: Admin, headers: dict[str, str]
) -> None:
    await opened(services, client, root)
    secret = await secret_for(services, root)
    for method, body in (("POST", {"secret": secret}), ("PUT", None), ("DELETE", None)):
        problem_of(await client.request(method, SESSION, headers=headers, json=body), "invalid_request", 403)
    assert (await extend_session(client)).status_code == 200
    own = {"Origin": "https://auth.test", "Sec-Fetch-Site": "same-origin"}
    answer = await client.post(SESSION, json={"secret": secret}, headers={**ASKED_BY_THE_PAGE, **own})
    assert answer.status_code == 200


async def test_an_origin_allowed_by_cors_may_not_use_the_consoles_session(
    make_services: MakeServices, make_client: MakeClient, root: Admin
) -> None:
    client = make_client(await make_services(admin_page=True, cors_origins="https://friend.test"))
    preflight = {
        "Origin": "https://friend.test",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "x-wxauth-console",
    }
    assert (await client.options(SESSION, headers=preflight)).status_code == 400
    asked = {**ASKED_BY_THE_PAGE, "Origin": "https://friend.test"}
    problem_of(await client.put(SESSION, headers=asked), "invalid_request", 403)


# By command.


@pytest.mark.process
async def test_an_operator_makes_a_link(
    database_url: str, tmp_path: Path, services: Services, client: Client, root: Admin
) -> None:
    env = {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_ISSUER": "https://auth.test", "WXAUTH_ADMIN_PAGE": "true"}
    made = await asyncio.to_thread(run, "admin", "link", "--json", cwd=tmp_path, env=env)
    link = json.loads(made.stdout)
    assert (link["user_id"], made.stderr) == (root.id, "")
    url = urlsplit(link["url"])
    assert (url.netloc, url.path, url.query) == ("auth.test", "/admin/", "")
    nobody = await asyncio.to_thread(
        run, "admin", "link", "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17", cwd=tmp_path, env=env
    )
    assert (nobody.returncode, "users grant" in nobody.stderr) == (1, True)
    plain = await asyncio.to_thread(
        run, "admin", "link", root.id, cwd=tmp_path, env={**env, "WXAUTH_ADMIN_PAGE": "false"}
    )
    assert plain.stdout.startswith("https://auth.test/admin/#link=")
    assert "WXAUTH_ADMIN_PAGE=true" in plain.stderr


# The page.


def test_every_type_of_event_has_its_sentence() -> None:
    listed = re.findall(r"'event_([a-z_]+\.[a-z_]+)': \[", (CONSOLE_PAGE / "texts.js").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(EventType)


@pytest.mark.slow
def test_every_code_with_which_a_login_is_refused_is_told_to_support() -> None:
    login = openapi()["paths"]["/v1/login"]["post"]
    codes = set(re.findall(r"'code': '(\w+)'", str(login["responses"])))
    assert "snapshot_user" in codes
    texts = (CONSOLE_PAGE / "texts.js").read_text(encoding="utf-8")
    assert set(re.findall(r"  refused_(\w+): \[", texts)) == codes
    for page in ("console.md", "console.zh-CN.md"):
        shown = (DOCS / page).read_text(encoding="utf-8")
        assert [code for code in codes if f"`{code}`" not in shown] == []


@pytest.mark.no_database
def test_every_scope_can_be_given_in_the_console_and_is_in_the_guide() -> None:
    scopes = {*Scope, *SITE_SCOPE_NAMES}
    offered = (CONSOLE_PAGE / "services.js").read_text(encoding="utf-8").partition("SCOPES = [")[2].partition("]")[0]
    assert set(re.findall(r"'(\w+)'", offered)) == scopes
    for page in ("clients.md", "clients.zh-CN.md"):
        shown = (DOCS / page).read_text(encoding="utf-8")
        assert [scope for scope in scopes if f"| `{scope}`" not in shown] == []


@pytest.mark.own_database
@pytest.mark.no_signing_key
@pytest.mark.process
@pytest.mark.browser
@pytest.mark.node
@pytest.mark.parametrize("part", ["0/3", "1/3", "2/3"])
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
