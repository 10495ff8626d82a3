"""Sites together with guards, an issuer below a path, an unreachable database, and other keys."""

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI
from jose import jwt

from tests.fakes import APP, Clock
from tests.problems import problem_of
from tests.sweeps import swept
from tests.websites.browsers import ASKED, Browser, Tab, refused, sent
from tests.websites.test_device_grant import tokens_of
from tests.world import (
    CALLBACK,
    CAMERA,
    AddSite,
    Admin,
    Client,
    LogIn,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
)
from wxauth.guard import BearerGuard
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.services import Services
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.resealing import reseal
from wxauth.testing import TestIssuer
from wxauth.tokens.claims import Principal


async def test_a_guard_finds_the_mini_program_in_a_websites_token(
    services: Services, add_site: AddSite, phone: Phone, clock: Clock
) -> None:
    site = await add_site(device=True, scopes=["openid", "roles"])
    guard = BearerGuard("https://auth.test", keys=services[KeyRing], clock=lambda: clock().timestamp())
    user = await guard.verify((await tokens_of(site, phone))["access_token"])
    assert (str(user.id), user.app_id, user.openid) == (phone.user_id, APP["app_id"], phone.tokens["user"]["openid"])
    assert user.scope == {"openid", "roles"}
    own = await guard.verify(phone.tokens["access_token"])
    assert (own.app_id, own.scope) == (APP["app_id"], frozenset())


@pytest.mark.no_database
@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"app_id": "wx1", "client_id": "shop", "scope": "openid"}, 200),
        ({"app_id": "wx1", "client_id": "shop", "scope": ""}, 200),
        ({"app_id": "wx1", "client_id": "shop"}, 401),
        ({"app_id": 1, "client_id": "shop", "scope": "openid"}, 401),
        ({"app_id": "wx1", "client_id": "shop", "scope": ["openid"]}, 401),
    ],
)
async def test_a_websites_token_is_whole_or_none(claims: dict[str, Any], expected: int) -> None:
    issuer = TestIssuer()
    app = FastAPI()
    guard = issuer.guard()

    @app.get("/")
    async def whose(user: Principal = Depends(guard)) -> str:  # noqa: B008, FAST002
        return user.app_id

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://orders.test") as client:
        answer = await client.get("/", headers=issuer.headers(claims=claims))
    assert answer.status_code == expected
    if expected == 200:
        assert answer.json() == "wx1"


@pytest.mark.no_database
@pytest.mark.parametrize("path", ["/v1/token", "/v1/revoke", "/v1/device_authorization"])
async def test_an_outage_of_the_database_is_reported_in_the_form_of_oauth(offline_client: Client, path: str) -> None:
    form = {"client_id": "shop", "client_secret": "x", "grant_type": "refresh_token", "token": "x"}
    answer = await offline_client.post(path, data=form)
    refused(answer, "temporarily_unavailable", 503)
    assert answer.headers["retry-after"]


@pytest.mark.no_database
async def test_a_database_that_is_away_is_a_page_to_a_browser(offline_client: Client) -> None:
    cookie = {"Cookie": "__Host-wxauth-browser=" + "c" * 43}
    shown = await offline_client.get("/v1/authorize", params=ASKED)
    decided = await offline_client.get(f"/v1/authorize/{'r' * 22}/next", headers=cookie)
    for answer in (shown, decided):
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert answer.headers["retry-after"]
    assert (await offline_client.get("/d")).status_code == 200


@pytest.mark.parametrize("is_cut_off", [True, False])
async def test_an_issuer_may_have_a_path(
    make_services: MakeServices, make_client: MakeClient, add_site: AddSite, phone: Phone, is_cut_off: bool
) -> None:
    site = await add_site(device=True)
    client = make_client(await make_services(issuer="https://auth.test/auth", scan_code="link"))
    prefix = "" if is_cut_off else "/auth"
    page = await client.get(f"{prefix}/v1/authorize", params=ASKED)
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(url.startswith("/auth/") for url in loaded), loaded
    tab = Tab(Browser(client), page.text)
    for url in [*loaded[:3], f"/auth/v1/authorize/{tab.request_id}/state"]:
        assert (await client.get(url.replace("&amp;", "&"))).status_code == 200, url
    login = replace(phone, client=client)
    started = await Site(client, site.name, site.secret).start()
    assert started["code_image"].startswith("https://auth.test/auth/v1/scans/")
    metadata = (await client.get(f"{prefix}/.well-known/openid-configuration")).json()
    assert metadata["authorization_endpoint"] == "https://auth.test/auth/v1/authorize"
    # Another issuer's token opens nothing here.
    problem_of(await login.claim(scene=tab.scene, entry_scene=CAMERA), "invalid_token", 401)


