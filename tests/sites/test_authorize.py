"""A browser opens the login page, a phone scans it, and the browser returns with an authorization code.

The flow follows OpenID Connect.
"""

import base64
import hashlib
import re
from asyncio import gather, timeout
from dataclasses import replace
from datetime import timedelta
from functools import partial
from html import escape
from typing import Any
from urllib.parse import urlencode

import pytest
from jose import jwt

from tests.clock import PATIENCE
from tests.database_proxy import Proxy
from tests.fakes import LOGO
from tests.problems import problem_of
from tests.processes import free_port
from tests.sites.browsers import (
    ASKED,
    FORM,
    SHOP,
    VERIFIER,
    WITHOUT_PKCE,
    Browser,
    House,
    Tab,
    keys_at,
    refused,
    sent,
    wait_in_queues,
)
from tests.sites.links import SAFARI
from tests.sweeps import swept
from tests.world import CALLBACK, AddSite, Admin, Stage, bearer, behind, body_of, with_part
from wxauth.clients.clients import renew_secret
from wxauth.core.database import Database
from wxauth.keys.keyring import KeyRing
from wxauth.sites.requests import SiteRequests

UNASKED_VERIFIERS = [{"code_verifier": VERIFIER}, {"code_verifier": "short"}]


async def test_a_sites_logo_and_its_title_as_plain_text_are_on_its_page(house: House) -> None:
    assert '<img class="logo" src="/v1/pages/icon.svg"' in (await house.browser.show()).html
    await house.change(logo=LOGO, title='<script>alert("1")</script>')
    tab = await house.browser.show(state="\"><script>alert('2')</script>")
    assert f'<img class="logo" src="{LOGO}"' in tab.html
    assert ("<script>alert" in tab.html, "&lt;script&gt;alert" in tab.html) == (False, True)
    assert (await tab.claimed_by(house.phone))["client"]["logo"] == LOGO


@pytest.mark.requirement("oidc-2")
async def test_a_user_logs_in_to_a_site_by_scanning(house: House) -> None:
    tab, clock = await house.browser.show(), house.stage.clock
    assert await tab.state() == "waiting"
    body = await tab.claimed_by(house.phone)
    assert body["client"] == SHOP
    assert body["browser"] == {"device": None, "ip": "127.0.0.1"}
    assert body["same_network"] is True
    assert await tab.state() == "claimed"
    clock.advance(seconds=5)
    assert (await house.phone.decide(body["id"])).status_code == 204
    assert await tab.state() == "approved"
    back = sent(await tab.go_on())
    assert back == {"code": back["code"], "state": "s-1", "iss": "https://auth.test"}

    clock.advance(seconds=3)
    answer = await house.redeem(back["code"])
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token"}
    header = jwt.get_unverified_header(tokens["id_token"])
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    now = int(clock().timestamp())
    assert await house.claims(tokens) == {
        "iss": "https://auth.test",
        "sub": house.phone.user_id,
        "aud": "shop",
        "exp": now + 900,
        "iat": now,
        "auth_time": now - 3,
        "nonce": "n-1",
        "sid": jwt.get_unverified_claims(tokens["access_token"])["sid"],
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "amr": ["wechat_scan"],
        "updated_at": now - 8,
    }
    assert await tab.state() == "over"
    answer = await tab.go_on()
    assert (answer.status_code, "This login is no longer valid" in answer.text) == (404, True)


async def test_scopes_grant_their_claims_and_omit_missing_values(house: House) -> None:
    everything = ["openid", "profile", "phone", "email", "roles"]
    await house.change(scopes=everything, email_domain="example.com")
    bare, me = await house.tokens(scope=None), house.phone.user_id
    assert bare["scope"] == " ".join(everything)
    body = (await house.userinfo(bare)).json()
    email = {"email": f"{me}@example.com", "email_verified": False}
    assert body == {"sub": me, "updated_at": body["updated_at"], **email}
    await house.stage.rows.execute(
        "UPDATE users SET nickname = '小明', avatar_url = 'https://a.test/1.png', phone = '+8613800138000',"
        " phone_verified_at = now(), roles = '{editor}'"
    )
    full = {
        **{"name": "小明", "picture": "https://a.test/1.png", "phone_number": "+8613800138000"},
        **{"phone_number_verified": True, "roles": ["editor"], **email},
    }
    for method in ("GET", "POST"):
        answer = await house.userinfo(bare, method)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json().items() >= full.items()
    assert (await house.claims((await house.shop.refresh(bare)).json())).items() >= full.items()
    assert (await house.userinfo(await house.tokens(scope="openid"))).json() == {"sub": me}


@pytest.mark.requirement("oidc-5.3.1", "rfc6750-2")
async def test_userinfo_takes_a_token_with_openid_in_the_header_or_in_the_form_and_not_in_both(house: House) -> None:
    tokens, post = await house.tokens(), partial(house.stage.client.post, "/v1/userinfo")
    form = {"access_token": tokens["access_token"]}
    assert (await post(data=form)).json()["sub"] == house.phone.user_id
    both = await post(data=form, headers=bearer(tokens))
    problem_of(both, "invalid_request", 400)
    assert both.headers["www-authenticate"] == 'Bearer error="invalid_request"'
    problem_of(await post(content=f"{urlencode(form)}&{urlencode(form)}", headers=FORM), "invalid_request", 400)
    problem_of(await house.stage.client.get("/v1/userinfo", params=form), "missing_token", 401)
    without = await house.tokens(scope="profile")
    assert "id_token" not in without
    for wrong in (without, house.phone.tokens):
        problem_of(await house.userinfo(wrong), "insufficient_scope", 403)


