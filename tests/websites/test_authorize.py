"""A browser goes to the page, a phone scans it, and the browser comes back with a code (OpenID Connect)."""

import base64
import hashlib
import re
from asyncio import gather
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from jose import jwt

from tests.fakes import Clock
from tests.problems import problem_of
from tests.processes import free_port
from tests.sweeps import swept
from tests.upstream import PostgresTap
from tests.websites.browsers import (
    ASKED,
    CHALLENGE,
    VERIFIER,
    Browser,
    Tab,
    exchanged,
    id_claims,
    refused,
    sent,
    tokens_of,
)
from tests.world import (
    CALLBACK,
    CAMERA,
    AddSite,
    GetPhone,
    LogLines,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
)
from wxauth.server.clients.clients import change_client, renew_secret
from wxauth.server.core.database import Database
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.keys.keyring import KeyRing

Exchange = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return Browser(make_client(services))


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    """A confidential site with redirect URIs."""
    return await add_site(logout_uris=["https://shop.example.com/bye"], scopes=["openid", "profile", "phone", "roles"])


async def test_a_user_logs_in_to_a_site_by_scanning(shop: Site, browser: Browser, phone: Phone, clock: Clock) -> None:
    tab = await browser.show()
    assert await tab.state() == "waiting"
    body = (await phone.claim(scene=tab.scene, entry_scene=CAMERA)).json()
    assert body["client"] == {"id": "shop", "title": "Example Shop", "origin": "https://shop.example.com"}
    assert body["browser"] == {"device": None, "ip": "127.0.0.1"}
    assert body["same_network"] is True
    assert await tab.state() == "claimed"
    clock.advance(seconds=5)
    assert (await phone.decide(body["id"])).status_code == 204
    assert await tab.state() == "approved"
    back = sent(await tab.go_on())
    assert back == {"code": back["code"], "state": "s-1", "iss": "https://auth.test"}

    clock.advance(seconds=3)
    answer = await exchanged(shop, back["code"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token"}
    access = jwt.get_unverified_claims(tokens["access_token"])
    header = jwt.get_unverified_header(tokens["id_token"])
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    now = int(clock().timestamp())
    assert await id_claims(browser.client, tokens["id_token"]) == {
        "iss": "https://auth.test",
        "sub": phone.user_id,
        "aud": "shop",
        "exp": now + 900,
        "iat": now,
        "auth_time": now - 3,
        "nonce": "n-1",
        "sid": access["sid"],
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "amr": ["wechat_scan"],
        "updated_at": now - 8,
    }
    assert await tab.state() == "over"
    assert (await tab.go_on()).status_code == 404


async def test_refreshed_id_tokens_have_the_first_ones_auth_time_and_no_nonce(
    shop: Site, browser: Browser, phone: Phone, clock: Clock
) -> None:
    tokens = await tokens_of(shop, browser, phone)
    first = await id_claims(browser.client, tokens["id_token"])
    clock.advance(seconds=600)
    again = (await shop.refresh(tokens)).json()
    second = await id_claims(browser.client, again["id_token"])
    assert "nonce" not in second
    assert [second[name] for name in ("sub", "sid", "auth_time", "amr")] == [
        first[name] for name in ("sub", "sid", "auth_time", "amr")
    ]
    assert second["iat"] == first["iat"] + 600
    less = (await shop.refresh(again, scope="profile")).json()
    assert (less["scope"], "id_token" in less) == ("profile", False)
    refused(await shop.refresh(less, scope="openid email"), "invalid_scope")
    assert (await shop.refresh(less)).json()["scope"] == "openid profile"


async def test_a_public_client_shows_no_secret(add_site: AddSite, browser: Browser, phone: Phone) -> None:
    page = await add_site("page", is_public=True)
    tokens = await tokens_of(page, browser, phone, client_id="page")
    assert (await page.refresh(tokens)).status_code == 200


async def test_scopes_grant_their_claims_and_omit_missing_values(
    add_site: AddSite, browser: Browser, phone: Phone, rows: Rows
) -> None:
    everything = ["openid", "profile", "phone", "email", "roles"]
    site = await add_site(scopes=everything, email_domain="example.com")
    bare = await tokens_of(site, browser, phone, scope=None)
    assert bare["scope"] == " ".join(everything)
    body = (await browser.client.get("/v1/userinfo", headers=bearer(bare))).json()
    email = {"email": f"{phone.user_id}@example.com", "email_verified": False}
    assert body == {"sub": phone.user_id, "updated_at": body["updated_at"], **email}
    await rows.execute(
        "UPDATE users SET nickname = '小明', avatar_url = 'https://a.test/1.png', phone = '+8613800138000',"
        " phone_verified_at = now(), roles = '{editor}'"
    )
    full = {
        "name": "小明",
        "picture": "https://a.test/1.png",
        "phone_number": "+8613800138000",
        "phone_number_verified": True,
        "roles": ["editor"],
        **email,
    }
    for method in ("GET", "POST"):
        answer = await browser.client.request(method, "/v1/userinfo", headers=bearer(bare))
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json().items() >= full.items()
    again = await site.refresh(bare)
    assert (await id_claims(browser.client, again.json()["id_token"])).items() >= full.items()
    narrow = await tokens_of(site, browser, phone, scope="openid")
    assert (await browser.client.get("/v1/userinfo", headers=bearer(narrow))).json() == {"sub": phone.user_id}


async def test_userinfo_is_for_websites_with_openid(shop: Site, browser: Browser, phone: Phone) -> None:
    problem_of(await browser.client.get("/v1/userinfo", headers=bearer(phone.tokens)), "insufficient_scope", 403)
    without = await tokens_of(shop, browser, phone, scope="profile")
    assert "id_token" not in without
    problem_of(await browser.client.get("/v1/userinfo", headers=bearer(without)), "insufficient_scope", 403)
    problem_of(await browser.client.get("/v1/userinfo"), "missing_token", 401)


async def test_userinfo_takes_the_token_in_the_header_or_in_the_form(
    shop: Site, browser: Browser, phone: Phone
) -> None:
    tokens = await tokens_of(shop, browser, phone)
    form = {"access_token": tokens["access_token"]}
    assert (await browser.client.post("/v1/userinfo", data=form)).json()["sub"] == phone.user_id
    assert (await browser.client.post("/v1/userinfo", headers=bearer(tokens))).json()["sub"] == phone.user_id
    both = await browser.client.post("/v1/userinfo", data=form, headers=bearer(tokens))
    problem_of(both, "invalid_request", 400)
    assert both.headers["www-authenticate"] == 'Bearer error="invalid_request"'
    twice = await browser.client.post(
        "/v1/userinfo",
        content=f"{urlencode(form)}&{urlencode(form)}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    problem_of(twice, "invalid_request", 400)
    problem_of(await browser.client.get("/v1/userinfo", params=form), "missing_token", 401)


WITHOUT_PKCE: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}


async def test_a_site_for_which_pkce_is_optional_may_leave_it_out(
    add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    shop = await add_site(pkce="optional")
    reported = await (await browser.show(**WITHOUT_PKCE, nonce=None)).approved_by(phone)
    form = {"grant_type": "authorization_code", "code": reported["code"], "redirect_uri": CALLBACK}
    refused(await shop.post("/v1/token", **form, code_verifier=VERIFIER), "invalid_grant")
    assert (await shop.post("/v1/token", **form)).status_code == 200
    refused(await shop.post("/v1/token", **form), "invalid_grant")


async def test_a_challenge_that_was_sent_counts_even_where_pkce_is_optional(
    add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    shop = await add_site(pkce="optional")
    assert sent(await browser.open(code_challenge_method="plain"))["error"] == "invalid_request"
    reported = await (await browser.show()).approved_by(phone)
    form = {"grant_type": "authorization_code", "code": reported["code"], "redirect_uri": CALLBACK}
    refused(await shop.post("/v1/token", **form), "invalid_grant")
    assert (await exchanged(shop, reported["code"])).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "phone unheard-of"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "dance"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "https://shop.example.com/r"}, "request_uri_not_supported"),
        ({"registration": "{}"}, "registration_not_supported"),
        ({"nonce": ["a", "b"]}, "invalid_request"),
    ],
)
async def test_a_wrong_request_goes_back_with_the_error(
    add_site: AddSite, browser: Browser, parameters: dict[str, Any], error: str
) -> None:
    await add_site()
    asked = {name: value for name, value in {**ASKED, **parameters}.items() if value is not None}
    query = urlencode(asked, doseq=True)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for answer in (
        await browser.client.get(f"/v1/authorize?{query}"),
        await browser.client.post("/v1/authorize", content=query, headers=form),
    ):
        reported = sent(answer)
        assert reported.pop("error_description")
        assert reported == {"error": error, "state": "s-1", "iss": "https://auth.test"}


