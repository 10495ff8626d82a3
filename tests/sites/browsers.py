"""A user's browser at a site's login page, and what the site does with the responses."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from jose import jwt

from tests.fakes import Clock
from tests.world import (
    CALLBACK,
    CAMERA,
    AddSite,
    Body,
    Client,
    GetPhone,
    Phone,
    Site,
    Stage,
    bearer,
    body_of,
    leave,
    until_locked,
)
from wxauth.clients.clients import ClientChanges
from wxauth.housekeeping.housekeeping import sweep
from wxauth.outbound.urls import NameResolver
from wxauth.sites.authorization_codes import AuthorizationCodes
from wxauth.sites.queries import SiteLogin


def refused(answer: httpx.Response, error: str, status: int = 400) -> httpx.Response:
    """Check that a response is an error in the format of RFC 6749, and return the response."""
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
    assert answer.json().keys() == {"error", "error_description"}
    assert answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    return answer


def wait_in_queues(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let each redemption of a code wait a minute in its queue."""

    @asynccontextmanager
    async def wait(_codes: AuthorizationCodes, _login: SiteLogin) -> AsyncIterator[None]:
        clock.advance(seconds=60)
        yield

    patch.setattr(AuthorizationCodes, "queue", wait)


Ask = Callable[[], Coroutine[Any, Any, httpx.Response]]
BYE = "https://shop.example.com/bye"
"""The URL to which the shop sends the browser after a logout."""
SHOP = {"id": "shop", "title": "Example Shop", "origin": "https://shop.example.com", "host": None, "local": False}
"""The shop as the phone shows it."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
WITHOUT_PKCE: dict[str, Any] = {"code_challenge": None, "code_challenge_method": None}
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
ASKED: dict[str, Any] = {
    "client_id": "shop",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "scope": "openid profile",
    "state": "s-1",
    "nonce": "n-1",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser with its own cookies."""

    client: Client

    async def open(self, method: Any = "GET", *, headers: Any = None, **parameters: Any) -> httpx.Response:
        """Send the shop's request with these parameters changed. None omits a parameter, and a list repeats it."""
        asked = {name: value for name, value in {**ASKED, **parameters}.items() if value is not None}
        query = urlencode(asked, doseq=True)
        if method == "POST":
            return await self.client.post("/v1/authorize", content=query, headers={**FORM, **(headers or {})})
        return await self.client.get(f"/v1/authorize?{query}", headers=headers)

    async def show(self, **parameters: str | None) -> "Tab":
        answer = await self.open(**parameters)
        assert answer.status_code == 200, answer.headers.get("location", answer.text)
        return Tab(self, answer.text)


@dataclass(frozen=True, slots=True)
class Tab:
    """A page that shows a QR code."""

    browser: Browser
    html: str

    def found(self, pattern: str) -> str:
        return found_in(self.html, pattern)

    @property
    def scene(self) -> str:
        return self.found(r"/v1/scans/([\w-]{22})/code")

    @property
    def request_id(self) -> str:
        return self.found(r"/v1/authorize/([\w-]{22})/next")

    async def ask(self, browser: Browser | None = None) -> httpx.Response:
        return await (browser or self.browser).client.get(f"/v1/authorize/{self.request_id}/state")

    async def state(self) -> str:
        return (await self.ask()).json()["state"]

    async def go_on(self, browser: Browser | None = None) -> httpx.Response:
        return await (browser or self.browser).client.get(f"/v1/authorize/{self.request_id}/next")

    async def scanned_by(self, phone: Phone) -> httpx.Response:
        return await phone.claim(scene=self.scene, entry_scene=CAMERA)

    async def claimed_by(self, phone: Phone) -> dict[str, Any]:
        """Scan the QR code, and return what the phone shows."""
        return body_of(await self.scanned_by(phone))

    async def typed_by(self, phone: Phone) -> dict[str, Any]:
        """Type the login code on the phone, approve, and return what the phone has shown."""
        claimed = body_of(await phone.claim(user_code=self.found(r"([B-Z]{4}-[B-Z]{4})")))
        assert (await phone.decide(claimed["id"])).status_code == 204
        return claimed

    async def decided_by(self, phone: Phone, verdict: str = "approve") -> dict[str, Any]:
        """Scan the QR code, decide, and return what the phone has shown."""
        claimed = await self.claimed_by(phone)
        assert (await phone.decide(claimed["id"], verdict)).status_code == 204
        return claimed

    async def approved_by(self, phone: Phone, verdict: str = "approve", *, to: str = CALLBACK) -> dict[str, str]:
        """Scan the QR code, decide, and return the parameters that the site receives."""
        await self.decided_by(phone, verdict)
        return sent(await self.go_on(), to)


