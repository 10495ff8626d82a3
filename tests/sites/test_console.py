"""Administrators log in to the console with a scan, and nobody can use another user's scan.

`tests/console/test_console.py` tests what applies to every session of the console.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from tests.conftest import made_of_fixtures
from tests.console.asking import ASKED_BY_THE_PAGE, COOKIE, SESSION, extend_session
from tests.fakes import Clock
from tests.guard.hostile import Forger
from tests.problems import problem_of
from tests.sites.browsers import SHOP, VERIFIER, Browser, House, refused, sent, wait_in_queues
from tests.sites.persons import CONSOLE
from tests.world import FAR, Admin, Body, MakeClient, MakeServices, Phone, Rows, bearer, later, make_admin, set_roles
from wxauth.clients.clients import find_site
from wxauth.console.sessions import ConsoleSessions
from wxauth.core.background import Retries
from wxauth.core.migrations import migrate
from wxauth.core.services import Services
from wxauth.keys.keyring import KeyRing
from wxauth.service.build import Timeouts, build_services
from wxauth.settings.settings import Settings

PAGE = CONSOLE["redirect_uri"]


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    services = await make_services(admin_page=True)
    await services[ConsoleSessions].add_as_site()  # every start of the service does this
    return services


@dataclass(slots=True, kw_only=True)
class Office(House):
    """A house with the phone of an administrator, and the console in the browser."""

    root: Admin

    async def console_code(self, **asked: str) -> str:
        """Return the authorization code with which the browser returns to the console after the phone has approved."""
        tab = await self.browser.show(**{**CONSOLE, **asked})
        return (await tab.approved_by(self.phone, to=asked.get("redirect_uri", PAGE)))["code"]

    async def post(self, code: str, verifier: str = VERIFIER, *, browser: Browser | None = None) -> httpx.Response:
        body = {"code": code, "code_verifier": verifier}
        return await (browser or self.browser).client.post(SESSION, json=body, headers=ASKED_BY_THE_PAGE)

    async def opened(self) -> Body:
        return (await self.post(await self.console_code())).json()

    async def read_users(self, session: Body) -> httpx.Response:
        return await self.browser.client.get("/v1/admin/users", headers=bearer(session))

    async def extend(self) -> httpx.Response:
        return await extend_session(self.browser.client)

    async def sessions(self) -> list[Any]:
        return [session["client_id"] for session in (await self.phone.ask("GET", "/sessions")).json()["items"]]


@pytest.fixture
async def root(phone: Phone, rows: Rows) -> Admin:
    return await make_admin(phone.client, rows, phone.tokens)


@pytest.fixture
def office(request: pytest.FixtureRequest) -> Office:
    return made_of_fixtures(Office, request)


async def test_an_administrators_scan_opens_the_console(office: Office) -> None:
    claimed = await (await office.browser.show(**CONSOLE)).claimed_by(office.phone)
    site = {**SHOP, "id": "wxauth-admin", "title": "管理后台 Console", "origin": "https://auth.test"}
    assert claimed["client"] == site
    answer = await office.post(await office.console_code())
    assert answer.status_code == 200
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=wxc_")
    assert answer.json()["user"]["id"] == office.root.id
    assert (await office.read_users(answer.json())).status_code == 200
    assert (await office.extend()).status_code == 200
    assert await office.sessions() == ["wxauth-admin", None]
    events = [(event["type"], event["data"].get("by")) for event in await office.root.events(user_id=office.root.id)]
    assert events == [("console.opened", "scan"), ("site.authorized", None), ("scan.approved", None)]


async def test_an_administrator_far_from_the_browser_cannot_be_made_to_open_the_console(office: Office) -> None:
    tab = await office.browser.show(**CONSOLE)
    office.phone.client.headers["X-Forwarded-For"] = FAR
    problem_of(await tab.scanned_by(office.phone), "scan_too_far", 403)


async def test_an_old_login_opens_no_console_although_its_token_is_good(office: Office) -> None:
    old = replace(office.phone, tokens=(await later(office.root, office.stage.clock)).answer)
    tab = await office.browser.show(**CONSOLE)
    problem_of(await old.claim(user_code=tab.found(r'class="typed">([A-Z-]{9})<')), "login_too_old", 403)
    problem_of(await tab.scanned_by(old), "login_too_old", 403)
    again = await office.get_phone("alice")
    claimed = await tab.claimed_by(again)
    problem_of(await tab.scanned_by(old), "login_too_old", 403)  # the old login can't take over the claim
    assert (await again.decide(claimed["id"])).status_code == 204
    assert (await office.post(sent(await tab.go_on(), to=PAGE)["code"])).status_code == 200


@pytest.mark.parametrize("role", ["admin", "support"])
async def test_who_becomes_staff_after_the_claim_must_be_near_and_fresh(office: Office, role: str) -> None:
    bob, tab = await office.get_phone("bob"), await office.browser.show(**CONSOLE)
    bob.client.headers["X-Forwarded-For"] = FAR
    claimed = await tab.claimed_by(bob)
    await office.root.change(bob.user_id, roles=[role])
    problem_of(await bob.decide(claimed["id"]), "scan_too_far", 403)
    assert await tab.state() == "claimed"
    del bob.client.headers["X-Forwarded-For"]
    assert (await bob.decide(claimed["id"])).status_code == 204

    await office.root.change(bob.user_id, roles=[])
    old = replace(bob, tokens=(await later(Admin(bob.client, bob.tokens), office.stage.clock)).answer)
    claimed = await (await office.browser.show(**CONSOLE)).claimed_by(old)
    await set_roles(office.stage.rows, role, user_id=bob.user_id)
    problem_of(await old.decide(claimed["id"]), "login_too_old", 403)


async def test_the_token_of_the_console_is_for_administration_only(office: Office) -> None:
    session, client = bearer(await office.opened()), office.browser.client
    for path in ("/v1/me", "/v1/me/sessions", "/v1/userinfo"):
        problem_of(await client.get(path, headers=session), "insufficient_scope", 403)
    claim = await client.post("/v1/me/scans", json={"user_code": "BCDF-GHJK"}, headers=session)
    problem_of(claim, "insufficient_scope", 403)


async def test_a_user_without_a_staff_role_is_refused_and_no_session_remains(office: Office) -> None:
    office.phone = await office.get_phone("bob")
    answer = await office.post(await office.console_code())
    problem_of(answer, "insufficient_role", 403)
    assert "set-cookie" not in answer.headers
    assert await office.sessions() == [None]
    assert (await office.extend()).status_code == 204


async def test_a_code_without_its_verifier_or_from_another_site_opens_nothing_and_is_not_spent(office: Office) -> None:
    code, client = await office.console_code(), office.browser.client
    whole = {"code": code, "code_verifier": VERIFIER}
    problem_of(await office.post(code, "x" * 43), "session_revoked", 400)
    for unfit in ({"code": code}, {**whole, "secret": "x"}, {"code_verifier": VERIFIER}):
        problem_of(await client.post(SESSION, json=unfit, headers=ASKED_BY_THE_PAGE), "invalid_request", 422)
    problem_of(await client.post(SESSION, json=whole), "invalid_request", 403)
    assert (await office.post(code)).status_code == 200


async def test_a_code_works_once_for_a_minute_and_only_for_the_site_that_it_was_made_for(office: Office) -> None:
    code = await office.console_code()
    session = (await office.post(code)).json()
    problem_of(await office.post(code, browser=office.another_browser()), "session_revoked", 400)
    problem_of(await office.read_users(session), "invalid_token", 401)
    problem_of(await office.extend(), "session_revoked", 400)
    code = await office.console_code()
    office.stage.clock.advance(seconds=60)
    problem_of(await office.post(code), "session_revoked", 400)
    problem_of(await office.post(await office.code()), "session_revoked", 400)
    refused(await office.redeem(await office.console_code(), redirect_uri=PAGE), "invalid_grant")


async def test_a_code_that_expires_in_the_queue_opens_no_console(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await office.console_code()
    wait_in_queues(monkeypatch, office.stage.clock)
    problem_of(await office.post(code), "session_revoked", 400)


@pytest.mark.oldest_postgres
async def test_the_token_endpoint_gives_nothing_in_the_consoles_name(office: Office) -> None:
    """Tokens would last for weeks, with a refresh token that scripts can read."""
    code = await office.console_code()
    form = {"client_id": "wxauth-admin", "redirect_uri": PAGE, "code_verifier": VERIFIER, "code": code}
    for grant in ("authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"):
        answer = await office.stage.client.post("/v1/token", data={**form, "grant_type": grant})
        refused(answer, "unauthorized_client")
    assert (await office.post(code)).status_code == 200


async def test_a_program_at_another_port_of_this_machine_cannot_take_the_consoles_place(office: Office) -> None:
    services = await office.stage.make_services(admin_page=True, issuer="http://127.0.0.1:8000")
    await services[ConsoleSessions].add_as_site()
    office.browser = Browser(office.stage.make_client(services))
    forger = Forger(office.phone.tokens["access_token"], services[KeyRing].signing_key(services.clock()))
    tokens = {**office.phone.tokens, "access_token": forger.with_claims(iss="http://127.0.0.1:8000")}
    office.phone = replace(office.phone, client=office.browser.client, tokens=tokens)
    code = await office.console_code(redirect_uri="http://127.0.0.1:6666/admin/")
    problem_of(await office.post(code), "session_revoked", 400)


# Tests of the console as a site.


async def test_without_admin_page_the_console_is_no_site(make_services: MakeServices, make_client: MakeClient) -> None:
    services = await make_services()
    await services[ConsoleSessions].add_as_site()
    assert (await Browser(make_client(services)).open(**CONSOLE)).status_code == 400


@pytest.mark.no_database
async def test_a_service_that_starts_before_its_database_adds_the_site_later(
    make_settings: Callable[..., Settings], empty_database_url: str, clock: Clock
) -> None:
    """The tables don't exist yet, and wxauth reports this like an unreachable database."""
    settings = make_settings(admin_page=True, database_url=empty_database_url)
    async with aclosing(build_services(settings, clock=clock, timeouts=Timeouts(retries=0.01))) as services:
        await services[ConsoleSessions].add_as_site()
        await migrate(services.database)
        await services[Retries].drain()
        found = await find_site(services.database, "wxauth-admin")
    assert found is not None
    assert (list(found.redirect_uris), list(found.scopes)) == ([PAGE], ["wxauth:admin"])
