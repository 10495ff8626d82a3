"""The phone asks the user what a client may do, lists the clients, and ends their access."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.problems import problem_of
from tests.sites.browsers import Browser, House, sent
from tests.sites.links import IN_WECHAT, SAFARI, approved, browser_of
from tests.sites.protected import FILES, MCP, ORDERS, RESOURCES
from tests.sweeps import swept
from tests.world import EDGE, Phone, Stage, bearer, body_of, make_admin
from wxauth_desk.wechat import APPS, MOBILE_APP

ACCOUNTS = {"account_app_id": "wxaccount", "website_app_id": "wxwebsite"}
pytestmark = [
    pytest.mark.settings(resources=RESOURCES, scan_link="scheme"),
    pytest.mark.shop(device=True, sso=True, link=True, resources=[MCP], **ACCOUNTS),
]


@pytest.mark.requirement("wxauth-phone")
async def test_the_phone_shows_what_is_asked_for(house: House) -> None:
    tab = await house.browser.show(resource=MCP, scope="openid profile orders:read orders:write")
    for language, title in (("zh-CN", "昵称和头像"), ("en", "your name and picture")):
        house.phone.client.headers["accept-language"] = language
        claimed = await tab.claimed_by(house.phone)
        assert claimed["resource"] == {
            "title": "小店助手",
            "host": "mcp.test",
            "scopes": [{"name": "profile", "title": title}, *ORDERS],
        }
        assert (claimed["client"]["host"], claimed["client"]["local"]) == (None, False)
    assert claimed["sso_ttl"] is None
    assert (await (await house.browser.show()).claimed_by(house.phone))["resource"] is None
    for shown in (
        "Allow access for Example Shop?",
        "小店助手",
        "mcp.test",
        "<li>查看你的订单</li>",
        "<li>your name and picture</li>",
    ):
        assert shown in tab.html, shown


async def test_a_device_asks_too_and_a_code_on_loopback_is_local(house: House) -> None:
    started = await house.shop.start(resource=MCP, scope="orders:read")
    shown = body_of(await house.phone.scan(started))
    assert (shown["resource"]["scopes"], shown["client"]["local"]) == (ORDERS[:1], False)
    await house.change(redirect_uris=["http://127.0.0.1/cb"])
    tab = await house.browser.show(resource=MCP, redirect_uri="http://127.0.0.1:5173/cb")
    assert (await tab.claimed_by(house.phone))["client"]["local"] is True
    assert "The program on this computer calls itself “Example Shop”." in tab.html


async def test_no_code_without_the_phone(house: House) -> None:
    tokens = await house.tokens()
    for hint in (None, tokens["id_token"]):
        answer = await house.browser.open(resource=MCP, prompt="none", id_token_hint=hint)
        assert sent(answer)["error"] == "consent_required"
    asked = await house.answer(house.phone, resource=MCP)
    assert "error=consent_required" in asked.json()["redirect_to"]
    # The browser now has a login, but the page for the resource doesn't offer it.
    assert "/continue" in (await house.browser.open()).text
    page = await house.browser.open(resource=MCP)
    assert "/continue" not in page.text
    assert "/v1/scans/" in page.text


def page_at(house: House, user_agent: str) -> Browser:
    return browser_of(house.stage.make_client(house.stage.services), user_agent)


@swept("user_agent", [f"{IN_WECHAT} miniProgram/wx0123", IN_WECHAT])
async def test_where_the_phone_cannot_scan_itself_the_address_is_shown(house: House, user_agent: str) -> None:
    for more in ({}, {"door": "scan"}):
        page = await page_at(house, user_agent).open(resource=MCP, **more)
        assert page.status_code == 200
        assert 'class="typed address">https://auth.test/v1/authorize?client_id=shop&amp;' in page.text
        assert "door=scan" not in page.text
        assert 'class="button copy"' in page.text
        assert "/v1/scans/" not in page.text
        assert "/wechat" not in page.text
    assert await house.stage.number("site_logins") == 0
    script = await house.stage.client.get("/v1/pages/copy.js")
    assert script.headers["content-type"].startswith("text/javascript")


async def test_elsewhere_the_code_is_shown_and_no_way_to_wechats_page(house: House) -> None:
    for user_agent in (EDGE, f"{EDGE} MicroMessenger/7.0 WindowsWechat/WMPF"):
        page = await page_at(house, user_agent).open(resource=MCP)
        assert "/v1/scans/" in page.text
        path = page.text.partition('data-page="')[2].partition("/state")[0].rpartition("/v1")[2]
        assert "/wechat" not in page.text
        assert (await house.stage.client.get(f"/v1{path}/wechat")).status_code == 404


async def test_a_link_of_the_phones_browser_asks_too(house: House) -> None:
    tab = await page_at(house, SAFARI).show(resource=MCP)
    number = await approved(tab, house.phone)
    path = f"/v1/authorize/{tab.request_id}/number"
    answer = await tab.browser.client.post(path, data={"number": number})
    assert body_of(await house.redeem(sent(answer)["code"]))["scope"] == "orders:read orders:write"


USES: dict[str, Any] = {
    "client": {"title": "Example Shop", "host": None},
    "resource": {"resource": MCP, "title": "小店助手"},
    "scopes": ["orders:read", "orders:write"],
}


async def test_who_may_do_what_is_in_each_list_and_is_ended_there(house: House) -> None:
    tokens = await house.tokens(resource=MCP, scope=None)
    desk = await make_admin(house.stage.client, house.stage.rows, house.phone.tokens)
    session, phone = body_of(await house.phone.ask("GET", "/sessions"))["items"]
    read = await desk.read(f"/users/{house.phone.user_id}")
    export = body_of(await house.phone.ask("GET", "/export"))
    for shown in (session, read["sessions"][0], export["sessions"][1]):
        assert {name: shown[name] for name in USES} == USES
    for shown in (phone, read["sessions"][1], export["sessions"][0]):
        assert {name: shown[name] for name in USES} == dict.fromkeys(USES)
    assert (await house.phone.ask("DELETE", f"/sessions/{session['id']}")).status_code == 204
    assert (await house.shop.refresh(tokens)).json()["error"] == "invalid_grant"
    read = await desk.read(f"/users/{house.phone.user_id}")
    assert {name: read["ended_sessions"][0][name] for name in USES} == USES


async def test_the_trail_says_what_was_granted_and_the_browser_has_no_login_by_it(house: House) -> None:
    await house.tokens(resource=MCP, scope="openid orders:read")
    assert await house.stage.number("browser_logins") == 0
    await house.tokens()
    desk = await make_admin(house.stage.client, house.stage.rows, house.phone.tokens)
    ordinary, granted = [event["data"] for event in await desk.events(type="site.authorized")]
    assert granted == {"client_id": "shop", "door": "scan", "resource": MCP, "scope": "openid orders:read"}
    assert ordinary == {"client_id": "shop", "door": "scan"}


async def test_a_resource_that_is_gone_is_not_asked_about(house: House) -> None:
    await house.change(resources=[MCP, FILES])
    tab = await house.browser.show(resource=MCP, scope="orders:read orders:write")
    less = {"resource": MCP, "title": "小店助手", "scopes": {"orders:read": "查看你的订单"}}
    for resources, status in (([less], 200), (RESOURCES[1:], 404)):
        client = await house.stage.make(resources=resources)
        body = {"scene": tab.scene, "entry_scene": 1047}
        answer: httpx.Response = await client.post("/v1/me/scans", json=body, headers=bearer(house.phone.tokens))
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["resource"]["scopes"] == ORDERS[:1]


@pytest.mark.parametrize("scancode_time", ["NaN", "Infinity", "-Infinity"])
async def test_a_scan_at_a_time_that_is_no_number_is_rejected(house: House, scancode_time: str) -> None:
    tab = await house.browser.show()
    body = f'{{"scene": "{tab.scene}", "entry_scene": 1047, "scancode_time": {scancode_time}}}'
    headers = {**bearer(house.phone.tokens), "content-type": "application/json"}
    answer = await house.stage.client.post("/v1/me/scans", content=body, headers=headers)
    problem_of(answer, "invalid_request", 422)


@pytest.mark.usefixtures("simulated")
async def test_a_login_in_a_mobile_app_scans_nothing(stage: Stage) -> None:
    stage = await stage.replica(apps=(*APPS, MOBILE_APP))
    phone = Phone(stage.client, await stage.login("alice", app=MOBILE_APP))
    scan = f"/scans/{uuid4()}"
    for path, body in (("/scans", {"user_code": "BCDF-GHJK"}), (f"{scan}/approve", {"login_code": "alice"})):
        problem_of(await phone.ask("POST", path, json=body), "insufficient_scope", 403)
    problem_of(await phone.ask("POST", f"{scan}/deny"), "insufficient_scope", 403)
