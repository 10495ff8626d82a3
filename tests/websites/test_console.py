"""Administrators log in to the console by scan, and nobody can use another person's scan."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.console.asking import ASKED_BY_THE_PAGE, COOKIE, SESSION, extend_session
from tests.fakes import Clock
from tests.problems import problem_of
from tests.websites.browsers import VERIFIER, Browser, exchanged, refused, sent
from tests.world import (
    CAMERA,
    FAR,
    AddSite,
    Admin,
    Body,
    Client,
    GetPhone,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    bearer,
    later,
    make_admin,
)
from wxauth.server.clients.rows import find_site
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.background import Promises
from wxauth.server.core.migrations import migrate
from wxauth.server.core.services import Services
from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.build import Waits, build_services
from wxauth.tokens.keys import TokenIssuer

CONSOLE = "https://auth.test/admin/"
ASKED = {"client_id": "wxauth-admin", "redirect_uri": CONSOLE, "scope": "wxauth:admin"}


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    services = await make_services(admin_page=True)
    await services[ConsoleSessions].add_as_site()  # as every start does
    return services


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return Browser(make_client(services))


@pytest.fixture
async def root(client: Client, phone: Phone, rows: Rows) -> Admin:
    """An administrator, whose phone it is."""
    return await make_admin(client, rows, phone.tokens)


async def code_for(browser: Browser, phone: Phone, **asked: str) -> str:
    """The parameters with which the browser returns to the console after this phone has approved."""
    tab = await browser.show(**{**ASKED, **asked})
    await tab.decided_by(phone)
    return sent(await tab.go_on(), to=asked.get("redirect_uri", CONSOLE))["code"]


async def post(client: Client, code: str, verifier: str = VERIFIER) -> httpx.Response:
    return await client.post(SESSION, json={"code": code, "code_verifier": verifier}, headers=ASKED_BY_THE_PAGE)


async def opened(browser: Browser, phone: Phone) -> dict[str, Any]:
    answer = await post(browser.client, await code_for(browser, phone))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def sessions_of(phone: Phone) -> list[Any]:
    answer = await phone.client.get("/v1/me/sessions", headers=bearer(phone.tokens))
    return [session["client_id"] for session in answer.json()["items"]]


async def test_an_administrators_scan_opens_the_console(browser: Browser, phone: Phone, root: Admin) -> None:
    answer = await post(browser.client, await code_for(browser, phone))
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE.lower()}=wxc_")
    for attribute in ("httponly", "secure", "samesite=strict", "path=/;", "max-age=3600"):
        assert attribute in cookie
    assert answer.json()["user"]["id"] == root.id
    assert (await browser.client.get("/v1/admin/users", headers=bearer(answer.json()))).status_code == 200
    assert (await extend_session(browser.client)).status_code == 200
    assert await sessions_of(phone) == ["wxauth-admin", None]
    events = [(event["type"], event["data"].get("by")) for event in await root.events(user_id=root.id)]
    assert events == [("console.opened", "scan"), ("site.authorized", None), ("scan.approved", None)]


async def test_an_old_login_opens_no_console_although_its_token_is_good(
    browser: Browser, phone: Phone, root: Admin, get_phone: GetPhone, clock: Clock
) -> None:
    old = replace(phone, tokens=(await later(root, clock)).answer)
    tab = await browser.show(**ASKED)
    problem_of(await old.claim(scene=tab.scene, entry_scene=CAMERA), "login_too_old", 403)
    typed = tab.found(r'class="typed">([A-Z-]{9})<')
    problem_of(await old.claim(user_code=typed), "login_too_old", 403)
    again = await get_phone("alice")
    claimed = await again.claim(scene=tab.scene, entry_scene=CAMERA)
    assert claimed.status_code == 200
    problem_of(await old.claim(scene=tab.scene, entry_scene=CAMERA), "login_too_old", 403)  # it takes over no claim
    assert (await again.decide(claimed.json()["id"])).status_code == 204
    assert (await post(browser.client, sent(await tab.go_on(), to=CONSOLE)["code"])).status_code == 200


async def test_the_token_of_the_console_is_for_administration_only(browser: Browser, phone: Phone, root: Admin) -> None:
    body = await opened(browser, phone)
    for path in ("/v1/me", "/v1/me/sessions", "/v1/userinfo"):
        problem_of(await browser.client.get(path, headers=bearer(body)), "insufficient_scope", 403)
    claim = await browser.client.post("/v1/me/scans", json={"user_code": "BCDF-GHJK"}, headers=bearer(body))
    problem_of(claim, "insufficient_scope", 403)


async def test_a_user_without_a_staff_role_is_refused_and_no_session_remains(browser: Browser, phone: Phone) -> None:
    answer = await post(browser.client, await code_for(browser, phone))
    problem_of(answer, "insufficient_role", 403)
    assert "set-cookie" not in answer.headers
    assert await sessions_of(phone) == [None]
    assert (await extend_session(browser.client)).status_code == 204


async def test_a_code_without_its_verifier_opens_nothing_and_is_not_spent(
    browser: Browser, phone: Phone, root: Admin
) -> None:
    code = await code_for(browser, phone)
    problem_of(await post(browser.client, code, "x" * 43), "session_revoked", 400)
    for unfit in (
        {"code": code},
        {"code": code, "code_verifier": VERIFIER, "secret": "x"},
        {"code_verifier": VERIFIER},
    ):
        answer = await browser.client.post(SESSION, json=unfit, headers=ASKED_BY_THE_PAGE)
        problem_of(answer, "invalid_request", 422)
    assert (await post(browser.client, code)).status_code == 200


async def test_another_site_cannot_have_a_code_of_its_own_redeemed(browser: Browser, phone: Phone, root: Admin) -> None:
    code = await code_for(browser, phone)
    body = {"code": code, "code_verifier": VERIFIER}
    for headers in (
        {},
        {**ASKED_BY_THE_PAGE, "Origin": "https://evil.test"},
        {**ASKED_BY_THE_PAGE, "Sec-Fetch-Site": "same-site"},
    ):
        answer = await browser.client.post(SESSION, json=body, headers=headers)
        problem_of(answer, "invalid_request", 403)
    assert (await post(browser.client, code)).status_code == 200


async def test_a_code_that_is_used_again_ends_the_session_that_it_made(
    browser: Browser, phone: Phone, root: Admin, make_client: MakeClient, services: Services
) -> None:
    code = await code_for(browser, phone)
    body = (await post(browser.client, code)).json()
    problem_of(await post(make_client(services), code), "session_revoked", 400)
    problem_of(await browser.client.get("/v1/admin/users", headers=bearer(body)), "invalid_token", 401)
    problem_of(await extend_session(browser.client), "session_revoked", 400)


async def test_a_code_is_over_after_a_minute(browser: Browser, phone: Phone, root: Admin, clock: Clock) -> None:
    code = await code_for(browser, phone)
    clock.advance(seconds=60)
    problem_of(await post(browser.client, code), "session_revoked", 400)


async def test_a_code_works_only_for_the_site_that_it_was_made_for(
    browser: Browser, phone: Phone, root: Admin, add_site: AddSite
) -> None:
    shop = await add_site(is_public=True)
    of_shop = await code_for(
        browser, phone, client_id="shop", redirect_uri="https://shop.example.com/callback", scope="openid"
    )
    problem_of(await post(browser.client, of_shop), "session_revoked", 400)
    of_console = await code_for(browser, phone)
    refused(await exchanged(shop, of_console, redirect_uri=CONSOLE), "invalid_grant")


@pytest.mark.oldest_postgres
async def test_the_token_endpoint_gives_nothing_in_the_consoles_name(
    browser: Browser, phone: Phone, root: Admin
) -> None:
    """Its sessions would last for weeks, with a refresh token that scripts can read."""
    form = {"client_id": "wxauth-admin", "redirect_uri": CONSOLE, "code_verifier": VERIFIER}
    code = await code_for(browser, phone)
    for grant in ("authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"):
        answer = await browser.client.post("/v1/token", data={**form, "grant_type": grant, "code": code})
        refused(answer, "unauthorized_client")
    assert (await post(browser.client, code)).status_code == 200


async def test_a_program_at_another_port_of_this_machine_cannot_take_the_consoles_place(
    make_services: MakeServices, make_client: MakeClient, phone: Phone, root: Admin
) -> None:
    services = await make_services(admin_page=True, issuer="http://127.0.0.1:8000")
    await services[ConsoleSessions].add_as_site()
    browser = Browser(make_client(services))
    local = replace(phone, client=make_client(services), tokens=await login_at(browser, services, phone))
    code = await code_for(browser, local, redirect_uri="http://127.0.0.1:6666/admin/")
    problem_of(await post(browser.client, code), "session_revoked", 400)


async def login_at(browser: Browser, services: Services, phone: Phone) -> dict[str, Any]:
    """The same person's tokens, of a service with another issuer."""
    user = phone.tokens["user"]
    now = services.clock()
    token = TokenIssuer(issuer=services.settings.issuer, audience=services.settings.audience).issue(
        services[KeyRing].signing_key(now),
        user_id=UUID(user["id"]),
        session_id=UUID(phone.tokens["session_id"]),
        app_id=user["app_id"],
        openid=user["openid"],
        roles=(),
        now=int(now.timestamp()),
        expires_in=900,
    )
    return {**phone.tokens, "access_token": token}