@pytest.mark.requirement("asvs-10.4.6", "rfc7636-4.4", "rfc7636-4.6")
async def test_a_challenge_that_was_sent_counts_even_where_pkce_is_optional(house: House) -> None:
    await house.change(pkce="optional")
    assert sent(await house.browser.open(code_challenge_method="plain"))["error"] == "invalid_request"
    for challenge, wrong, good in (({}, [{}], {"code_verifier": VERIFIER}), (WITHOUT_PKCE, UNASKED_VERIFIERS, {})):
        form = {"grant_type": "authorization_code", "code": await house.code(**challenge), "redirect_uri": CALLBACK}
        for verifier in wrong:
            refused(await house.shop.post("/v1/token", **form, **verifier), "invalid_grant")
        assert (await house.shop.post("/v1/token", **form, **good)).status_code == 200
        refused(await house.shop.post("/v1/token", **form, **good), "invalid_grant")


@pytest.mark.slow
@swept(
    ("parameters", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "query.jwt"}, "invalid_request"),
        ({"scope": "phone unheard-of"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "dance"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "9999999", "prompt": "none"}, "login_required"),
        ({"registration": "{}"}, "registration_not_supported"),
        ({"nonce": ["a", "b"]}, "invalid_request"),
        ({"nonce": "n" * 513}, "nonce must have at most 512 characters"),
        ({"nonce": "n" * 4096}, "nonce must have at most 512 characters"),
        ({"state": "s" * 4097}, "state must have at most 4096 characters"),
        ({"state": ["s-1", "s-2"]}, "invalid_request"),
    ],
)
@pytest.mark.requirement("asvs-10.2.2", "rfc6749-3.1")
async def test_a_wrong_request_goes_back_with_the_error(house: House, parameters: dict[str, Any], error: str) -> None:
    for method in ("GET", "POST"):
        reported = sent(await house.browser.open(method, **parameters))
        description = reported.pop("error_description")
        if "must have" in error:
            assert description == error
        echoed = {} if "state" in parameters else {"state": "s-1"}
        named = "invalid_request" if "must have" in error else error
        assert (description != "", reported) == (True, {"error": named, "iss": "https://auth.test", **echoed})
    assert await house.stage.number("site_logins") == 0


@swept(
    ("parameters", "detail"),
    [
        (WITHOUT_PKCE, "PKCE is required: code_challenge, and code_challenge_method=S256"),
        ({"code_challenge_method": None}, "code_challenge_method must be S256 (PKCE)"),
        ({"code_challenge_method": "plain"}, "code_challenge_method must be S256 (PKCE)"),
        *(({"code_challenge": none}, "code_challenge is missing (PKCE)") for none in (None, "")),
        *(
            ({"code_challenge": challenge}, "code_challenge must be 43 characters of A-Z a-z 0-9 - _, without = (PKCE)")
            for challenge in ("abc=", ASKED["code_challenge"] + "=", "+/" + ASKED["code_challenge"][2:])
        ),
    ],
)
async def test_what_is_wrong_with_a_challenge_is_said(house: House, parameters: dict[str, Any], detail: str) -> None:
    assert sent(await house.browser.open(**parameters))["error_description"] == detail


@swept(("name", "value"), [("state", "a\nb"), ("scope", "openid\tprofile"), ("nonce", "n" * 5000), ("hunter2", "a\nb")])
async def test_a_parameter_that_cannot_be_read_is_named(house: House, name: str, value: str) -> None:
    logout = {"client_id": "shop", name: value}
    for answer in (
        await house.browser.open(**{name: value}),
        await house.browser.client.get("/v1/end_session", params=logout),
    ):
        assert (answer.status_code, f"Parameter: {name}" in answer.text) == (400, name != "hunter2")
        line = [line for line in house.stage.log_lines() if line["event"] == "parameter_refused"][-1]
        assert (line["client_id"], name in line["detail"]) == ("shop", name != "hunter2")


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("app.immich:///oauth-callback", "app.immich"),
        ("com.example.app:/cb", "com.example.app"),
        ("com.example.app://localhost", "com.example.app"),
    ],
)
async def test_an_app_logs_in_by_its_own_scheme_which_is_shown_and_always_by_pkce(
    house: House, uri: str, scheme: str
) -> None:
    await house.change(redirect_uris=[CALLBACK, uri], pkce="optional")
    for wrong in (WITHOUT_PKCE, {"response_mode": "form_post"}):
        assert sent(await house.browser.open(redirect_uri=uri, **wrong), to=uri)["error"] == "invalid_request"
    tab = await house.browser.show(redirect_uri=uri)
    assert f'<p class="origin">{scheme}</p>' in tab.html
    shown = (await tab.claimed_by(house.phone))["client"]
    assert (shown["origin"], shown["local"]) == (scheme, False)
    back = await (await house.browser.show(redirect_uri=uri)).approved_by(house.phone, to=uri)
    assert (await house.redeem(back["code"], redirect_uri=uri)).status_code == 200