@pytest.mark.parametrize("parameters", [{"prompt": "login"}, {"max_age": "0"}, {"max_age": "9999999"}, {"scope": None}])
async def test_the_phone_is_always_asked(shop: Site, browser: Browser, parameters: dict[str, str | None]) -> None:
    assert await (await browser.show(**parameters)).state() == "waiting"


async def test_a_state_that_is_absent_is_not_made_up(shop: Site, browser: Browser, phone: Phone) -> None:
    reported = await (await browser.show(state=None)).approved_by(phone)
    assert reported.keys() == {"code", "iss"}
    assert sent(await browser.open(state=None, prompt="none")).keys() == {"error", "error_description", "iss"}
    twice = await browser.client.get(f"/v1/authorize?{urlencode(ASKED)}&state=s-2")
    assert "state" not in sent(twice)


WRONG = {
    "no client": {"client_id": None},
    "an unknown client": {"client_id": "nobody"},
    "no name": {"client_id": "../etc"},
    "two clients": {"client_id": ["shop", "shop"]},
    "no redirect URI": {"redirect_uri": None},
    "another path": {"redirect_uri": CALLBACK + "/x"},
    "a query": {"redirect_uri": CALLBACK + "?x=1"},
    "a fragment": {"redirect_uri": CALLBACK + "#x"},
    "another host": {"redirect_uri": "https://shop.example.com.evil.example/callback"},
    "another scheme": {"redirect_uri": CALLBACK.replace("https", "http")},
    "another case": {"redirect_uri": CALLBACK.replace("callback", "Callback")},
    "a port": {"redirect_uri": CALLBACK.replace(".com", ".com:443")},
    "two redirect URIs": {"redirect_uri": [CALLBACK, CALLBACK]},
    "a control character": {"state": "a\x00b"},
    "a long one": {"state": "a" * 9000},
}


