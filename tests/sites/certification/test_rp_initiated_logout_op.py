"""Tests of the plan "RP-Initiated Logout OP" of the OpenID Foundation's conformance suite.

Each test has the name of its module.
"""

from typing import Any

import pytest
from jose import jwt

from tests.sites.browsers import BYE, Browser, House, hidden_fields, sent
from tests.sweeps import Sweep
from tests.world import Body

END = "/v1/end_session"


pytestmark = pytest.mark.shop(sso=True, pkce="optional", logout_uris=[BYE, f"{BYE}?from=wxauth"])


@pytest.fixture
async def tokens(house: House) -> Body:
    return await house.tokens()


async def is_logged_in(browser: Browser) -> bool:
    reported = sent(await browser.open(prompt="none"))
    assert reported.get("error") in (None, "login_required")
    return "code" in reported


async def test_oidcc_rp_initiated_logout_goes_only_where_it_may(house: House) -> None:
    registered = f"{BYE}?from=wxauth"
    with Sweep() as sweep:
        for name, asked, location in (
            ("no-state", {"post_logout_redirect_uri": BYE}, BYE),
            ("no-post-logout-redirect-uri", {"state": "s-2"}, None),
            ("query-added", {"post_logout_redirect_uri": f"{BYE}?added=1", "state": "s-2"}, None),
            ("a query", {"post_logout_redirect_uri": registered, "state": "s-2"}, f"{registered}&state=s-2"),
            ("bad-post-logout-redirect-uri", {"post_logout_redirect_uri": "https://evil.example/"}, None),
        ):
            with sweep.case(name):
                hint = (await house.tokens(prompt="login"))["id_token"]
                answer = await house.log_out(id_token_hint=hint, **asked)
                assert (answer.status_code, answer.headers.get("location")) == (303 if location else 200, location)
                if location is None and "post_logout_redirect_uri" in asked:  # the suite's reviewers look for this text
                    title = "<h1>The site&#39;s return address isn&#39;t registered</h1>"
                    assert answer.text.index(title) < answer.text.index("You are logged out")
                    assert "evil.example" not in answer.text
                assert not await is_logged_in(house.browser)


@pytest.mark.slow
async def test_oidcc_rp_initiated_logout_modified_id_token_hint(house: House, tokens: Body) -> None:
    hint, secret = tokens["id_token"], house.shop.secret or ""
    wrong: dict[str, Body] = {
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
                    answer = await house.browser.client.request(method, END, **options)
                    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert await is_logged_in(house.browser)
    assert (await house.shop.refresh(tokens)).status_code == 200


async def test_oidcc_rp_initiated_logout_no_id_token_hint(house: House, tokens: Body) -> None:
    client = house.browser.client
    page = await house.log_out(client_id="shop", post_logout_redirect_uri=BYE, state="s<2", ui_locales="en")
    assert "Log out?" in page.text
    form = hidden_fields(page)
    (secret,) = form.keys() - {"client_id", "post_logout_redirect_uri", "state", "ui_locales"}
    forged = await client.post(END, data={**form, secret: "x" * len(form[secret])})
    assert hidden_fields(forged) == form
    assert await is_logged_in(house.browser)
    assert sent(await client.post(END, data=form), BYE) == {"state": "s<2"}
    assert not await is_logged_in(house.browser)
    for again in (await client.post(END, data=form), await house.log_out()):
        assert (again.status_code, "You are not logged in" in again.text) == (200, True)


@pytest.mark.parametrize(
    "asked", [{}, {"post_logout_redirect_uri": BYE}, {"state": "s-2"}], ids=["no-params", "no-hint", "only-state"]
)
async def test_oidcc_rp_initiated_logout_no_params(house: House, tokens: Body, asked: dict[str, str]) -> None:
    nobody = await house.another_browser().client.get(END, params=asked)
    assert (nobody.status_code, hidden_fields(nobody)) == (200, {})
    answer = await house.browser.client.post(END, data=hidden_fields(await house.log_out(**asked)))
    assert (answer.status_code, "location" in answer.headers) == (200, False)
    assert not await is_logged_in(house.browser)