@pytest.mark.requirement("rfc6749-10.12")
async def test_a_state_that_is_absent_is_not_made_up_and_the_longest_comes_back(house: House) -> None:
    assert (await (await house.browser.show(state=None)).approved_by(house.phone)).keys() == {"code", "iss"}
    assert sent(await house.browser.open(state=None, prompt="none")).keys() == {"error", "error_description", "iss"}
    state, nonce = "s" * 4095 + "状", "n" * 512
    reported = await (await house.browser.show(state=state, nonce=nonce)).approved_by(house.phone)
    assert reported["state"] == state
    assert (await house.claims((await house.redeem(reported["code"])).json()))["nonce"] == nonce


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
}


@swept("parameters", WRONG.values(), ids=WRONG)
@pytest.mark.requirement("rfc6749-3.1.2.4")
async def test_a_browser_that_cannot_be_sent_back_gets_a_page(house: House, parameters: dict[str, Any]) -> None:
    answer = await house.browser.open(**parameters)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert not {"location", "set-cookie"} & answer.headers.keys()


async def test_a_request_target_of_more_than_8_kib_is_refused_without_a_redirect(house: House) -> None:
    answer = await house.browser.open(state="a" * 9000)
    assert (answer.status_code, "location" in answer.headers) == (414, False)


@pytest.mark.requirement("asvs-10.4.1")
async def test_a_redirect_uri_that_is_not_registered_is_shown_and_is_one_warning(house: House) -> None:
    for client_id in ("shopp", "a secret, put there by mistake"):
        assert (await house.browser.open(client_id=client_id)).status_code == 400
    unknown = [(line["event"], line["client_id"]) for line in house.warnings()]
    assert unknown == [("client_unknown", "shopp"), ("client_unknown", None)]
    wrong = "https://user:pass-of-somebody@shop.example.com/<b>/callback?code=a-secret-code#a-secret-fragment"
    shown = "https://…@shop.example.com/<b>/callback?…"
    texts = ""
    for language, site, came in (("en", "Site: ", "Received address: "), ("zh-CN", "网站：", "收到的地址：")):
        answer = await house.browser.open(headers={"Accept-Language": language}, redirect_uri=wrong)
        assert f"{site}Example Shop, https://shop.example.com<" in answer.text
        assert f"{came}{escape(shown)}<" in answer.text
        texts += answer.text
    *_, logged = house.warnings()
    assert logged["event"] == "redirect_uri_not_registered"
    assert (logged["client_id"], logged["received"], logged["registered"]) == ("shop", shown, [CALLBACK])
    assert "wxauth clients set" in logged["what_to_change"]
    words = set(re.findall(r"[\w-]+", f"{texts} {house.stage.log_lines()}"))
    assert not {"pass-of-somebody", "a-secret-code", "a-secret-fragment"} & words


async def test_a_wrong_secret_is_one_warning_that_says_what_is_registered_and_never_a_secret(house: House) -> None:
    await house.add_site("page", is_public=True, redirect_uris=[CALLBACK])
    former = house.shop.secret or ""
    await renew_secret(house.stage.services.database, "shop", now=house.stage.clock())
    house.stage.clock.advance(seconds=25 * 3600)
    for name, secret in (("shop", "mistyped"), ("shop", former), ("shopp", "mistyped"), ("page", "mistyped")):
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        refused(await house.stage.client.post("/v1/token", data=form, auth=(name, secret)), "invalid_client", 401)
    assert [(line["event"], line["client_id"], line["received"], line["registered"]) for line in house.warnings()] == [
        ("client_refused", "shop", "a secret of 8 characters", "another secret, of 43 characters"),
        ("client_refused", "shop", "a secret of 43 characters", "a newer secret; this one has ended"),
        ("client_refused", "shopp", "a secret of 8 characters", "no client has this name"),
        ("client_refused", "page", "a secret of 8 characters", "a public client, which has no secret"),
    ]
    assert [secret for secret in (former, "mistyped") if secret in repr(house.stage.log_lines())] == []


async def test_a_code_that_is_refused_is_one_warning_that_says_what_came_and_what_is_registered(house: House) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "redirect_uri is not registered": {"redirect_uri": "http://localhost:9000/api/auth/callback/wxauth?x=a-secret"},
        "redirect_uri must be sent": {"redirect_uri": ""},
        "code_verifier must be 43 to 128 characters": {"code_verifier": "a-short-verifier"},
        "code_verifier must be sent": {"code_verifier": ""},
        "the code doesn't belong to this client": {},
    }
    for why, form in wrong.items():
        answer = refused(await house.redeem("a-secret-code", **form), "invalid_grant")
        assert answer.json()["error_description"].startswith(why)
    assert [(line["event"], line["client_id"], line["registered"]) for line in house.warnings()] == [
        ("grant_refused", "shop", [CALLBACK])
    ] * len(wrong)
    first, *_ = house.warnings()
    assert first["received"] == "http://localhost:9000/api/auth/callback/wxauth?…"
    assert not re.search("a-secret|a-short", repr(house.stage.log_lines()))


