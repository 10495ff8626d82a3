"""A service whose WeChat is the simulator, browsers that visit WeChat's own page, and every way to log in to a site."""

from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.sites.browsers import ASKED, House, found_in, sent
from tests.world import EDGE, Body, Client, Phone, body_of
from wxauth.core.services import Services
from wxauth_desk.wechat import ACCOUNT, APPS, WEBSITE, create_simulator

IN_WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.60(0x18003c2f) NetType/WIFI Language/zh_CN"
)
MINI, PAGE, COMPUTER = APPS[0]["app_id"], ACCOUNT["app_id"], WEBSITE["app_id"]
APP_OF = {"account": PAGE, "website": COMPUTER}
USER_AGENTS = {"account": IN_WECHAT, "website": EDGE}


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser with its cookies, and its user, who visits WeChat's page."""

    client: Client
    wechat: Client
    user_agent: str
    person: str = "alice"

    async def get(self, url: str, client: Client | None = None) -> httpx.Response:
        return await (client or self.client).get(url, headers={"User-Agent": self.user_agent})

    async def show(self, **parameters: Any) -> httpx.Response:
        return await self.get(f"/v1/authorize?{urlencode({**ASKED, **parameters})}")

    async def open(self, **parameters: Any) -> str:
        """Open the page, and return the button's URL."""
        page = await self.show(**parameters)
        assert page.status_code == 200, page.headers.get("location")
        return found_in(page, r'href="(/v1/authorize/[\w-]{22}/wechat)"')

    async def press(self, button: str | None = None, **parameters: Any) -> str:
        """Press the button, and return the URL of WeChat's page."""
        answer = await self.get(button or await self.open(**parameters))
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def allow(self, url: str) -> str:
        """Approve on WeChat's page, and return the URL of the callback."""
        headers = {"User-Agent": self.user_agent, "X-Desk-Person": self.person}
        page = await self.wechat.get(url, headers=headers)
        if page.status_code == 302:
            return page.headers["location"]
        assert page.status_code == 200, page.text
        allow = unescape(found_in(page, r'<a href="([^"]+answer=allow)"'))
        answer = await self.wechat.get(allow, headers=headers)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def callback(self, button: str | None = None, **parameters: Any) -> str:
        """Press the button, approve on WeChat's page, and return the URL of the callback."""
        return await self.allow(await self.press(button, **parameters))

    async def come_back(self, url: str, client: Client | None = None) -> str:
        """Open the callback, and return the URL to which it redirects."""
        answer = await self.get(url, client)
        assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store"), answer.text
        location: str = answer.headers["location"]
        for text in parse_qsl(urlsplit(url).query):
            assert text[1] not in location
        return location

    async def log_in(self, **parameters: Any) -> str:
        return await self.come_back(await self.callback(**parameters))


@dataclass(slots=True, kw_only=True)
class Street(House):
    """A house whose WeChat is the simulator."""

    def visitor(self, door: str = "account", person: str = "alice", *, at: Services | None = None) -> Visitor:
        """Return a user's browser in WeChat, on a computer, or with this User-Agent."""
        wechat = httpx.ASGITransport(create_simulator(self.stage.simulator))
        client = httpx.AsyncClient(transport=wechat, base_url="https://open.weixin.qq.com")
        return Visitor(self.stage.make_client(at or self.stage.services), client, USER_AGENTS.get(door, door), person)

    async def tokens_for(self, onward: httpx.Response | str) -> Body:
        return body_of(await self.redeem(sent(onward)["code"]))

    async def people(self) -> tuple[int, int]:
        return await self.stage.number("users"), await self.stage.number("identities")

    def asked(self) -> int:
        """Return how often wxauth has asked WeChat which user came from WeChat's page."""
        return len(self.stage.simulator.calls_of("access_token"))


# The doors. Each function returns the response that sends the browser back to the shop.


async def by_a_scan(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    tab = await street.another_browser().show(**asked)
    await tab.decided_by(phone)
    return await tab.go_on()


async def by_a_typed_code(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    tab = await street.another_browser().show(**asked)
    await tab.typed_by(phone)
    return await tab.go_on()


async def by_the_mini_program(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    return await street.answer(phone, **asked)


async def by_the_account(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    visitor = street.visitor("account", phone.wx_login())
    return await visitor.get(await visitor.callback(**asked))


async def by_the_website_app(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    visitor = street.visitor("website", phone.wx_login())
    return await visitor.get(await visitor.callback(**asked))


async def by_the_browsers_login(street: Street, phone: Phone, **asked: Any) -> httpx.Response:
    """Log in with the browser's login, at a shop with `sso`."""
    browser = street.another_browser()
    await (await browser.show()).approved_by(phone)
    return await browser.open(prompt="none", **asked)
