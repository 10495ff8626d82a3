"""A phone's browser outside WeChat, the link to the mini-program, and the number that the mini-program shows."""

import re
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.fakes import APP
from tests.sites.browsers import Browser, Tab
from tests.world import Body, Client, Phone, body_of

SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1"
IN_WECHAT = f"{SAFARI} MicroMessenger/8.0.60"
BY_SCHEME = 1286


def browser_of(client: Client, user_agent: str = SAFARI) -> Browser:
    client.headers["user-agent"] = user_agent
    return Browser(client)


async def press(tab: Tab, browser: Browser | None = None) -> httpx.Response:
    return await (browser or tab.browser).client.post(f"/v1/authorize/{tab.request_id}/link")


async def pressed(tab: Tab) -> str:
    """Press the button, and return the scene in the link."""
    answer = await press(tab)
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "weixin://dl/business/"
    query = parse_qs(url.query, strict_parsing=True)
    (inner,) = query.pop("query")
    assert query == {"appid": [APP["app_id"]], "path": ["pages/scan/scan"]}
    scene = re.fullmatch(r"s=([\w-]{22})", inner)
    assert scene
    return scene[1]


async def claimed(tab: Tab, phone: Phone) -> Body:
    """Press the button, and return what the phone shows."""
    return body_of(await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME))


async def approved(tab: Tab, phone: Phone) -> str:
    """Press the button, approve, and return the number that the phone shows."""
    return body_of(await phone.decide((await claimed(tab, phone))["id"]))["number"]


async def type_in(tab: Tab, number: str, browser: Browser | None = None) -> httpx.Response:
    client = (browser or tab.browser).client
    return await client.post(f"/v1/authorize/{tab.request_id}/number", data={"number": number})