async def test_an_unreachable_database_is_logged_with_its_address(house: House) -> None:
    place = f"127.0.0.1:{free_port()}"
    away = Database(f"postgresql://wxauth:password-of-it@{place}/wxauth")
    house.stage.services[SiteRequests].database = away
    client = house.stage.make_client(with_part(house.stage.services, Database, away))
    page = await Browser(client).open()
    assert (page.status_code, "available now" in page.text) == (503, True)
    answer = await client.post("/v1/token", data={"grant_type": "refresh_token"}, auth=("shop", "x"))
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    await away.aclose()
    lines = house.warnings()
    assert [(line["event"], line["code"]) for line in lines] == [("request_refused", "storage_unavailable")] * 2
    assert all(place in str(line["cause"]) for line in lines)
    assert "password-of-it" not in repr(house.stage.log_lines())


@pytest.mark.requirement("rfc9700-4.1.3")
async def test_a_loopback_redirect_may_have_any_port(house: House) -> None:
    site = await house.add_site("tool", is_public=True, redirect_uris=["http://127.0.0.1/callback", "http://[::1]:1/x"])
    open_at = partial(house.browser.open, client_id="tool")
    for good in ("http://127.0.0.1:53211/callback", "http://127.0.0.1/callback", "http://[::1]:9/x"):
        assert (await open_at(redirect_uri=good)).status_code == 200
    for bad in (
        "http://127.0.0.2:53211/callback",
        "http://127.0.0.1:53211/callback/",
        "https://127.0.0.1:53211/callback",
        "http://localhost:53211/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1@evil.example/callback",
    ):
        assert (await open_at(redirect_uri=bad)).status_code == 400, bad
    to = "http://127.0.0.1:53211/callback"
    tab = await house.browser.show(client_id="tool", redirect_uri=to)
    code = (await tab.approved_by(house.phone, to=to))["code"]
    refused(await house.redeem(code, site, redirect_uri="http://127.0.0.1:53212/callback"), "invalid_grant")
    tokens = await house.redeem(code, site, redirect_uri=to)
    assert (await site.refresh(tokens.json())).status_code == 200  # a public client sends no secret


async def test_another_browser_finds_nothing_and_its_own_no_way_on_before_the_decision(house: House) -> None:
    tab, other = await house.browser.show(), house.another_browser()
    early = await tab.go_on()  # a browser without scripts sends this request
    assert (early.status_code, "Confirm on your phone" in early.text) == (404, True)
    for browser, status in ((other, 404), (house.browser, 200)):
        answer = await tab.ask(browser)
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    assert (await tab.go_on(other)).status_code == 404
    await other.show()  # a cookie of its own doesn't help the other browser
    assert (await tab.ask(other)).status_code == 404
    await tab.decided_by(house.phone)
    assert (await tab.go_on(other)).status_code == 404
    problem_of(await house.browser.client.get(f"/v1/authorize/{'a' * 22}/state"), "not_found", 404)
    assert sent(await tab.go_on())["code"]
    denied = await (await house.browser.show()).approved_by(house.phone, "deny")
    assert (denied["error"], denied["state"], denied["iss"]) == ("access_denied", "s-1", "https://auth.test")


async def test_the_cookie_names_the_browser_so_that_tabs_and_sites_work_at_once(house: House) -> None:
    answer = await house.browser.open()
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-wxauth-browser=")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {"httponly", "secure", "samesite=lax", "path=/"}
    second = await house.browser.open()
    assert "set-cookie" not in second.headers
    await house.add_site("other")
    for page in (await house.browser.open(client_id="other"), second, answer):
        assert (await Tab(house.browser, page.text).approved_by(house.phone))["code"]


async def test_the_page_is_plain_strict_and_speaks_both_languages(house: House) -> None:
    page, client = await house.browser.open(), house.browser.client
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
    own = page.text.replace("https://shop.example.com", "")
    assert not re.findall(r"<script(?![^>]+src=)|<style|\son\w+=|\sstyle=|https?://", own)
    assert "Log in to Example Shop" in page.text
    for path in re.findall(r'(?:src|href)="(/v1/pages/[^"]+)"', page.text):
        asset = await client.get(path)
        assert asset.status_code == 200
        assert (await client.get(path, headers={"If-None-Match": asset.headers["etag"]})).status_code == 304
    chinese = await house.browser.open(headers={"Accept-Language": "zh-CN"})
    assert ("登录 Example Shop" in chinese.text, chinese.headers["content-language"]) == (True, "zh-CN")
    assert "登录 Example Shop" in (await house.browser.open(ui_locales="fr zh-Hans")).text


async def test_a_phone_is_first_shown_the_code_to_type_because_its_screen_cannot_be_scanned(house: House) -> None:
    phone = (await house.browser.open(headers={"User-Agent": "iPhone Mobile"})).text
    assert phone.index('class="typed"') < phone.index("<details>") < phone.index('class="code"')
    computer = (await house.browser.open()).text
    assert computer.index('class="code"') < computer.index("<details>") < computer.index('class="typed"')
    assert ("Scan this QR code with WeChat." in computer, "Then come back to this page." in phone) == (True, True)


