"""`response_mode=form_post`: the browser posts the answer to the site, as a form (ASP.NET Core's default)."""

import re
from collections.abc import Mapping
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fakes import Clock
from tests.sweeps import swept
from tests.websites.browsers import Browser, exchanged, hidden_fields, id_claims
from tests.websites.test_browser_logins import TO_ADMIN, person_page
from tests.websites.test_web_view import answer
from tests.world import CALLBACK, AddSite, Client, Phone, Site

BY_FORM = {"response_mode": "form_post"}


def posted(page: httpx.Response, to: str = CALLBACK) -> Mapping[str, str]:
    """The fields that a page posts to the site."""
    assert page.status_code == 200, page.headers.get("location", page.text)
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    origin = f"{urlsplit(to).scheme}://{urlsplit(to).netloc}"
    assert f"form-action {origin} " in page.headers["content-security-policy"]
    assert '/v1/pages/post.js"' in page.text
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', page.text, re.DOTALL)
    assert form, page.text
    assert unescape(form[1]) == to
    assert '<button class="button">' in form[2]
    return hidden_fields(page)


async def test_the_answer_to_a_scan_is_posted(shop: Site, browser: Browser, phone: Phone) -> None:
    state = '"><script>alert(1)</script>&amp;'
    tab = await browser.show(**BY_FORM, state=state)
    await tab.decided_by(phone)
    page = await tab.go_on()
    fields = posted(page)

    assert fields.keys() == {"code", "state", "iss"}
    assert (fields["state"], fields["iss"]) == (state, "https://auth.test")
    assert "<script>alert" not in page.text
    tokens = (await exchanged(shop, fields["code"])).json()
    assert (await id_claims(shop.client, tokens["id_token"]))["sub"] == phone.user_id


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"scope": "phone unheard-of"}, "invalid_scope"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"id_token_hint": "e30.e30.e30"}, "login_required"),
        ({"request_uri": "https://shop.example.com/r"}, "request_uri_not_supported"),
    ],
)
async def test_an_error_is_posted_too(
    add_site: AddSite, browser: Browser, parameters: dict[str, str], error: str
) -> None:
    await add_site()
    fields = posted(await browser.open(**BY_FORM, **parameters))
    assert fields.keys() == {"error", "error_description", "state", "iss"}
    assert fields["error"] == error


async def test_a_site_may_ask_in_a_frame_of_its_own_and_nobody_else_may(shop: Site, browser: Browser) -> None:
    page = await browser.open(**BY_FORM, prompt="none")
    assert page.headers["content-security-policy"].endswith("frame-ancestors https://shop.example.com")
    assert "x-frame-options" not in page.headers
    assert (await browser.open(**BY_FORM)).headers["x-frame-options"] == "DENY"


async def test_the_login_of_a_browser_is_posted_after_its_button_and_without_a_page(
    add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    await add_site(sso=True)
    admin = await add_site("admin", sso=True, redirect_uris=[TO_ADMIN["redirect_uri"]])
    await (await browser.show()).approved_by(phone)
    pressed = await (await person_page(browser, **BY_FORM)).press()
    silent = await browser.open(**TO_ADMIN, **BY_FORM, prompt="none")
    for page in (pressed, silent):
        code = posted(page, TO_ADMIN["redirect_uri"])["code"]
        answer = await exchanged(admin, code, redirect_uri=TO_ADMIN["redirect_uri"])
        assert answer.status_code == 200, answer.text


async def test_a_web_view_opens_a_page_that_posts_the_answer(shop: Site, browser: Browser, phone: Phone) -> None:
    url = (await answer(phone, **BY_FORM)).json()["redirect_to"]
    assert url.startswith("https://auth.test/v1/authorize/form_post?answer=")
    assert parse_qs(urlsplit(url).query).keys() == {"answer"}
    fields = posted(await browser.client.get(url))
    assert (await exchanged(shop, fields["code"])).status_code == 200

    wrong = (await answer(phone, **BY_FORM, scope="unheard-of")).json()["redirect_to"]
    assert posted(await browser.client.get(wrong))["error"] == "invalid_scope"


async def test_the_page_that_posts_the_answer_ends_with_the_code(
    shop: Site, browser: Browser, phone: Phone, clock: Clock
) -> None:
    url = (await answer(phone, **BY_FORM)).json()["redirect_to"]
    clock.advance(seconds=59)
    posted(await browser.client.get(url))
    clock.advance(seconds=1)
    assert (await browser.client.get(url)).status_code == 404


@swept("sealed", ["", "x", "e30", "A" * 80, "é"])
async def test_nobody_makes_a_page_that_posts_what_they_like(client: Client, sealed: str) -> None:
    page = await client.get("/v1/authorize/form_post", params={"answer": sealed})
    assert page.status_code == 404
    assert "<form" not in page.text


async def test_an_unknown_response_mode_is_reported_in_the_query(add_site: AddSite, browser: Browser) -> None:
    await add_site()
    for mode in ("fragment", "query.jwt"):
        refused = await browser.open(response_mode=mode)
        assert parse_qs(urlsplit(refused.headers["location"]).query)["error"] == ["invalid_request"]


async def test_the_redirect_uri_keeps_its_own_query(add_site: AddSite, browser: Browser) -> None:
    to = "https://shop.example.com/callback?tenant=1&x=%22"
    await add_site(redirect_uris=[to])
    assert posted(await browser.open(**BY_FORM, redirect_uri=to, prompt="none"), to)["error"] == "login_required"