@swept("parameters", WRONG.values(), ids=WRONG)
async def test_a_browser_that_cannot_be_sent_back_gets_a_page_that_says_so(
    shop: Site, browser: Browser, parameters: dict[str, Any]
) -> None:
    asked = {name: value for name, value in {**ASKED, **parameters}.items() if value is not None}
    answer = await browser.client.get(f"/v1/authorize?{urlencode(asked, doseq=True)}")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("language", "site", "came"), [("en", "Site: ", "Received address: "), ("zh-CN", "网站：", "收到的地址：")]
)
async def test_a_redirect_uri_that_is_not_registered_is_shown_and_is_one_warning(
    shop: Site, browser: Browser, log_lines: LogLines, language: str, site: str, came: str
) -> None:
    wrong = "https://user:pass-of-somebody@shop.example.com/<b>/callback?code=a-secret-code#a-secret-fragment"
    url = f"/v1/authorize?{urlencode({**ASKED, 'redirect_uri': wrong})}"
    answer = await browser.client.get(url, headers={"Accept-Language": language})
    shown = "https://…@shop.example.com/<b>/callback?…"
    assert f"{site}Example Shop, https://shop.example.com<" in answer.text
    assert f"{came}{escape(shown)}<" in answer.text
    [logged] = [line for line in log_lines() if line["level"] == "warning"]
    assert logged["event"] == "redirect_uri_not_registered"
    assert (logged["client_id"], logged["received"], logged["registered"]) == ("shop", shown, [CALLBACK])
    assert "wxauth clients set" in str(logged["what_to_change"])
    for text in (answer.text, repr(log_lines())):
        assert not {"pass-of-somebody", "a-secret-code", "a-secret-fragment"} & set(re.findall(r"[\w-]+", text))


async def test_a_client_id_that_is_nobodys_is_one_warning(browser: Browser, shop: Site, log_lines: LogLines) -> None:
    for client_id in ("shopp", "a secret, put there by mistake"):
        assert (await browser.open(client_id=client_id)).status_code == 400
    lines = [line for line in log_lines() if line["level"] == "warning"]
    assert [(line["event"], line["client_id"]) for line in lines] == [
        ("client_unknown", "shopp"),
        ("client_unknown", None),
    ]


async def test_a_wrong_secret_is_one_warning_that_says_what_is_registered_and_never_a_secret(
    shop: Site, browser: Browser, add_site: AddSite, services: Services, log_lines: LogLines, clock: Clock
) -> None:
    page = await add_site("page", is_public=True, redirect_uris=[CALLBACK])
    former = shop.secret
    assert former is not None
    await renew_secret(services.database, "shop", now=clock())
    clock.advance(seconds=25 * 3600)
    for name, secret in (("shop", "mistyped"), ("shop", former), ("shopp", "mistyped"), (page.name, "mistyped")):
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        answer = await shop.client.post("/v1/token", data=form, auth=(name, secret))
        refused(answer, "invalid_client", 401)
    lines = [line for line in log_lines() if line["level"] == "warning"]
    assert [(line["event"], line["client_id"], line["received"], line["registered"]) for line in lines] == [
        ("client_refused", "shop", "a secret of 8 characters", "another secret, of 43 characters"),
        ("client_refused", "shop", "a secret of 43 characters", "a newer secret; this one has ended"),
        ("client_refused", "shopp", "a secret of 8 characters", "no client of this name"),
        ("client_refused", "page", "a secret of 8 characters", "a public client, which has no secret"),
    ]
    assert former not in repr(log_lines())
    assert "mistyped" not in repr(log_lines())


async def test_an_unreachable_database_is_logged_with_its_address(
    services: Services, make_client: MakeClient, log_lines: LogLines
) -> None:
    place = f"127.0.0.1:{free_port()}"
    away = Database(f"postgresql://wxauth:password-of-it@{place}/wxauth")
    client = make_client(replace(services, database=away))
    page = await client.get(f"/v1/authorize?{urlencode(ASKED)}")
    assert (page.status_code, "busy" in page.text) == (503, True)
    answer = await client.post("/v1/token", data={"grant_type": "refresh_token"}, auth=("shop", "x"))
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    await away.aclose()
    lines = [line for line in log_lines() if line["level"] == "warning"]
    assert [(line["event"], line["code"]) for line in lines] == [("request_refused", "storage_unavailable")] * 2
    assert all(place in str(line["cause"]) for line in lines)
    assert "password-of-it" not in repr(log_lines())