@pytest.mark.oldest_postgres
async def test_the_code_on_the_page_can_be_typed(house: House) -> None:
    tab = await house.browser.show()
    assert (await tab.typed_by(house.phone))["typed"] is True
    tokens = (await house.redeem(sent(await tab.go_on())["code"])).json()
    assert (await house.claims(tokens))["amr"] == ["wechat_code"]


async def test_the_pages_files_are_compressed_for_browsers_that_accept_it(house: House) -> None:
    for accepted, encoding in (("gzip, br", "gzip"), ("identity", None)):
        answer = await house.stage.client.get("/v1/pages/page.css", headers={"Accept-Encoding": accepted})
        assert answer.headers.get("Content-Encoding") == encoding
        assert (answer.headers["Vary"], answer.headers["Cache-Control"]) == ("Accept-Encoding", "no-cache")
        assert "data-state" in answer.text


async def test_a_code_that_is_over_is_renewed_at_a_click(house: House) -> None:
    tab = await house.browser.show()
    house.stage.clock.advance(seconds=180)
    assert (await tab.state(), (await tab.go_on()).status_code) == ("over", 404)
    link = tab.found(r'class="button renew" href="([^"]+)"').replace("&amp;", "&")
    answer = await Tab(house.browser, (await house.browser.client.get(link)).text).approved_by(house.phone)
    assert (answer["state"], "code" in answer) == ("s-1", True)


@pytest.mark.requirement("asvs-10.4.2", "rfc6749-4.1.2")
async def test_a_code_lives_a_minute_and_works_once(house: House) -> None:
    code = await house.code()
    house.stage.clock.advance(seconds=60)
    refused(await house.redeem(code), "invalid_grant")
    tab = await house.browser.show()
    first = await tab.approved_by(house.phone)
    second = sent(await tab.go_on())  # the redirect was lost, so the browser asks again
    refused(await house.redeem(first["code"]), "invalid_grant")
    house.stage.clock.advance(seconds=59)
    assert (await house.redeem(second["code"])).status_code == 200
    assert await house.stage.number("events WHERE type = 'site.authorized'") == 2, "one for each page"


async def test_a_code_that_expires_while_the_request_waits_in_the_queue_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = await house.code()
    wait_in_queues(monkeypatch, house.stage.clock)
    refused(await house.redeem(code), "invalid_grant")


@pytest.mark.requirement("asvs-10.1.2", "rfc6749-4.1.3")
async def test_a_wrong_verifier_or_redirect_uri_neither_spends_a_code_nor_ends_a_session(house: House) -> None:
    other, page = await house.add_site("other"), await house.add_site("page", is_public=True)
    code = await house.code()

    async def try_all() -> None:
        for site in (other, page):
            refused(await house.redeem(code, site), "invalid_grant")
        for verifier in ("x" * 43, ASKED["code_challenge"], "short", ""):
            refused(await house.redeem(code, code_verifier=verifier), "invalid_grant")
        for uri in (CALLBACK + "/", ""):
            refused(await house.redeem(code, redirect_uri=uri), "invalid_grant")
        refused(await house.redeem(code + "x"), "invalid_grant")
        refused(await house.redeem(code, replace(house.shop, secret="wrong")), "invalid_client", 401)

    await try_all()
    tokens = (await house.redeem(code)).json()
    await try_all()
    assert await house.is_in(tokens)


@pytest.mark.parametrize("seconds", [0, 1.9, 2])
async def test_a_public_client_may_repeat_a_code_within_two_seconds(house: House, seconds: float) -> None:
    """Public clients repeat a code because React's StrictMode redeems each code twice."""
    page = await house.add_site("page", is_public=True)
    code = await house.code(client_id="page")
    tokens = (await house.redeem(code, page)).json()
    refused(await house.redeem(code, page, code_verifier="x" * 43), "invalid_grant")
    house.stage.clock.advance(seconds=seconds)
    refused(await house.redeem(code, page), "invalid_grant")
    assert await house.is_in(tokens) is (seconds < 2)


async def test_of_many_exchanges_at_two_replicas_one_gets_tokens_and_no_session_is_left(house: House) -> None:
    sites = [replace(house.shop, client=await house.stage.make()) for _ in range(2)]
    code = await house.code()
    answers = await gather(*(house.redeem(code, site) for site in sites * 3))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    assert await house.stage.number("sessions WHERE client_id = 'shop'") == 1
    assert await house.stage.number("sessions WHERE client_id = 'shop' AND revoked_at IS NULL") == 0


@pytest.mark.requirement("rfc7009-2.1")
async def test_a_token_of_its_own_is_revoked_by_its_client(house: House) -> None:
    other, shop, phones = await house.add_site("other"), house.shop, house.phone.tokens
    for name in ("access_token", "refresh_token"):
        tokens = await house.tokens()
        of_the_phone = (phones["access_token"], phones["refresh_token"])
        for wrong in (tokens["id_token"], "nonsense", "eyJ" * 9000, "\0", "ключ", *of_the_phone):
            assert (await shop.post("/v1/revoke", token=wrong)).status_code == 200
        assert (await other.post("/v1/revoke", token=tokens[name])).status_code == 200
        assert await house.is_in(tokens)
        for _ in range(2):
            done = await shop.post("/v1/revoke", token=tokens[name], token_type_hint="nonsense")
            assert (done.status_code, done.headers["cache-control"]) == (200, "no-store")
        problem_of(await house.userinfo(tokens), "invalid_token", 401)
    assert (await house.phone.ask("GET")).status_code == 200
    refused(await shop.post("/v1/revoke"), "invalid_request")
    refused(await house.stage.client.post("/v1/revoke", data={"token": "x"}), "invalid_client", 401)