async def test_an_administrator_far_from_the_browser_cannot_be_made_to_open_the_console(
    browser: Browser, phone: Phone, root: Admin
) -> None:
    tab = await browser.show(**ASKED)
    at = {**bearer(phone.tokens), "X-Forwarded-For": FAR}
    claim = await phone.client.post("/v1/me/scans", json={"scene": tab.scene, "entry_scene": CAMERA}, headers=at)
    problem_of(claim, "scan_too_far", 403)


async def test_a_ban_and_the_loss_of_the_role_end_a_console_session_for_good(
    browser: Browser, phone: Phone, root: Admin, get_phone: GetPhone, rows: Rows
) -> None:
    changes: list[Body] = [{"status": "disabled"}, {"roles": []}]
    for change in changes:
        other = await get_phone("other")
        await make_admin(root.client, rows, other.tokens)
        body = await opened(browser, other)
        await root.change(other.user_id, **change)
        await root.change(other.user_id, roles=["admin"], status="active")
        problem_of(await browser.client.get("/v1/admin/users", headers=bearer(body)), "invalid_token", 401)
        problem_of(await extend_session(browser.client), "session_revoked", 400)


async def test_logins_to_websites_and_to_the_console_are_counted(
    browser: Browser, phone: Phone, root: Admin, add_site: AddSite
) -> None:
    async def logins() -> int:
        return (await root.read("/numbers", days=1))["days"][0]["logins"]

    before = await logins()
    await opened(browser, phone)
    shop = await add_site(is_public=True)
    asked = {"client_id": "shop", "redirect_uri": "https://shop.example.com/callback", "scope": "openid"}
    tokens = (await exchanged(shop, await code_for(browser, phone, **asked))).json()
    await extend_session(browser.client)
    await shop.refresh(tokens)
    assert await logins() == before + 2


