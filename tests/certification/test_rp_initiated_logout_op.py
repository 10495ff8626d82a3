"""The plan "RP-Initiated Logout OP" of the OpenID Foundation's conformance suite, each test named as its module."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jose import jwt

from tests.sweeps import Sweep
from tests.websites.browsers import Browser, hidden_fields, refused, sent, tokens_of
from tests.world import AddSite, GetPhone, Site

BYE = "https://shop.example.com/signed-out"


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(sso=True, pkce="optional", logout_uris=[BYE, f"{BYE}?from=wxauth"])


@pytest.fixture
def browser(make_browser: Callable[[], Browser]) -> Browser:
    return make_browser()


@pytest.fixture
async def tokens(shop: Site, browser: Browser, get_phone: GetPhone) -> dict[str, Any]:
    return await tokens_of(shop, browser, await get_phone())


async def sign_out(browser: Browser, **parameters: str) -> httpx.Response:
    return await browser.client.get("/v1/end_session", params=parameters)


async def is_logged_in(browser: Browser) -> bool:
    reported = sent(await browser.open(prompt="none"))
    assert reported.get("error") in (None, "login_required")
    return "code" in reported


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_oidcc_rp_initiated_logout(shop: Site, browser: Browser, tokens: dict[str, Any], method: str) -> None:
    assert await is_logged_in(browser)
    asked = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": BYE, "state": "s-2"}
    place = {"params": asked} if method == "GET" else {"data": asked}
    answer = await browser.client.request(method, "/v1/end_session", **place)  # type: ignore[arg-type]
    assert sent(answer, BYE) == {"state": "s-2"}
    assert not await is_logged_in(browser)
    refused(await shop.refresh(tokens), "invalid_grant")


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        pytest.param({"post_logout_redirect_uri": BYE}, BYE, id="no-state"),
        pytest.param({"state": "s-2"}, None, id="no-post-logout-redirect-uri"),
        pytest.param({"post_logout_redirect_uri": f"{BYE}?added=1", "state": "s-2"}, None, id="query-added"),
        pytest.param(
            {"post_logout_redirect_uri": f"{BYE}?from=wxauth", "state": "s-2"},
            f"{BYE}?from=wxauth&state=s-2",
            id="a registered query",
        ),
        pytest.param({"post_logout_redirect_uri": "https://evil.example/"}, None, id="bad-post-logout-redirect-uri"),
    ],
)
async def test_oidcc_rp_initiated_logout_goes_only_where_it_may(
    browser: Browser, tokens: dict[str, Any], asked: dict[str, str], location: str | None
) -> None:
    answer = await sign_out(browser, id_token_hint=tokens["id_token"], **asked)
    assert (answer.status_code, answer.headers.get("location")) == (303 if location else 200, location)
    assert not await is_logged_in(browser)


@pytest.mark.slow
async def test_oidcc_rp_initiated_logout_modified_id_token_hint(
    shop: Site, browser: Browser, tokens: dict[str, Any]
) -> None:
    hint, secret = tokens["id_token"], shop.secret or ""
    wrong: dict[str, dict[str, Any]] = {
        "modified": {"id_token_hint": f"{hint[:-8]}{'A' * 8}"},
        "another client's": {"id_token_hint": hint, "client_id": "other"},
        "twice": {"id_token_hint": [hint] * 2},
        "bad": {"id_token_hint": jwt.encode(jwt.get_unverified_claims(hint), secret, algorithm="HS256")},
        "an access token": {"id_token_hint": tokens["access_token"]},
        "two states": {"id_token_hint": hint, "state": ["a", "b"]},
    }
    with Sweep() as sweep:
        for name, asked in wrong.items():
            for method, place in (("GET", "params"), ("POST", "data")):
                with sweep.case(name, method):
                    options: Any = {place: {**asked, "post_logout_redirect_uri": BYE}}
                    answer = await browser.client.request(method, "/v1/end_session", **options)
                    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert await is_logged_in(browser)
    assert (await shop.refresh(tokens)).status_code == 200


async def test_oidcc_rp_initiated_logout_no_id_token_hint(browser: Browser, tokens: dict[str, Any]) -> None:
    page = await sign_out(browser, client_id="shop", post_logout_redirect_uri=BYE, state="s<2")
    assert await is_logged_in(browser)
    form = hidden_fields(page)
    (secret,) = form.keys() - {"client_id", "post_logout_redirect_uri", "state", "ui_locales"}
    forged = await browser.client.post("/v1/end_session", data={**form, secret: "x" * len(form[secret])})
    assert hidden_fields(forged) == form
    assert await is_logged_in(browser)
    answer = await browser.client.post("/v1/end_session", data=form)
    assert sent(answer, BYE) == {"state": "s<2"}
    assert not await is_logged_in(browser)


@pytest.mark.parametrize(
    "asked", [{}, {"post_logout_redirect_uri": BYE}, {"state": "s-2"}], ids=["no-params", "no-hint", "only-state"]
)
async def test_oidcc_rp_initiated_logout_no_params(
    browser: Browser, make_browser: Callable[[], Browser], tokens: dict[str, Any], asked: dict[str, str]
) -> None:
    nobody = await sign_out(make_browser(), **asked)
    assert (nobody.status_code, hidden_fields(nobody)) == (200, {})
    page = await sign_out(browser, **asked)
    answer = await browser.client.post("/v1/end_session", data=hidden_fields(page))
    assert (answer.status_code, "location" in answer.headers) == (200, False)
    assert not await is_logged_in(browser)


async def test_a_sign_out_by_another_browser_leaves_the_login_of_the_first(
    shop: Site, browser: Browser, make_browser: Callable[[], Browser], tokens: dict[str, Any]
) -> None:
    assert (await sign_out(make_browser(), id_token_hint=tokens["id_token"])).status_code == 200
    refused(await shop.refresh(tokens), "invalid_grant")
    assert await is_logged_in(browser)


async def test_a_form_from_another_site_is_redirected_so_that_the_cookie_is_sent(
    browser: Browser, tokens: dict[str, Any]
) -> None:
    answer = await browser.client.post(
        "/v1/end_session", data={"id_token_hint": tokens["id_token"]}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/v1/end_session?id_token_hint={tokens['id_token']}"
    assert await is_logged_in(browser)
