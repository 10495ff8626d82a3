"""What the login pages tell a person: which mini-program to open, the way back, and the same in the other language."""

import re
from html import unescape
from urllib.parse import urlencode

import httpx
import pytest

from tests.fakes import OTHER_APP
from tests.websites import test_links
from tests.websites.browsers import Browser, Tab, hidden_fields, sent
from tests.websites.test_browser_logins import TO_ADMIN, person_page
from tests.websites.test_form_post import BY_FORM, posted
from tests.websites.test_wechats_pages import SAFARI
from tests.websites.towns import IN_WECHAT
from tests.world import AddSite, Client, MakeClient, Phone, Site
from wxauth.server.apps.registry import Apps, ManagedApps
from wxauth.server.core.services import Services
from wxauth.server.core.setting_types import picture_url
from wxauth.server.core.settings import App
from wxauth.server.core.trail import OPERATOR

LOGO = picture_url(b"\x89PNG\r\n\x1a\n of the shop")


def link(page: httpx.Response | Tab, text: str) -> str:
    html = page.html if isinstance(page, Tab) else page.text
    found = re.search(rf'<a href="([^"]+)"[^>]*>{re.escape(text)}</a>', html)
    assert found, html
    return unescape(found[1])


async def test_the_page_names_the_mini_program_to_open(services: Services, add_site: AddSite, browser: Browser) -> None:
    app = App.model_validate({**OTHER_APP, "app_id": "wx00000000000000aa", "title": "小店 <b>&", "logo": LOGO})
    await services[ManagedApps].add(app, is_enabled=True, is_checked=False, by=OPERATOR)
    await services[Apps].refresh()
    await add_site(app_id=app.app_id)
    tab = await browser.show()
    assert "“小店 &lt;b&gt;&amp;”" in tab.html
    assert f'<img class="logo" src="{LOGO}"' in tab.html
    tab = await browser.show(ui_locales="zh")
    assert "将打开小程序“小店 &lt;b&gt;&amp;”" in tab.html


async def test_the_page_names_the_sites_origin_with_the_port_of_a_laptop(add_site: AddSite, browser: Browser) -> None:
    await add_site(redirect_uris=["http://127.0.0.1/callback", "https://shop.example.com/callback"])
    for asked, origin in (
        ("http://127.0.0.1:8004", "http://127.0.0.1:8004"),
        ("https://shop.example.com", "http://127.0.0.1"),
    ):
        page = await browser.open(redirect_uri=f"{asked}/callback")
        assert f'<p class="origin">{origin}</p>' in page.text


async def test_without_a_title_the_page_says_to_open_the_mini_program(shop: Site, browser: Browser) -> None:
    assert "open the mini-program and type this code" in (await browser.show()).html


@pytest.mark.parametrize("user_agent", [None, SAFARI, IN_WECHAT])
async def test_a_person_goes_back_to_the_site_without_a_login(
    add_site: AddSite, browser: Browser, make_client: MakeClient, services: Services, user_agent: str | None
) -> None:
    await add_site(account_app_id="wx1234567890abcdef")
    if user_agent is not None:
        browser.client.headers["User-Agent"] = user_agent
    for locale in ("en", "zh"):
        page = await browser.open(ui_locales=locale)
        assert page.status_code == 200
        text = {"zh": "返回 Example Shop", "en": "Back to Example Shop"}[locale]
        back = link(page, text)
        reported = sent(await browser.client.get(back))
        assert (reported["error"], reported["state"]) == ("access_denied", "s-1")
        assert (await make_client(services).get(back)).status_code == 404


async def test_the_way_back_posts_if_the_site_asks_for_a_form(shop: Site, browser: Browser) -> None:
    tab = await browser.show(**BY_FORM)
    assert posted(await browser.client.get(link(tab, "Back to Example Shop")))["error"] == "access_denied"


async def test_a_page_with_a_person_leads_back_too(add_site: AddSite, browser: Browser, phone: Phone) -> None:
    await add_site(sso=True)
    await add_site("admin", sso=True, redirect_uris=[TO_ADMIN["redirect_uri"]])
    await (await browser.show()).approved_by(phone)
    html = (await person_page(browser)).html
    back = link(httpx.Response(200, text=html), "Back to Example Shop")
    assert sent(await browser.client.get(back), TO_ADMIN["redirect_uri"])["error"] == "access_denied"


async def test_the_page_has_a_link_to_itself_in_the_other_language(shop: Site, browser: Browser, phone: Phone) -> None:
    tab = await browser.show()
    chinese = await browser.client.get(link(tab, "中文"))
    assert chinese.headers["content-language"] == "zh-CN"
    english = await browser.client.get(link(chinese, "English"))
    assert english.headers["content-language"] == "en"
    reported = await Tab(browser, english.text).approved_by(phone)
    assert reported.keys() == {"code", "state", "iss"}


async def test_the_page_of_a_number_leads_back(add_site: AddSite, make_client: MakeClient, services: Services) -> None:
    await add_site(link=True)
    safari = test_links.browser_of(make_client(services))
    again = await test_links.type_in(await safari.show(), "123456")
    back = link(again, "Back to Example Shop")
    assert sent(await safari.client.get(back))["error"] == "access_denied"


async def test_the_question_whether_to_log_out_is_asked_in_the_other_language_too(
    add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    bye = "https://shop.example.com/bye?x=1&y=2"
    await add_site(sso=True, logout_uris=[bye])
    await (await browser.show()).approved_by(phone)
    asked = {"client_id": "shop", "post_logout_redirect_uri": bye, "state": "s-9"}
    url = f"/v1/end_session?{urlencode(asked)}"
    chinese = await browser.client.get(str(httpx.URL(url).join(link(await browser.client.get(url), "中文"))))
    assert chinese.headers["content-language"] == "zh-CN"
    answer = await browser.client.post("/v1/end_session", data=hidden_fields(chinese))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{bye}&state=s-9")


@pytest.mark.parametrize("path", ["/d", "/d/no-such-scene"])
async def test_the_instructions_for_a_code_are_there_in_the_other_language(client: Client, path: str) -> None:
    chinese = await client.get(f"{path}{link(await client.get(path), '中文')}")
    assert chinese.headers["content-language"] == "zh-CN"
    assert link(chinese, "English") == "?ui_locales=en"


async def test_chinese_titles_and_names_have_no_gaps_around_them(
    add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    await add_site(title="小店", sso=True)
    tab = await browser.show(ui_locales="zh")
    assert "<h1>登录小店</h1>" in tab.html
    assert link(tab, "返回小店")
    await tab.approved_by(phone)
    for name, button in {
        "李梅": "以李梅的身份继续",
        "李梅（店长）": "以李梅（店长）的身份继续",
        "Ann": "以 Ann 的身份继续",
    }.items():
        assert (await phone.ask("PATCH", json={"nickname": name})).status_code == 200
        assert f"{button}</button>" in (await browser.open(ui_locales="zh")).text