async def test_a_long_or_expired_id_token_logs_out_of_the_site_and_an_access_token_does_not(house: House) -> None:
    named = {"avatar_url": "https://example.com/".ljust(2048, "x"), "nickname": "😀" * 64}
    assert (await house.phone.ask("POST", json=named)).status_code == 200
    tokens = await house.tokens(nonce="n" * 512)
    assert len(tokens["id_token"]) > 4096
    for hint, status, is_in in (("access_token", 400, True), ("id_token", 200, False)):
        assert (await house.log_out(id_token_hint=tokens[hint])).status_code == status
        assert await house.is_in(tokens) is is_in
    tokens = await house.tokens()
    house.stage.clock.advance(hours=2)  # the id_token has expired, but it still identifies its session
    refreshed = (await house.shop.refresh(tokens)).json()
    assert (await house.log_out(id_token_hint=tokens["id_token"])).status_code == 200
    assert not await house.is_in(refreshed)


@pytest.mark.oldest_postgres
@pytest.mark.slow
@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_an_id_token_logs_out_after_its_key_has_retired(house: House, alg: str) -> None:
    await house.change(id_token_alg=alg)
    first = tokens = await house.tokens()
    await house.stage.services[KeyRing].rotate()
    for _ in range(72):
        house.stage.clock.advance(hours=9)
        tokens = body_of(await house.shop.refresh(tokens))
    await house.sweep()
    await house.stage.services[KeyRing].refresh()
    kids = [key["kid"] for key in await keys_at(house.stage.client)]
    assert jwt.get_unverified_header(first["id_token"])["kid"] not in kids
    assert (await house.log_out(id_token_hint=first["id_token"])).status_code == 200
    refused(await house.shop.refresh(tokens), "invalid_grant")


@pytest.mark.requirement("asvs-10.4.4", "rfc8414-2")
async def test_what_the_metadata_names_is_there(house: House) -> None:
    body = (await house.stage.client.get("/.well-known/openid-configuration")).json()
    endpoints = {url.removeprefix("https://auth.test") for name, url in body.items() if name.endswith("_endpoint")}
    assert endpoints <= (await house.stage.client.get("/openapi.json")).json()["paths"].keys()
    assert len(endpoints) == 7
    assert body["response_modes_supported"] == ["query", "form_post"]
    assert body["id_token_signing_alg_values_supported"] == ["RS256", "ES256"]
    assert body["authorization_response_iss_parameter_supported"] is True
    assert set(body["scopes_supported"]) == {"openid", "profile", "phone", "email", "roles", "offline_access"}
    for grant in body["grant_types_supported"]:
        answer = await house.shop.post("/v1/token", grant_type=grant)
        assert answer.json()["error"] != "unsupported_grant_type"


@pytest.mark.no_signing_key
async def test_id_token_keys_are_made_when_the_first_site_is(stage: Stage, add_site: AddSite) -> None:
    ring = stage.services[KeyRing]
    await ring.refresh()
    assert [key["alg"] for key in await keys_at(stage.client)] == ["ES256"]
    assert await stage.number("signing_keys WHERE alg = 'RS256'") == 0
    await add_site()
    stage.clock.advance(seconds=5)
    assert [key["alg"] for key in await keys_at(stage.client)] == ["ES256", "RS256"]
    stored = await stage.rows.fetchval("SELECT private_key FROM signing_keys WHERE alg = 'RS256'")
    key = await ring.id_token_key("RS256", stage.clock())
    assert (key.to_der() in stored, {"d", "p", "q"} & key.public_jwk.keys()) == (False, set())
    assert [(line["alg"], line["signs"]) for line in stage.logged("signing_key_made")] == [("RS256", "id_tokens")]