# The site that it is.


async def test_the_phone_shows_which_site_it_is(browser: Browser, phone: Phone, root: Admin) -> None:
    tab = await browser.show(**ASKED)
    body = (await phone.claim(scene=tab.scene, entry_scene=CAMERA)).json()["client"]
    assert body == {"id": "wxauth-admin", "title": "管理后台 Console", "origin": "https://auth.test"}


async def test_without_admin_page_the_console_is_no_site(make_services: MakeServices, make_client: MakeClient) -> None:
    services = await make_services()
    await services[ConsoleSessions].add_as_site()
    assert (await Browser(make_client(services)).open(**ASKED)).status_code == 400


@pytest.mark.no_database
async def test_a_service_that_starts_before_its_database_adds_the_site_later(
    make_settings: Callable[..., Settings], empty_database_url: str, clock: Clock
) -> None:
    """Its tables do not exist yet, which is reported like an unreachable database."""
    services = build_services(
        make_settings(admin_page=True, database_url=empty_database_url), clock=clock, waits=Waits(promises=0.01)
    )
    async with aclosing(services):
        await services[ConsoleSessions].add_as_site()
        await migrate(services.database)
        await services[Promises].drain()
        found = await find_site(services.database, "wxauth-admin")
    assert found is not None
    assert (list(found.redirect_uris), list(found.scopes)) == ([CONSOLE], ["wxauth:admin"])