async def test_a_loopback_redirect_may_have_any_port(add_site: AddSite, browser: Browser, phone: Phone) -> None:
    site = await add_site("tool", is_public=True, redirect_uris=["http://127.0.0.1/callback", "http://[::1]:1/x"])
    for good in ("http://127.0.0.1:53211/callback", "http://127.0.0.1/callback", "http://[::1]:9/x"):
        assert (await browser.open(client_id="tool", redirect_uri=good)).status_code == 200
    for bad in (
        "http://127.0.0.2:53211/callback",
        "http://127.0.0.1:53211/callback/",
        "https://127.0.0.1:53211/callback",
        "http://localhost:53211/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1@evil.example/callback",
    ):
        assert (await browser.open(client_id="tool", redirect_uri=bad)).status_code == 400, bad
    tab = await browser.show(client_id="tool", redirect_uri="http://127.0.0.1:53211/callback")
    await tab.decided_by(phone)
    code = sent(await tab.go_on(), to="http://127.0.0.1:53211/callback")["code"]
    refused(await exchanged(site, code, redirect_uri="http://127.0.0.1:53212/callback"), "invalid_grant")
    assert (await exchanged(site, code, redirect_uri="http://127.0.0.1:53211/callback")).status_code == 200


async def test_a_refusal_goes_back_as_access_denied(shop: Site, browser: Browser, phone: Phone) -> None:
    reported = await (await browser.show()).approved_by(phone, "deny")
    assert (reported["error"], reported["state"], reported["iss"]) == ("access_denied", "s-1", "https://auth.test")


async def test_another_browser_finds_nothing(
    shop: Site, browser: Browser, phone: Phone, make_client: MakeClient, services: Services
) -> None:
    tab = await browser.show()
    other = Browser(make_client(services))
    for answer in (await tab.ask(other), await tab.ask(browser)):
        assert answer.headers["cache-control"] == "no-store"
    assert (await tab.ask(other)).status_code == (await tab.go_on(other)).status_code == 404
    await other.show()  # with a cookie of its own it is no better
    assert (await tab.ask(other)).status_code == 404
    await tab.decided_by(phone)
    assert (await tab.go_on(other)).status_code == 404
    unknown = await browser.client.get(f"/v1/authorize/{'a' * 22}/state")
    problem_of(unknown, "not_found", 404)
    assert sent(await tab.go_on())["code"]


async def test_a_browser_without_scripts_that_goes_on_too_early_is_told_to_confirm_first(
    shop: Site, browser: Browser, phone: Phone
) -> None:
    tab = await browser.show()
    early = await tab.go_on()
    assert (early.status_code, "Confirm on the phone" in early.text) == (404, True)
    assert (await tab.approved_by(phone))["code"]