def sent(onward: httpx.Response | str, to: str = CALLBACK) -> dict[str, str]:
    """Return the parameters that a site receives.

    They come from a redirect, from its URL, or from the URL that a web-view is told to open.
    """
    if isinstance(onward, str):
        url = onward
    elif onward.is_success:
        url = onward.json()["redirect_to"]
    else:
        assert (onward.status_code, onward.headers["cache-control"]) == (303, "no-store"), onward.text
        url = onward.headers["location"]
    assert url.startswith((f"{to}?", f"{to}&")), url
    assert not urlsplit(url).fragment
    reported = parse_qs(urlsplit(url).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in reported.values())
    return {name: values[0] for name, values in reported.items()}


def found_in(page: httpx.Response | str, pattern: str) -> str:
    """Return the text that the group in this pattern matches on a page."""
    text = page if isinstance(page, str) else page.text
    found = re.search(pattern, text)
    assert found, text
    return found[1]


def opened_by(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return the mini-program page that a web-view's page opens, and the query as the mini-program reads it."""
    assert page.status_code == 200, page.text
    url = json.loads(unescape(found_in(page, r'data-page="([^"]+)"')))["url"]
    assert "+" not in url
    path, _, query = url.partition("?")
    return path, {name: value for name, [value] in parse_qs(query, strict_parsing=True).items()}


def hidden_fields(page: httpx.Response | str) -> dict[str, str]:
    """Return the hidden fields of a page's form."""
    if not isinstance(page, str):
        assert page.status_code == 200, page.headers.get("location", page.text)
        page = page.text
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    return {name: unescape(value) for name, value in found}


async def keys_at(client: Client) -> list[Body]:
    """Return the published keys."""
    return (await client.get("/.well-known/jwks.json")).json()["keys"]


async def id_claims(client: Client, token: str, audience: str = "shop") -> dict[str, Any]:
    """Return the claims of an id_token, after checking its signature with the published key that its `kid` names."""
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [key for key in await keys_at(client) if key["kid"] == kid]
    options = {"verify_exp": False, "verify_at_hash": False, "verify_iat": False}
    demands = {"algorithms": [key["alg"]], "audience": audience, "issuer": "https://auth.test"}
    return jwt.decode(token, key, **demands, options=options)


@dataclass(slots=True, kw_only=True)
class House:
    """A shop, Alice's phone and her browser, and the service that they use."""

    stage: Stage
    shop: Site
    phone: Phone
    browser: Browser
    add_site: AddSite
    get_phone: GetPhone

    def another_browser(self) -> Browser:
        return Browser(self.stage.make_client(self.stage.services))

    async def replicas_browser(self, **settings: Any) -> Browser:
        """Return this browser at another replica, with its cookies and headers."""
        client = await self.stage.make(**settings)
        client.cookies, client.headers = self.browser.client.cookies, self.browser.client.headers
        return Browser(client)

    async def change(self, name: str = "shop", **changes: Any) -> None:
        """Change the settings of a site."""
        services = self.stage.services
        parts = services.database, services[NameResolver], services.settings
        await ClientChanges(*parts).change(name, changes, now=self.stage.clock())

    async def code(self, phone: Phone | None = None, /, **parameters: str | None) -> str:
        """Return the authorization code that the shop receives after a scan."""
        return (await (await self.browser.show(**parameters)).approved_by(phone or self.phone))["code"]

    async def redeem(self, code: str, site: Site | None = None, **form: str) -> httpx.Response:
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **form}
        return await (site or self.shop).post("/v1/token", grant_type="authorization_code", **form)

    async def tokens(self, phone: Phone | None = None, site: Site | None = None, **parameters: str | None) -> Body:
        """Return the tokens that the shop gets after a scan."""
        return body_of(await self.redeem(await self.code(phone, **parameters), site))

    async def claimed(self, **form: str) -> tuple[Body, str]:
        """Start a scan at the shop's own page, claim it with the phone, and return the response and the scan's id."""
        started = await self.shop.start(**form)
        return started, (await self.phone.scan(started)).json()["id"]

    async def approved(self, phone: Phone | None = None, site: Site | None = None, **form: str) -> Body:
        """Start a scan at a site's own page, approve it with the phone, and return the start's response."""
        started = await (site or self.shop).start(**form)
        await (phone or self.phone).approve(started)
        return started

    async def device_tokens(self, phone: Phone | None = None, site: Site | None = None, **form: str) -> Body:
        """Return the tokens that the shop gets with the device grant."""
        return body_of(await (site or self.shop).poll(await self.approved(phone, site, **form)))

    async def claims(self, tokens: Body, audience: str = "shop") -> Body:
        """Return the claims of the id_token."""
        return await id_claims(self.stage.client, tokens["id_token"], audience)

    async def answer(self, phone: Phone | None = None, /, **parameters: Any) -> httpx.Response:
        """Answer the shop's request from the mini-program, with these parameters changed. `...` omits a parameter."""
        phone = phone or self.phone
        body = {"login_code": phone.wx_login(), **ASKED, **parameters}
        body = {name: value for name, value in body.items() if value is not ...}
        return await phone.ask("POST", "/authorizations", json=body)

    async def id_token(self, phone: Phone | None = None, /, **fields: Any) -> httpx.Response:
        """Ask from the mini-program for an id_token of the shop."""
        phone = phone or self.phone
        body = {"client_id": "shop", "login_code": phone.wx_login(), **fields}
        return await phone.ask("POST", "/id-token", json=body)

    async def userinfo(self, tokens: Body, method: str = "GET") -> httpx.Response:
        return await self.stage.client.request(method, "/v1/userinfo", headers=bearer(tokens))

    async def is_in(self, tokens: Body) -> bool:
        """Return whether the shop's session is open."""
        return (await self.userinfo(tokens)).status_code == 200

    async def log_out(self, **parameters: Any) -> httpx.Response:
        """Ask for a logout in the browser. For example, call `await house.log_out(id_token_hint=...)`."""
        return await self.browser.client.get("/v1/end_session", params=parameters)

    async def sign_out_phone(self, phone: Phone | None = None) -> None:
        headers = bearer((phone or self.phone).tokens)
        assert (await self.stage.client.post("/v1/logout", headers=headers)).status_code == 204

    async def erase(self, phone: Phone | None = None, *, status: int = 204) -> None:
        phone = phone or self.phone
        assert (await leave(phone.client, phone.tokens)).status_code == status

    async def ban(self, phone: Phone | None = None) -> None:
        query = "UPDATE users SET status = 'disabled' WHERE id = $1::text::uuid"
        await self.stage.rows.execute(query, (phone or self.phone).user_id)

    async def sweep(self, after: float = 0, **how: Any) -> None:
        """Advance the clock by these seconds, and sweep."""
        self.stage.clock.advance(seconds=after)
        await sweep(self.stage.services, pause=0, **how)

    async def at_once(self, held: str, first: str = "", **acts: Callable[[], Coroutine[Any, Any, Any]]) -> Body:
        """Run these calls in order, but `first` before the others, and return the result of each.

        Each call starts after the previous calls wait for a lock on these rows.
        """
        tasks: dict[str, asyncio.Task[Any]] = {}
        async with self.stage.rows.transaction():
            await self.stage.rows.execute(f"SELECT FROM {held} FOR UPDATE")
            for name in sorted(acts, key=lambda name: name != first):
                tasks[name] = asyncio.create_task(acts[name]())
                await until_locked(self.stage.rows, len(tasks))
        return {name: await task for name, task in tasks.items()}

    def warnings(self) -> list[Body]:
        """Return the warnings in the log."""
        return [line for line in self.stage.log_lines() if line["level"] == "warning"]

    async def metrics(self) -> str:
        return (await self.stage.client.get("/metrics")).text