async def test_without_a_site_one_request_for_the_keys_at_a_time_asks_the_database(stage: Stage, proxy: Proxy) -> None:
    client = await stage.make(database_url=proxy.url)
    before = proxy.round_trips
    answers = await gather(*(client.get("/.well-known/jwks.json") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert proxy.round_trips - before <= 2


@pytest.mark.no_signing_key
async def test_a_clock_that_was_set_back_does_not_delay_the_first_sites_key(
    stage: Stage, proxy: Proxy, add_site: AddSite
) -> None:
    services = await stage.make_services(database_url=proxy.url)
    await services[KeyRing].refresh()
    client = stage.make_client(services)
    await proxy.refuse()
    assert [key["alg"] for key in await keys_at(client)] == ["ES256"]
    await proxy.accept()
    await add_site()
    stage.clock.advance(hours=-1)
    assert [key["alg"] for key in await keys_at(client)] == ["ES256", "RS256"]


async def test_the_key_of_the_first_site_is_published_at_once_by_every_replica(stage: Stage, add_site: AddSite) -> None:
    there = await stage.make()
    for client in (stage.client, there):
        await client.get("/.well-known/jwks.json")
    await add_site("first")
    for client in (there, stage.client):
        keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
        assert [key["alg"] for key in keys] == ["ES256", "RS256"]


@pytest.mark.requirement("rfc9700-2.1.1")
async def test_a_code_that_went_where_the_site_is_no_longer_is_worth_nothing(house: House) -> None:
    code = await house.code()
    for uris, status in (["https://shop.example.com/new"], 400), ([CALLBACK], 200):
        await house.change(redirect_uris=uris)
        assert (await house.redeem(code)).status_code == status


@pytest.mark.oldest_postgres
async def test_keys_of_id_tokens_rotate_and_are_withdrawn_like_others(house: House, root: Admin) -> None:
    before = await house.tokens()
    rotated = (await root.ask("POST", "/keys/rotate", json={"at_once": True})).json()
    keys = await root.read("/keys")
    states = [(key["alg"], key["state"]) for key in keys["id_token_keys"]]
    assert (states, keys["items"][1]["kid"]) == ([("RS256", "signing"), ("RS256", "next")], rotated["kid"])
    waiting = await house.tokens()
    house.stage.clock.advance(seconds=361)
    after = await house.tokens(await house.get_phone("alice"))
    first, second = [key["kid"] for key in keys["id_token_keys"]]
    kids = [jwt.get_unverified_header(tokens["id_token"])["kid"] for tokens in (before, waiting, after)]
    assert kids == [first, first, second]
    for tokens in (before, after):
        await house.claims(tokens)
    assert (await root.ask("POST", f"/keys/{first}/withdraw")).json() == {"kid": first, "signing": second}
    assert first not in [key["kid"] for key in await keys_at(house.stage.client)]
    problem_of(await root.ask("POST", f"/keys/{first}/withdraw"), "not_found", 404)


CORS_PATHS = [
    "/v1/token",
    "/v1/revoke",
    "/v1/userinfo",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
]


@pytest.mark.slow
async def test_only_pages_of_public_clients_may_read_the_answers(house: House) -> None:
    uris = ["https://page.example/callback", "http://127.0.0.1/x"]
    await house.add_site("page", is_public=True, redirect_uris=uris)
    client = await house.stage.make(cors_origins="https://office.example")

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
async def test_an_origin_is_in_the_form_that_browsers_send(house: House) -> None:
    uris = [
        "https://Page.Example:443/callback",
        "http://LOCALHOST:80",
        "https://page.example:8443/",
        "http://[::1]:80/",
        "https://query.example?from=wxauth",
    ]
    origins = [
        "https://page.example",
        "http://localhost",
        "https://page.example:8443",
        "http://[::1]",
        "https://query.example",
    ]
    await house.add_site("page", is_public=True, redirect_uris=uris)
    for origin in origins:
        answer = await house.stage.client.get("/.well-known/openid-configuration", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == origin
    claimed = await (await house.browser.show(client_id="page", redirect_uri=uris[0])).claimed_by(house.phone)
    assert claimed["client"]["origin"] == "https://page.example"


async def test_no_log_line_contains_the_secret_of_a_code(house: House) -> None:
    tab, client = await house.browser.show(), house.browser.client
    await tab.approved_by(house.phone)
    await client.get(f"/d/{tab.scene}")
    await client.post(f"/d/{tab.scene}")
    await house.phone.decide(tab.scene)  # this request is a mistake, because the endpoint expects the id of the claim
    house.stage.clock.advance(seconds=999)
    await client.get(f"/v1/scans/{tab.scene}/code")
    client.cookies.clear()
    await tab.ask()
    lines = repr(house.stage.log_lines())
    assert ("request_refused" in lines, tab.scene in lines, tab.request_id in lines) == (True, False, False)


async def test_a_link_says_scan_this_with_wechat_and_changes_nothing(house: House) -> None:
    started = await house.shop.start()
    before = await house.stage.rows.fetch("SELECT * FROM site_logins")
    for url in (started["verification_uri"], started["verification_uri_complete"], "https://auth.test/d/nonsense"):
        page = await house.stage.client.get(url, headers={"User-Agent": SAFARI})
        assert (page.status_code, page.headers["referrer-policy"], "WeChat" in page.text) == (200, "no-referrer", True)
        assert page.headers["cache-control"] == "no-store"
    assert await house.stage.rows.fetch("SELECT * FROM site_logins") == before
    answer = await (await house.stage.make(link_check_file="a1B2.txt:0f1e2d")).get("/d/a1B2.txt")
    assert (answer.text, answer.headers["content-type"]) == ("0f1e2d", "text/plain; charset=utf-8")


async def test_logins_are_swept_when_nothing_can_come_of_them(house: House) -> None:
    device, unscanned, scanned = await house.shop.start(), await house.browser.show(), await house.browser.show()
    await scanned.claimed_by(house.phone)
    await house.answer()
    await house.sweep(after=179)
    assert await unscanned.state() == "waiting"
    await house.sweep(after=2, page_size=1)
    assert (await unscanned.ask()).status_code == 404  # the page then treats the login as over
    assert await scanned.state() == "over"
    # The rows are kept this long so that a repeated code is noticed.
    assert await house.stage.number("site_logins") == 3
    await house.sweep(after=3598)
    refused(await house.shop.poll(device), "expired_token")
    await house.sweep(after=2)
    refused(await house.shop.poll(device), "invalid_grant")
    assert await house.stage.number("site_logins") == 0


@pytest.mark.own_database
async def test_a_login_that_somebody_is_extending_is_not_swept(house: House) -> None:
    [extended, _] = [await house.browser.show(), await house.browser.show()]
    house.stage.clock.advance(seconds=181)
    async with house.stage.rows.transaction():
        await house.stage.rows.execute(
            "UPDATE site_logins SET expires_at = $1, kept_until = $1 WHERE scene_hash = sha256($2)",
            house.stage.clock() + timedelta(seconds=60),
            extended.scene.encode(),
        )
        async with timeout(PATIENCE):
            await house.sweep()
    assert await house.stage.number("site_logins") == 1
    assert (await extended.ask()).status_code == 200


async def test_a_cookie_is_found_beside_any_number_of_others(house: House) -> None:
    ours = (await house.browser.open()).headers["set-cookie"].partition(";")[0]
    name, _, value = ours.partition("=")
    is_known = {
        ours: True,
        f"a=1; {ours}; b=2": True,
        f"a=1;{ours} ;b": True,
        f"{ours}; a={'x' * 60_000}": True,
        f"{';' * 30_000}{ours}{';a=1' * 7_000}": True,
        f"x{ours}": False,
        f'a="; {ours}': True,
        f"{name}=; a={value}": False,
    }
    for header, known in is_known.items():
        house.browser.client.cookies.clear()
        answer = await house.browser.open(headers={"Cookie": header})
        assert (answer.status_code, "set-cookie" not in answer.headers) == (200, known), header[:80]


@pytest.mark.slow
async def test_a_neighbours_cookie_does_not_replace_the_browsers(house: House) -> None:
    client = house.browser.client
    ours = (await house.browser.open()).headers["set-cookie"].partition(";")[0]
    name, _, value = ours.partition("=")
    client.cookies.clear()
    page, request, callback = f"/v1/authorize?{urlencode(ASKED)}", f"/v1/authorize/{'r' * 22}", "/v1/authorize/wechat"
    for both in (f"{ours}; {name}={'n' * len(value)}", f"{name}={'n' * len(value)};{ours}", f"{ours}; {ours}"):
        for path in (page, f"{request}/state", f"{request}/next", f"{request}/wechat", f"{callback}?state=s&code=c"):
            answer = await client.get(path, headers={"Cookie": both})
            problem_of(answer, "invalid_request", 400)
            assert "set-cookie" not in answer.headers
        assert (await client.get("/d", headers={"Cookie": both})).status_code == 200
    for button in ("continue", "another", "link", "number"):
        problem_of(await client.post(f"{request}/{button}", headers={"Cookie": both}), "invalid_request", 400)
        assert (await client.post(f"{request}/{button}", content=b"x" * 65537)).status_code in (404, 413)


@pytest.mark.settings(issuer="https://auth.test/a/b")
async def test_the_metadata_of_an_issuer_with_a_path_is_at_the_hosts_root_too(stage: Stage) -> None:
    path = "/.well-known/oauth-authorization-server"
    told = body_of(await stage.client.get(f"{path}/a/b", headers={"Origin": "https://shop.test"}))
    assert told["issuer"] == "https://auth.test/a/b"
    for same in (f"/a/b{path}", path, "/a/b/.well-known/openid-configuration"):
        assert body_of(await stage.client.get(same)) == told, same
    for other in (
        f"{path}/a",
        f"{path}/a/b/",
        f"{path}/a/b/c",
        f"{path}/",
        "/.well-known/oauth-authorization-server/A/b",
    ):
        assert (await stage.client.get(other)).status_code == 404, other
    assert (await stage.client.head(f"{path}/a/b")).status_code == 200
    assert (await stage.client.post(f"{path}/a/b")).status_code == 405


async def test_without_a_path_there_is_no_other(stage: Stage) -> None:
    assert (await stage.client.get("/.well-known/oauth-authorization-server/a")).status_code == 404


async def test_a_sites_refresh_that_waits_for_a_link_succeeds(house: House) -> None:
    tokens, bob = await house.tokens(), await house.get_phone("bob")
    link = "UPDATE identities SET user_id = $1::text::uuid WHERE openid = $2"
    whose = bob.user_id, house.phone.tokens["user"]["openid"]
    linked = body_of(await behind(house.stage.rows, house.shop.refresh(tokens), link, *whose))
    assert jwt.get_unverified_claims(linked["access_token"])["sub"] == bob.user_id


async def test_a_code_whose_scopes_the_client_has_lost_opens_no_session(house: House) -> None:
    before, code = await house.stage.number("sessions"), await house.code()
    await house.change(scopes=["phone"])
    refused(await house.redeem(code), "invalid_grant")
    assert await house.stage.number("sessions") == before
    await house.change(scopes=["openid"])
    assert body_of(await house.redeem(code))["scope"] == "openid"