async def test_the_cookie_names_the_browser_so_that_tabs_and_sites_work_at_once(
    shop: Site, add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    answer = await browser.open()
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-wxauth-browser=")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "secure", "samesite=lax", "path=/"}
    second = await browser.open()
    assert "set-cookie" not in second.headers
    await add_site("other")
    third = Tab(browser, (await browser.open(client_id="other")).text)
    for tab in (third, Tab(browser, second.text), Tab(browser, answer.text)):
        assert (await tab.approved_by(phone))["code"]


async def test_a_cross_site_form_too_long_for_a_link_is_not_redirected(shop: Site, browser: Browser) -> None:
    answer = await browser.client.post(
        "/v1/authorize", content=b"\xff" * 9000, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_the_page_is_plain_strict_and_speaks_both_languages(shop: Site, browser: Browser) -> None:
    page = await browser.open()
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.findall(
        r"<script(?![^>]+src=)|<style|\son\w+=|\sstyle=|https?://", page.text.replace("https://shop.example.com", "")
    )
    assert "Log in to Example Shop" in page.text
    assert re.search(r"[B-Z]{4}-[B-Z]{4}", page.text)
    for path in re.findall(r'(?:src|href)="(/v1/pages/[^"]+)"', page.text):
        asset = await browser.client.get(path)
        assert asset.status_code == 200
        assert (await browser.client.get(path, headers={"If-None-Match": asset.headers["etag"]})).status_code == 304
    chinese = await browser.client.get(f"/v1/authorize?{urlencode(ASKED)}", headers={"Accept-Language": "zh-CN"})
    assert "登录 Example Shop" in chinese.text
    assert chinese.headers["content-language"] == "zh-CN"
    assert "登录 Example Shop" in (await browser.open(ui_locales="fr zh-Hans")).text


async def test_a_phone_is_first_shown_the_code_to_type_because_its_screen_cannot_be_scanned(
    shop: Site, browser: Browser
) -> None:
    address = f"/v1/authorize?{urlencode(ASKED)}"
    phone = (await browser.client.get(address, headers={"User-Agent": "iPhone Mobile"})).text
    assert phone.index('class="typed"') < phone.index("<details>") < phone.index('class="code"')
    computer = (await browser.client.get(address)).text
    assert computer.index('class="code"') < computer.index('class="typed"')
    assert "<details>" not in computer
    assert ("Waiting for the phone" in computer, "Confirm in the mini-program, and come back" in phone) == (True, True)


async def test_a_sites_title_is_shown_as_plain_text(add_site: AddSite, browser: Browser) -> None:
    await add_site(title='<script>alert("1")</script>')
    page = await browser.open(state="\"><script>alert('2')</script>")
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert" in page.text


@pytest.mark.oldest_postgres
async def test_the_code_on_the_page_can_be_typed(shop: Site, browser: Browser, phone: Phone) -> None:
    tab = await browser.show()
    body = (await phone.claim(user_code=tab.found(r">([B-Z]{4}-[B-Z]{4})<"))).json()
    assert body["typed"] is True
    await phone.decide(body["id"])
    tokens = (await exchanged(shop, sent(await tab.go_on())["code"])).json()
    assert (await id_claims(browser.client, tokens["id_token"]))["amr"] == ["wechat_code"]


async def test_a_code_that_is_over_is_renewed_at_a_click(
    shop: Site, browser: Browser, phone: Phone, clock: Clock
) -> None:
    tab = await browser.show()
    clock.advance(seconds=180)
    assert await tab.state() == "over"
    assert (await tab.go_on()).status_code == 404
    link = tab.found(r'class="button renew" href="([^"]+)"').replace("&amp;", "&")
    answer = await Tab(browser, (await browser.client.get(link)).text).approved_by(phone)
    assert (answer["state"], "code" in answer) == ("s-1", True)


async def test_a_code_lives_a_minute_and_works_once(shop: Site, browser: Browser, phone: Phone, clock: Clock) -> None:
    reported = await (await browser.show()).approved_by(phone)
    clock.advance(seconds=60)
    refused(await exchanged(shop, reported["code"]), "invalid_grant")
    tab = await browser.show()
    first = await tab.approved_by(phone)
    second = sent(await tab.go_on())  # the way there was lost: the browser asks again
    refused(await exchanged(shop, first["code"]), "invalid_grant")
    clock.advance(seconds=59)
    assert (await exchanged(shop, second["code"])).status_code == 200


@pytest.mark.oldest_postgres
async def test_a_code_that_is_used_again_ends_the_session_that_it_made(
    shop: Site, browser: Browser, phone: Phone, rows: Rows
) -> None:
    code = (await (await browser.show()).approved_by(phone))["code"]
    tokens = (await exchanged(shop, code)).json()
    refused(await exchanged(shop, code), "invalid_grant")
    problem_of(await browser.client.get("/v1/userinfo", headers=bearer(tokens)), "invalid_token", 401)
    refused(await shop.refresh(tokens), "invalid_grant")
    assert '"reused"' in await rows.fetchval("SELECT data FROM events WHERE type = 'session.ended'")


async def test_a_wrong_verifier_or_redirect_uri_neither_spends_a_code_nor_ends_a_session(
    shop: Site, add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    other = await add_site("other")
    page = await add_site("page", is_public=True)
    code = (await (await browser.show()).approved_by(phone))["code"]

    async def try_all() -> None:
        refused(await exchanged(other, code), "invalid_grant")
        refused(await exchanged(page, code), "invalid_grant")
        refused(await exchanged(shop, code, code_verifier="x" * 43), "invalid_grant")
        refused(await exchanged(shop, code, code_verifier=CHALLENGE), "invalid_grant")
        refused(await exchanged(shop, code, code_verifier="short"), "invalid_grant")
        refused(await exchanged(shop, code, code_verifier=""), "invalid_grant")
        refused(await exchanged(shop, code, redirect_uri=CALLBACK + "/"), "invalid_grant")
        refused(await exchanged(shop, code, redirect_uri=""), "invalid_grant")
        refused(await exchanged(shop, code + "x"), "invalid_grant")
        wrong = await shop.client.post(
            "/v1/token",
            data={"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER},
            auth=("shop", "wrong"),
        )
        refused(wrong, "invalid_client", 401)

    await try_all()
    tokens = (await exchanged(shop, code)).json()
    await try_all()
    assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 200


async def test_of_many_exchanges_at_once_at_most_one_gets_tokens_and_no_session_is_left(
    shop: Site, browser: Browser, phone: Phone, rows: Rows
) -> None:
    code = (await (await browser.show()).approved_by(phone))["code"]
    answers = await gather(*(exchanged(shop, code) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE client_id = 'shop' AND revoked_at IS NULL") == 0


async def test_a_token_of_its_own_is_revoked_by_its_client(
    shop: Site, add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    other = await add_site("other")
    for name in ("access_token", "refresh_token"):
        tokens = await tokens_of(shop, browser, phone)
        of_the_phone = (phone.tokens["access_token"], phone.tokens["refresh_token"])
        for wrong in (tokens["id_token"], "nonsense", "eyJ" * 9000, "\0", "ключ", *of_the_phone):
            assert (await shop.post("/v1/revoke", token=wrong)).status_code == 200
        assert (await other.post("/v1/revoke", token=tokens[name])).status_code == 200
        assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 200
        for _ in range(2):
            done = await shop.post("/v1/revoke", token=tokens[name], token_type_hint="nonsense")
            assert (done.status_code, done.headers["cache-control"]) == (200, "no-store")
        problem_of(await browser.client.get("/v1/userinfo", headers=bearer(tokens)), "invalid_token", 401)
    assert (await browser.client.get("/v1/me", headers=bearer(phone.tokens))).status_code == 200
    refused(await shop.post("/v1/revoke"), "invalid_request")
    refused(await shop.client.post("/v1/revoke", data={"token": "x"}), "invalid_client", 401)


async def test_a_long_or_expired_id_token_logs_out_of_the_site_and_an_access_token_does_not(
    shop: Site, browser: Browser, phone: Phone, clock: Clock
) -> None:
    async def log_out(hint: str) -> int:
        return (await browser.client.get("/v1/end_session", params={"id_token_hint": hint})).status_code

    async def is_in(tokens: dict[str, Any]) -> bool:
        return (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 200

    named = {"avatar_url": "https://example.com/".ljust(2048, "x"), "nickname": "😀" * 64}
    assert (await phone.ask("POST", json=named)).status_code == 200
    tokens = await tokens_of(shop, browser, phone, nonce="n" * 512)
    assert len(tokens["id_token"]) > 4096
    assert (await log_out(tokens["access_token"]), await is_in(tokens)) == (400, True)
    assert (await log_out(tokens["id_token"]), await is_in(tokens)) == (200, False)
    tokens = await tokens_of(shop, browser, phone)
    clock.advance(hours=2)  # the id_token has expired, and says still whose it is
    refreshed = (await shop.refresh(tokens)).json()
    assert (await log_out(tokens["id_token"]), await is_in(refreshed)) == (200, False)


@pytest.mark.oldest_postgres
@pytest.mark.slow
async def test_an_id_token_logs_out_as_long_as_its_session_can_live_whatever_became_of_its_key(
    shop: Site, browser: Browser, get_phone: GetPhone, services: Services, clock: Clock
) -> None:
    first = tokens = await tokens_of(shop, browser, await get_phone("alice"))
    await services[KeyRing].rotate()
    for _ in range(72):
        clock.advance(hours=9)
        answer = await shop.refresh(tokens)
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
    await sweep(services, pause=0)
    await services[KeyRing].refresh()
    kids = [key["kid"] for key in (await browser.client.get("/.well-known/jwks.json")).json()["keys"]]
    assert jwt.get_unverified_header(first["id_token"])["kid"] not in kids
    answer = await browser.client.get("/v1/end_session", params={"id_token_hint": first["id_token"]})
    assert answer.status_code == 200
    refused(await shop.refresh(tokens), "invalid_grant")
    clock.advance(days=5)  # by now no session is left that the key has signed for
    await sweep(services, pause=0)
    answer = await browser.client.get("/v1/end_session", params={"id_token_hint": first["id_token"]})
    assert answer.status_code == 400


async def test_what_the_metadata_names_is_there(browser: Browser, shop: Site) -> None:
    body = (await browser.client.get("/.well-known/openid-configuration")).json()
    endpoints = {url.removeprefix("https://auth.test") for name, url in body.items() if name.endswith("_endpoint")}
    assert endpoints <= (await browser.client.get("/openapi.json")).json()["paths"].keys()
    assert len(endpoints) == 7
    assert body["response_modes_supported"] == ["query", "form_post"]
    assert body["id_token_signing_alg_values_supported"] == ["RS256", "ES256"]
    assert body["authorization_response_iss_parameter_supported"] is True
    assert set(body["scopes_supported"]) == {"openid", "profile", "phone", "email", "roles", "offline_access"}
    for grant in body["grant_types_supported"]:
        answer = await shop.post("/v1/token", grant_type=grant)
        assert answer.json()["error"] != "unsupported_grant_type"


@pytest.mark.no_signing_key
async def test_id_token_keys_are_made_when_the_first_site_is(
    browser: Browser, add_site: AddSite, rows: Rows, services: Services, clock: Clock, log_lines: LogLines
) -> None:
    async def algorithms() -> list[str]:
        return [key["alg"] for key in (await browser.client.get("/.well-known/jwks.json")).json()["keys"]]

    await services[KeyRing].refresh()
    assert await algorithms() == ["ES256"]
    assert await rows.fetchval("SELECT count(*) FROM signing_keys WHERE alg = 'RS256'") == 0
    await add_site()
    clock.advance(seconds=5)
    assert await algorithms() == ["ES256", "RS256"]
    stored = await rows.fetchrow("SELECT private_key, public_jwk FROM signing_keys WHERE alg = 'RS256'")
    key = await services[KeyRing].id_token_key("RS256", clock())
    assert key.to_der() not in stored["private_key"]
    assert not {"d", "p", "q"} & key.public_jwk.keys()
    made = [(line["alg"], line["signs"]) for line in log_lines() if line["event"] == "signing_key_made"]
    assert made == [("RS256", "id_tokens")]


async def test_without_a_site_the_keys_ask_the_database_every_few_seconds_at_most(
    database_url: str, make_services: MakeServices, make_client: MakeClient, clock: Clock
) -> None:
    async with PostgresTap(database_url) as tap:
        services = await make_services(database_url=tap.url)
        client = make_client(services)
        asked = []
        for _ in range(3):
            clock.advance(seconds=5)
            before = tap.round_trips
            for _ in range(20):
                assert (await client.get("/.well-known/jwks.json")).status_code == 200
            asked.append(tap.round_trips - before)
        await services.aclose()
    assert asked == [2, 2, 2]


@pytest.mark.no_signing_key
async def test_replicas_share_one_id_token_key_whichever_replica_made_the_key(
    make_services: MakeServices, make_client: MakeClient, add_site: AddSite, phone: Phone, browser: Browser
) -> None:
    site = await add_site()
    replicas = [await make_services() for _ in range(3)]
    tokens = await gather(
        *(
            tokens_of(Site(client, site.name, site.secret), Browser(client), replace(phone, client=client))
            for client in (make_client(replica) for replica in replicas)
        )
    )
    assert len({jwt.get_unverified_header(each["id_token"])["kid"] for each in tokens}) == 1
    for each in tokens:
        await id_claims(browser.client, each["id_token"])


async def test_a_code_that_went_where_the_site_is_no_longer_is_worth_nothing(
    services: Services, browser: Browser, shop: Site, phone: Phone, clock: Clock
) -> None:
    code = (await (await browser.show()).approved_by(phone))["code"]
    for uris, status in (["https://shop.example.com/new"], 400), ([CALLBACK], 200):
        await change_client(services.database, shop.name, {"redirect_uris": uris}, now=clock())
        assert (await exchanged(shop, code)).status_code == status


async def test_the_keys_of_id_tokens_rotate_like_those_of_access_tokens(
    services: Services, add_site: AddSite, browser: Browser, phone: Phone, clock: Clock, get_phone: GetPhone
) -> None:
    site = await add_site()
    before = await tokens_of(site, browser, phone)
    await services[KeyRing].rotate()
    waiting = await tokens_of(site, browser, phone)
    clock.advance(seconds=361)
    after = await tokens_of(site, browser, await get_phone("alice"))
    kids = [jwt.get_unverified_header(tokens["id_token"])["kid"] for tokens in (before, waiting, after)]
    assert kids[0] == kids[1] != kids[2]
    for tokens in (before, after):
        await id_claims(browser.client, tokens["id_token"])


CORS_PATHS = [
    "/v1/token",
    "/v1/revoke",
    "/v1/userinfo",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
]


@pytest.mark.slow
async def test_only_pages_of_public_clients_may_read_the_answers(
    make_services: MakeServices, make_client: MakeClient, add_site: AddSite
) -> None:
    await add_site("page", is_public=True, redirect_uris=["https://page.example/callback", "http://127.0.0.1/x"])
    await add_site("shop")
    client = make_client(await make_services(cors_origins="https://office.example"))

    async def allowed(method: str, path: str, origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = await client.request(method, path, headers=headers)
        assert "Origin" in answer.headers["vary"]
        return answer.headers.get("access-control-allow-origin")

    for path in CORS_PATHS:
        for method in ("GET", "POST", "OPTIONS"):
            for origin in ("https://page.example", "http://127.0.0.1:5173", "https://office.example"):
                assert await allowed(method, path, origin) == origin, (method, path, origin)
            for origin in ("https://shop.example.com", "https://page.example:444", "http://page.example", "null"):
                assert await allowed(method, path, origin) is None, (method, path, origin)
    for path in ("/v1/me", "/v1/login", "/v1/authorize", "/v1/device_authorization", "/v1/introspect"):
        answer = await client.get(path, headers={"Origin": "https://page.example"})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.oldest_postgres
async def test_an_origin_is_in_the_form_that_browsers_send(add_site: AddSite, browser: Browser, phone: Phone) -> None:
    uris = [
        "https://Page.Example:443/callback",
        "http://LOCALHOST:80",
        "https://page.example:8443/",
        "http://[::1]:80/",
    ]
    site = await add_site("page", is_public=True, redirect_uris=uris)
    for origin in ("https://page.example", "http://localhost", "https://page.example:8443", "http://[::1]"):
        answer = await browser.client.get("/.well-known/openid-configuration", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == origin
    tab = await browser.show(client_id=site.name, redirect_uri=uris[0])
    body = (await phone.claim(scene=tab.scene, entry_scene=CAMERA)).json()
    assert body["client"]["origin"] == "https://page.example"


async def test_no_log_line_contains_the_secret_of_a_code(
    shop: Site, browser: Browser, phone: Phone, log_lines: LogLines, clock: Clock
) -> None:
    tab = await browser.show()
    await tab.approved_by(phone)
    await browser.client.get(f"/d/{tab.scene}")
    await browser.client.post(f"/d/{tab.scene}")
    await phone.decide(tab.scene)  # a mistake: it takes the id of the claim
    clock.advance(seconds=999)
    await browser.client.get(f"/v1/scans/{tab.scene}/code")
    browser.client.cookies.clear()
    await tab.ask()
    lines = repr(log_lines())
    assert "request_refused" in lines
    assert tab.scene not in lines
    assert tab.request_id not in lines


async def test_a_link_says_scan_this_with_wechat_and_changes_nothing(
    site: Site, browser: Browser, make_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    started = await site.start()
    before = await rows.fetch("SELECT * FROM site_logins")
    for url in (started["verification_uri"], started["verification_uri_complete"], "https://auth.test/d/nonsense"):
        page = await browser.client.get(url)
        assert (page.status_code, page.headers["referrer-policy"]) == (200, "no-referrer")
        assert "WeChat" in page.text
        assert page.headers["cache-control"] == "no-store"
    assert await rows.fetch("SELECT * FROM site_logins") == before
    checked = make_client(await make_services(link_check_file="a1B2.txt:0f1e2d"))
    answer = await checked.get("/d/a1B2.txt")
    assert (answer.text, answer.headers["content-type"]) == ("0f1e2d", "text/plain; charset=utf-8")


@pytest.mark.parametrize(("name", "most", "length"), [("state", 4096, 4097), ("nonce", 512, 513), ("nonce", 512, 4096)])
async def test_a_long_state_or_nonce_is_refused_at_the_site_and_not_stored(
    shop: Site, browser: Browser, rows: Rows, name: str, most: int, length: int
) -> None:
    query = urlencode({**ASKED, name: "x" * length})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for answer in (
        await browser.client.get(f"/v1/authorize?{query}"),
        await browser.client.post("/v1/authorize", content=query, headers=form),
    ):
        reported = sent(answer)
        assert reported.pop("error_description") == f"{name} must have at most {most} characters"
        echoed = {"state": "s-1"} if name == "nonce" else {}
        assert reported == {"error": "invalid_request", "iss": "https://auth.test", **echoed}
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0


async def test_a_state_of_4096_and_a_nonce_of_512_characters_come_back(
    shop: Site, browser: Browser, phone: Phone
) -> None:
    state, nonce = "s" * 4095 + "状", "n" * 512
    reported = await (await browser.show(state=state, nonce=nonce)).approved_by(phone)
    assert reported["state"] == state
    tokens = (await exchanged(shop, reported["code"])).json()
    assert (await id_claims(browser.client, tokens["id_token"]))["nonce"] == nonce


async def test_a_page_that_nobody_scanned_is_swept_when_it_expires(
    add_site: AddSite, shop: Site, browser: Browser, phone: Phone, services: Services, clock: Clock, rows: Rows
) -> None:
    device = await add_site("terminal", device=True)
    started = await device.start()
    unscanned, scanned = await browser.show(), await browser.show()
    assert (await phone.claim(scene=scanned.scene, entry_scene=CAMERA)).status_code == 200
    clock.advance(seconds=179)
    await sweep(services, pause=0)
    assert await unscanned.state() == "waiting"
    clock.advance(seconds=2)
    await sweep(services, page_size=1, pause=0)
    assert (await unscanned.ask()).status_code == 404  # the page takes that for its end
    assert await scanned.state() == "over"
    refused(await device.poll(started), "expired_token")
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 2


async def test_the_page_is_limited_by_the_browsers_address(
    shop: Site, make_services: MakeServices, make_client: MakeClient
) -> None:
    strict = Browser(make_client(await make_services(scan_rate_limit="2/minute", scan_client_limit="1/minute")))
    assert [(await strict.open()).status_code for _ in range(3)] == [200, 200, 429]
    assert (await strict.open()).headers["retry-after"]


async def test_a_cookie_is_found_among_others_and_not_in_a_header_over_4_kib(shop: Site, browser: Browser) -> None:
    ours = (await browser.open()).headers["set-cookie"].partition(";")[0]
    name, _, value = ours.partition("=")
    stranger = Browser(browser.client)
    browser.client.cookies.clear()
    is_known = {
        ours: True,
        f"a=1; {ours}; b=2": True,
        f"a=1;{ours} ;b": True,
        f"{ours}; a={'x' * (4096 - len(ours) - 4)}": True,
        f"{ours}; a={'x' * (4097 - len(ours) - 4)}": False,
        f"x{ours}": False,
        f'a="; {ours}': True,
        f"{name}=; a={value}": False,
    }
    for header, known in is_known.items():
        answer = await stranger.client.get(f"/v1/authorize?{urlencode(ASKED)}", headers={"Cookie": header})
        assert answer.status_code == 200
        assert ("set-cookie" not in answer.headers) is known, header[:80]
        browser.client.cookies.clear()


@pytest.mark.slow
async def test_a_neighbours_cookie_does_not_replace_the_browsers(shop: Site, browser: Browser) -> None:
    ours = (await browser.open()).headers["set-cookie"].partition(";")[0]
    name, _, value = ours.partition("=")
    browser.client.cookies.clear()
    page, request, callback = f"/v1/authorize?{urlencode(ASKED)}", f"/v1/authorize/{'r' * 22}", "/v1/authorize/wechat"
    for both in (f"{ours}; {name}={'n' * len(value)}", f"{name}={'n' * len(value)};{ours}", f"{ours}; {ours}"):
        for path in (page, f"{request}/state", f"{request}/next", f"{request}/wechat", f"{callback}?state=s&code=c"):
            answer = await browser.client.get(path, headers={"Cookie": both})
            problem_of(answer, "invalid_request", 400)
            assert "set-cookie" not in answer.headers
    described = (await browser.client.get("/openapi.json")).json()["paths"]
    for button in ("continue", "another", "link", "number"):
        answer = await browser.client.post(f"{request}/{button}", headers={"Cookie": both})
        problem_of(answer, "invalid_request", 400)
        answers = described[f"/v1/authorize/{{request_id}}/{button}"]["post"]["responses"]
        assert "application/problem+json" in answers["400"]["content"]
        too_large = await browser.client.post(f"{request}/{button}", content=b"x" * 65537)
        assert (too_large.status_code == 413) <= ("413" in answers)
