"""The login pages tell the user which mini-program to open and how to go back, in both languages."""

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.certificates import Authority
from tests.dev.running import running_dev
from tests.fakes import LOGO, OTHER_APP
from tests.forked import stand_in
from tests.programs import needs, run_node_tests
from tests.sites.browsers import House, Tab, found_in, hidden_fields, sent
from tests.sites.form_post import BY_FORM, posted
from tests.sites.links import SAFARI, browser_of, type_in
from tests.sites.persons import TO_ADMIN
from tests.sites.street import IN_WECHAT
from tests.sweeps import swept
from wxauth.apps.managed_apps import ManagedApps
from wxauth.apps.registry import Apps
from wxauth.core.trail import OPERATOR
from wxauth.settings.apps import App

BACK = {"en": "Back to Example Shop", "zh": "返回 Example Shop"}


pytestmark = pytest.mark.shop(account_app_id="wx1234567890abcdef", link=True)


def link(page: httpx.Response | Tab, text: str) -> str:
    html = page.html if isinstance(page, Tab) else page.text
    return unescape(found_in(html, rf'<a href="([^"]+)"[^>]*>{re.escape(text)}</a>'))


async def test_the_page_names_the_mini_program_to_open(house: House) -> None:
    assert "enter this login code in the mini-program" in (await house.browser.show()).html
    app = App.model_validate({**OTHER_APP, "app_id": "wx00000000000000aa", "title": "小店 <b>&", "logo": LOGO})
    await house.stage.services[ManagedApps].add(app, is_enabled=True, asks_wechat=False, by=OPERATOR)
    await house.stage.services[Apps].refresh()
    await house.change(app_id=app.app_id)
    tab = await house.browser.show()
    image = f'<img src="{LOGO}" width="24" height="24" alt="">'
    chip = f'<span class="app pictured">小店 &lt;b&gt;&amp;{image}</span>'
    assert f"Scan with WeChat to open: {chip}" in tab.html
    assert f"打开小程序： {chip}" in (await house.browser.show(ui_locales="zh")).html
    await house.change(account_app_id=None)
    in_wechat = await house.browser.open(headers={"User-Agent": IN_WECHAT}, ui_locales="en")
    assert f"{chip}\n You are already in WeChat. Open the mini-program" in in_wechat.text


async def test_page_and_phone_name_the_sites_origin_with_the_port_of_a_laptop(house: House) -> None:
    await house.change(redirect_uris=["http://127.0.0.1/callback", "https://shop.example.com/callback"])
    for asked, origin in (
        ("http://127.0.0.1:8004", "http://127.0.0.1:8004"),
        ("https://shop.example.com", "http://127.0.0.1"),
    ):
        tab = await house.browser.show(redirect_uri=f"{asked}/callback")
        assert f'<p class="origin">{origin}</p>' in tab.html
        assert (await tab.claimed_by(house.phone))["client"]["origin"] == origin


@swept("user_agent", [None, SAFARI, IN_WECHAT])
@swept("locale", BACK)
@swept("method", ["GET", "POST"])
async def test_a_person_goes_back_to_the_site(house: House, user_agent: str | None, locale: str, method: str) -> None:
    headers = {} if user_agent is None else {"User-Agent": user_agent}
    page = await house.browser.open(method, headers=headers, ui_locales=locale)
    assert page.status_code == 200
    back = link(page, BACK[locale])
    reported = sent(await house.browser.client.get(back))
    assert (reported["error"], reported["state"]) == ("access_denied", "s-1")
    assert (await house.another_browser().client.get(back)).status_code == 404


async def test_every_other_page_leads_back_too(house: House) -> None:
    client = house.browser.client
    by_form = await client.get(link(await house.browser.open(**BY_FORM), BACK["en"]))
    assert posted(by_form)["error"] == "access_denied"
    safari = browser_of((await house.replicas_browser(scan_link="scheme")).client)
    number = await type_in(await safari.show(), "123456")
    assert sent(await safari.client.get(link(number, BACK["en"])))["error"] == "access_denied"
    del client.headers["User-Agent"]
    await house.change(sso=True)
    await house.add_site("admin", sso=True, redirect_uris=[TO_ADMIN["redirect_uri"]])
    await house.code()
    person = await house.browser.open(**TO_ADMIN)
    assert "/continue" in person.text
    back = await client.get(link(person, BACK["en"]))
    assert sent(back, TO_ADMIN["redirect_uri"])["error"] == "access_denied"


async def test_the_page_has_a_link_to_itself_in_the_other_language(house: House) -> None:
    chinese = await house.browser.client.get(link(await house.browser.show(), "中文"))
    assert chinese.headers["content-language"] == "zh-CN"
    english = await house.browser.client.get(link(chinese, "English"))
    assert english.headers["content-language"] == "en"
    assert (await Tab(house.browser, english.text).approved_by(house.phone)).keys() == {"code", "state", "iss"}