async def test_an_id_token_of_a_former_issuer_logs_nobody_out(
    make_services: MakeServices, make_client: MakeClient, add_site: AddSite, phone: Phone
) -> None:
    tokens = await tokens_of(await add_site(device=True), phone)
    moved = make_client(await make_services(issuer="https://new.test"))
    hint = {"id_token_hint": tokens["id_token"]}
    assert (await moved.get("/v1/end_session", params=hint)).status_code == 400
    assert (await phone.client.get("/v1/end_session", params=hint)).status_code == 200


@pytest.mark.oldest_postgres
async def test_reseal_covers_the_keys_of_id_tokens(
    services: Services, add_site: AddSite, client: Client, clock: Clock, rows: Rows
) -> None:
    await add_site()
    assert len((await client.get("/.well-known/jwks.json")).json()["keys"]) == 2
    new = bytes(range(32, 64))
    old = services.settings.secret_keys[0]
    done = await reseal(services.database, Sealer([new, old]), now=clock())
    assert (done.signing_keys, done.not_opened) == (2, 0)
    prefix = Sealer([new]).prefix
    assert [row["private_key"][: len(prefix)] for row in await rows.fetch("SELECT private_key FROM signing_keys")] == [
        prefix
    ] * 2


@pytest.mark.oldest_postgres
async def test_administrators_rotate_and_withdraw_the_keys_of_id_tokens(
    root: Admin, add_site: AddSite, client: Client
) -> None:
    await add_site()
    [stolen] = (await root.read("/keys"))["id_token_keys"]
    assert (stolen["alg"], stolen["state"]) == ("RS256", "signing")
    rotated = (await root.ask("POST", "/keys/rotate")).json()
    keys = await root.read("/keys")
    assert [key["state"] for key in keys["id_token_keys"]] == ["signing", "next"]
    assert [key["kid"] for key in keys["items"]][1:] == [rotated["kid"]]
    waiting = keys["id_token_keys"][1]
    withdrawn = (await root.ask("POST", f"/keys/{stolen['kid']}/withdraw")).json()
    assert withdrawn == {"kid": stolen["kid"], "signing": waiting["kid"]}
    published = (await client.get("/.well-known/jwks.json")).json()["keys"]
    assert stolen["kid"] not in [key["kid"] for key in published]
    problem_of(await root.ask("POST", f"/keys/{stolen['kid']}/withdraw"), "not_found", 404)


async def test_a_site_that_is_removed_is_gone_while_a_browser_waits(
    services: Services, add_site: AddSite, make_client: MakeClient, phone: Phone, clock: Clock
) -> None:
    from wxauth.server.clients.clients import remove_client

    await add_site()
    browser = Browser(make_client(services))
    tab = await browser.show()
    await tab.decided_by(phone)
    await remove_client(services.database, "shop", now=clock())
    assert (await tab.ask()).status_code == (await tab.go_on()).status_code == 404
    assert (await browser.open()).status_code == 400


async def test_a_login_of_a_mini_program_is_unchanged(client: Client, login: LogIn, rows: Rows) -> None:
    tokens = await login("alice")
    claims = jwt.get_unverified_claims(tokens["access_token"])
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid"}
    row = await rows.fetchrow("SELECT * FROM sessions WHERE id = $1", UUID(tokens["session_id"]))
    assert [row[name] for name in ("client_id", "scope", "authenticated_at", "authenticated_by")] == [None] * 4
    assert (await client.get("/v1/me", headers=bearer(tokens))).status_code == 200


async def test_the_query_of_a_redirect_uri_is_kept(
    add_site: AddSite, services: Services, make_client: MakeClient
) -> None:
    await add_site(redirect_uris=[f"{CALLBACK}?from=wechat"])
    answer = await Browser(make_client(services)).open(redirect_uri=f"{CALLBACK}?from=wechat", prompt="none")
    assert sent(answer)["from"] == "wechat"


@pytest.mark.slow
@swept(
    "path",
    ["/v1/token", "/v1/revoke", "/v1/device_authorization", "/v1/userinfo", "/v1/authorize", "/v1/end_session"],
)
@swept("text", ["%", "%4", "x=%e4%b8%ad"])
async def test_a_form_that_takes_long_to_decode_is_refused_unread(client: Client, path: str, text: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    attack = (text * 65_536)[:65_536]
    answer = await client.post(path, content=attack.encode(), headers=form)
    assert answer.status_code == 400, answer.text
    if answer.headers["content-type"] == "application/json":
        assert "percent-encoded" in answer.json()["error_description"]
