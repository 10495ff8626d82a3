"""The URLs on wxauth's pages contain no id_token and nothing else that a URL should not contain."""

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.sites.browsers import House, Tab, opened_by, sent
from tests.sites.form_post import BY_FORM, posted
from tests.sites.links import SAFARI
from tests.sites.persons import PersonPage
from tests.sites.protected import MCP, RESOURCES
from tests.sites.street import IN_WECHAT
from tests.sweeps import swept

pytestmark = [
    pytest.mark.settings(resources=RESOURCES),
    pytest.mark.shop(account_app_id="wx1234567890abcdef", sso=True, resources=[MCP]),
]
IN_WEB_VIEW = f"{IN_WECHAT} miniProgram/wx1234567890abcdef"
OUT_OF_PLACE = {"login_hint": "alice@example.com", "code": "c0de", "access_token": "t0ken", "junk": "x" * 4000}
PAGES: dict[str, dict[str, Any]] = {
    "code": {"prompt": "login"},
    "code on a phone": {"prompt": "login", "headers": {"User-Agent": SAFARI}},
    "person": {},
    "account": {"prompt": "login", "headers": {"User-Agent": IN_WECHAT}},
    "web view": {"headers": {"User-Agent": IN_WEB_VIEW}},
    "elsewhere": {"headers": {"User-Agent": IN_WEB_VIEW}, "resource": MCP},
}


def in_urls(page: httpx.Response) -> str:
    """Return what stands on a page outside of its form fields."""
    return unescape(re.sub(r'<input type="hidden"[^>]*>', "", page.text))


def chinese_link(page: httpx.Response) -> str:
    found = re.search(r'<a href="([^"]*)" lang="zh-CN">', page.text)
    assert found, page.text
    return unescape(found[1])


@swept("method", ["GET", "POST"])
@swept("name", PAGES)
async def test_no_url_on_a_page_has_the_hint(house: House, name: str, method: str) -> None:
    hint = (await house.tokens(prompt="login"))["id_token"]
    mistyped = {} if "web view" in name else OUT_OF_PLACE
    page = await house.browser.open(method, **PAGES[name], id_token_hint=hint, ui_locales="en", **mistyped)
    assert page.status_code == 200
    for secret in ("id_token_hint", hint, *mistyped.values()):
        assert secret not in in_urls(page)
    assert hint not in str(house.stage.log_lines())
    if name == "web view":  # it has no links to other languages
        return
    query = parse_qs(urlsplit(chinese_link(page)).query)
    assert (query["state"], query["ui_locales"]) == (["s-1"], ["zh-CN"])
    again = await house.browser.client.get(chinese_link(page), headers=PAGES[name].get("headers"))
    assert (again.status_code, again.headers["content-language"]) == (200, "zh-CN")
    assert house.phone.user_id not in chinese_link(page)


async def by_scan(house: House, url: str, phone: Any) -> dict[str, str]:
    return await Tab(house.browser, (await house.browser.client.get(url)).text).approved_by(phone)


async def by_login(house: House, url: str, phone: Any) -> dict[str, str]:
    assert phone is house.phone
    page = await house.browser.client.get(url)
    return sent(await PersonPage(house.browser, page.text).press())


@swept("prompt", ["login", "consent"])
async def test_a_page_in_another_language_logs_in_the_same_user_only(house: House, prompt: str) -> None:
    hint = (await house.tokens(prompt="login"))["id_token"]
    bob = await house.get_phone("bob")
    url = chinese_link(await house.browser.open(id_token_hint=hint, prompt=prompt, ui_locales="en"))
    url = chinese_link(await house.browser.client.get(url.replace("zh-CN", "en")))  # a link of a linked page
    if prompt == "login":
        assert (await by_scan(house, url, bob))["error"] == "login_required"
        assert "code" in await by_scan(house, url, house.phone)
    else:
        assert "code" in await by_login(house, url, house.phone)
        await house.tokens(bob, prompt="login")  # now the browser's login is another user's
        page = await house.browser.client.get(url)
        assert "/continue" not in page.text
        assert (await Tab(house.browser, page.text).approved_by(bob))["error"] == "login_required"


async def test_a_mini_program_gets_the_named_user_without_the_token(house: House) -> None:
    hint = (await house.tokens(prompt="login"))["id_token"]
    bob = await house.get_phone("bob")
    _, query = opened_by(await house.browser.open(headers={"User-Agent": IN_WEB_VIEW}, id_token_hint=hint))
    assert "id_token_hint" not in query
    assert sent(await house.answer(bob, **query))["error"] == "login_required"
    assert "code" in sent(await house.answer(**query))


async def test_a_stale_page_of_a_link_still_names_the_user(house: House) -> None:
    hint = (await house.tokens(prompt="login"))["id_token"]
    url = chinese_link(await house.browser.open(id_token_hint=hint, ui_locales="en"))
    page = PersonPage(house.browser, (await house.browser.client.get(url)).text)
    again = (await page.press("another")).headers["location"]
    assert (await by_scan(house, again, await house.get_phone("bob")))["error"] == "login_required"


@swept("wrong", ["", "x", "é", "e30", "A" * 68, "another site's"])
async def test_a_user_in_a_link_that_wxauth_has_not_made_is_refused(house: House, wrong: str) -> None:
    if wrong == "another site's":
        other = {"redirect_uri": "https://other.example.com/callback"}
        await house.add_site("other", redirect_uris=[*other.values()])
        hint = (await house.tokens(prompt="login"))["id_token"]
        url = chinese_link(await house.browser.open(id_token_hint=hint, ui_locales="en"))
        [wrong] = parse_qs(urlsplit(url).query)["hinted_user"]
        page = await house.browser.open(client_id="other", **other, hinted_user=wrong)
        assert sent(page, other["redirect_uri"])["error"] == "login_required"
        return
    page = await house.browser.open(hinted_user=wrong, **BY_FORM)
    if wrong:  # a parameter without a value counts as absent
        assert posted(page)["error"] == "login_required"
    else:
        assert page.status_code == 200


@swept(
    "path",
    [
        "/v1/authorize?client_id=nobody",
        "/v1/authorize?client_id=a&client_id=b",
        "/v1/authorize?client_id=%00",
        "/v1/end_session?client_id=a&client_id=b",
        "/v1/authorize/form_post?answer=x",
        f"/v1/authorize/{'A' * 22}/next?a=b",
        "/d?a=b",
    ],
)
async def test_a_message_repeats_only_what_it_needs(house: House, path: str) -> None:
    separator = "&" if "?" in path else "?"
    first = await house.browser.client.get(f"{path}{separator}ui_locales=en&code=c0de&access_token=t0ken")
    link = chinese_link(first)
    for name in ("code=", "access_token", "answer"):
        assert name not in link
    chinese = await house.browser.client.get(str(first.url.join(link)))
    assert (chinese.status_code, chinese.headers["content-language"]) == (first.status_code, "zh-CN")
    assert chinese.text.count("<p") == first.text.count("<p")