async def test_the_question_whether_to_log_out_is_asked_in_the_other_language_too(house: House) -> None:
    bye, client = "https://shop.example.com/bye?x=1&y=2", house.browser.client
    await house.change(sso=True, logout_uris=[bye])
    await house.code()
    asked = {"client_id": "shop", "post_logout_redirect_uri": bye, "state": "s-9"}
    url = f"/v1/end_session?{urlencode(asked)}"
    chinese = await client.get(str(httpx.URL(url).join(link(await client.get(url), "中文"))))
    assert chinese.headers["content-language"] == "zh-CN"
    stayed = await client.post("/v1/end_session", data={**hidden_fields(chinese), "stay": "yes"})
    assert ("未退出登录" in stayed.text, link(stayed, BACK["zh"])) == (True, f"{bye}&state=s-9")
    answer = await client.post("/v1/end_session", data=hidden_fields(chinese))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{bye}&state=s-9")


async def test_chinese_titles_and_names_have_no_gaps_around_them(house: House) -> None:
    await house.change(title="小店", sso=True)
    tab = await house.browser.show(ui_locales="zh")
    assert "<h1>登录小店</h1>" in tab.html
    assert link(tab, "返回小店")
    await tab.approved_by(house.phone)
    for name, button in {
        "李梅": "以李梅的身份继续",
        "李梅（店长）": "以李梅（店长）的身份继续",
        "Ann": "以 Ann 的身份继续",
    }.items():
        assert (await house.phone.ask("PATCH", json={"nickname": name})).status_code == 200
        assert f"{button}</button>" in (await house.browser.open(ui_locales="zh")).text


OF_DEVELOPERS = re.compile(r"wxauth|redirect|client_id|parameter|id_token|metadata|参数|客户端|回调|元数据")
WRONG: dict[str, dict[str, Any]] = {
    "an unknown site": {"client_id": "nobody"},
    "a wrong address": {"redirect_uri": "https://shop.example.com/wrong"},
    "a malformed request": {"state": "\x00"},
    "a document that is not allowed": {"client_id": "https://agent.example.com/client.json"},
}


async def wrong_pages(house: House, language: str) -> list[httpx.Response]:
    headers = {"Accept-Language": language}
    pages = [
        await house.browser.open(method, headers=headers, **wrong)
        for wrong in WRONG.values()
        for method in ("GET", "POST")
    ]
    hint = (await house.tokens(prompt="login"))["id_token"]
    ends: list[dict[str, Any]] = [
        {"id_token_hint": "a"},
        {"client_id": ["a", "b"]},
        {"state": "\x00"},
        {"id_token_hint": hint, "client_id": "nobody"},
        {"id_token_hint": hint, "post_logout_redirect_uri": "https://shop.example.com/unregistered"},
    ]
    return pages + [await house.browser.client.get("/v1/end_session", params=end, headers=headers) for end in ends]


@swept("language", ["en", "zh-CN"])
async def test_a_sites_mistake_is_explained_to_its_customer_and_apart_to_its_developer(
    house: House, language: str
) -> None:
    for page in await wrong_pages(house, language):
        for_customers, developers, details = page.text.partition("<details>")
        shown = re.sub(r"<[^>]*>", " ", for_customers.partition("<h1>")[2])
        shown = shown.replace("The site's return address isn't registered", "")
        assert not OF_DEVELOPERS.search(shown), shown
        assert page.headers["x-request-id"] in shown
        assert {"en": "the site", "zh-CN": "网站"}[language] in shown
        assert (developers, '<p class="quiet">' in details) == ("<details>", True)


# This test opens every state of the pages in a real browser, including a mini-program's web-view and WeChat.


@pytest.mark.own_database
@pytest.mark.no_signing_key
@pytest.mark.process
@pytest.mark.browser
@pytest.mark.node
def test_the_pages_of_a_login_in_a_browser(tmp_path: Path, database_url: str) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    with running_dev(tmp_path, WXAUTH_DATABASE_URL=database_url, WXAUTH_SCAN_RATE_LIMIT="200/minute") as dev:
        env = {
            "CHROMIUM": chromium,
            "SERVICE_URL": dev.url,
            "SITE_URL": dev.site_url,
            "WECHAT_URL": dev.wechat_url,
            "WXAUTH": str(stand_in(tmp_path)),
            "WXAUTH_DATABASE_URL": database_url,
            "WXAUTH_ISSUER": dev.url,
            "CERTIFICATE": str(tmp_path / "server.pem"),
        }
        Authority(tmp_path).server("shop.test", "www.shop.test")
        for file in ("oauth/web_view.test.js", "oauth/chains.test.js", "pages/pages.test.js"):
            run_node_tests(file, env)
