"""With `response_mode=form_post`, the browser posts the response to the site as a form.

ASP.NET Core uses this mode by default.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.sites.browsers import House, sent
from tests.sites.certification.requests import request_object
from tests.sites.form_post import BY_FORM, posted
from tests.sites.persons import TO_ADMIN, person_page
from tests.sweeps import swept
from tests.world import Client, body_of


async def test_the_answer_to_a_scan_is_posted(house: House) -> None:
    state = '"><script>alert(1)</script>&amp;'
    tab = await house.browser.show(**BY_FORM, state=state)
    await tab.decided_by(house.phone)
    page = await tab.go_on()
    fields = posted(page)
    assert fields.keys() == {"code", "state", "iss"}
    assert (fields["state"], fields["iss"]) == (state, "https://auth.test")
    assert "<script>alert" not in page.text
    tokens = (await house.redeem(fields["code"])).json()
    assert (await house.claims(tokens))["sub"] == house.phone.user_id


@swept(
    ("parameters", "error"),
    [
        ({"scope": "phone unheard-of"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"id_token_hint": "e30.e30.e30"}, "login_required"),
    ],
)
async def test_an_error_is_posted_too(house: House, parameters: dict[str, Any], error: str) -> None:
    fields = posted(await house.browser.open(**BY_FORM, **parameters))
    assert fields.keys() == {"error", "error_description", "state", "iss"}
    assert fields["error"] == error


async def test_a_request_object_is_refused_in_the_way_that_it_asks_for(house: House) -> None:
    asked = request_object(response_mode="form_post", state="inside", redirect_uri="https://evil.example/callback")
    fields = posted(await house.browser.open(state=None, request=asked))
    assert (fields["error"], fields["state"]) == ("request_not_supported", "inside")
    for wrong in ("x", "e30.", "e30.W10.", "e30.bnVsbA", f"e30.{'A' * 4000}", request_object(response_mode="fragment")):
        reported = sent(await house.browser.open(state=None, request=wrong))
        assert (reported["error"], "state" in reported) == ("request_not_supported", False)


@pytest.mark.requirement("rfc9700-4.16")
async def test_a_site_may_ask_in_a_frame_of_its_own_and_nobody_else_may(house: House) -> None:
    page = await house.browser.open(**BY_FORM, prompt="none")
    assert page.headers["content-security-policy"].endswith("frame-ancestors https://shop.example.com")
    assert "x-frame-options" not in page.headers
    assert (await house.browser.open(**BY_FORM)).headers["x-frame-options"] == "DENY"


async def test_the_login_of_a_browser_is_posted_after_its_button_and_without_a_page(house: House) -> None:
    await house.change(sso=True)
    uri = TO_ADMIN["redirect_uri"]
    admin = await house.add_site("admin", sso=True, redirect_uris=[uri])
    await house.code()
    pressed = await (await person_page(house.browser, **BY_FORM)).press()
    silent = await house.browser.open(**TO_ADMIN, **BY_FORM, prompt="none")
    for page in (pressed, silent):
        assert body_of(await house.redeem(posted(page, uri)["code"], admin, redirect_uri=uri))


async def test_a_web_view_opens_a_page_that_posts_the_answer_and_ends_with_the_code(house: House) -> None:
    url = (await house.answer(**BY_FORM)).json()["redirect_to"]
    assert url.startswith("https://auth.test/v1/authorize/form_post?answer=")
    assert parse_qs(urlsplit(url).query).keys() == {"answer"}
    assert (await house.redeem(posted(await house.stage.client.get(url))["code"])).status_code == 200
    wrong = (await house.answer(**BY_FORM, scope="unheard-of")).json()["redirect_to"]
    assert posted(await house.stage.client.get(wrong))["error"] == "invalid_scope"
    house.stage.clock.advance(seconds=59)
    posted(await house.stage.client.get(url))
    house.stage.clock.advance(seconds=1)
    assert (await house.stage.client.get(url)).status_code == 404


@swept("sealed", ["", "x", "e30", "A" * 80, "é"])
async def test_nobody_makes_a_page_that_posts_what_they_like(client: Client, sealed: str) -> None:
    page = await client.get("/v1/authorize/form_post", params={"answer": sealed})
    assert (page.status_code, "<form" in page.text) == (404, False)


async def test_the_redirect_uri_keeps_its_own_query(house: House) -> None:
    to = "https://shop.example.com/callback?tenant=1&x=%22"
    await house.change(redirect_uris=[to])
    silent = {"redirect_uri": to, "prompt": "none"}
    assert posted(await house.browser.open(**BY_FORM, **silent), to)["error"] == "login_required"
    assert sent(await house.browser.open(**silent), to)["tenant"] == "1"
