"""The ways in which a relying party sends a user to wxauth to log in, and gets the user back."""

import json
import re
import warnings
from collections.abc import Awaitable, Callable
from html import unescape
from typing import Any
from urllib.parse import parse_qsl

import httpx

from tests.world import bearer

with warnings.catch_warnings(record=True):  # Authlib warns about a change in its next version
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from authlib.oauth2.auth import OAuth2Token

CALLBACK = "http://127.0.0.1/callback"


VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


async def in_web_view(browser: httpx.AsyncClient, url: str, phone: dict[str, str]) -> str:
    """Log in through the mini-program that contains the web-view, and return the URL that the web-view opens next."""
    page = await browser.get(url, headers={"User-Agent": "Mozilla/5.0 (iPhone) MicroMessenger/8.0.60 miniProgram/wx0"})
    asked = json.loads(unescape(re.findall(r'data-page="([^"]+)"', page.text)[0]))["url"]
    body = {**dict(parse_qsl(asked.partition("?")[2])), "login_code": "alice"}
    return (await browser.post("/v1/me/authorizations", json=body, headers=phone)).json()["redirect_to"]


async def by_wechats_page(browser: httpx.AsyncClient, url: str, user_agent: str) -> str:
    """Press the buttons on wxauth's page and on WeChat's page, and return the URL that the browser opens next."""
    headers = {"User-Agent": user_agent}
    page = await browser.get(url, headers=headers)
    pressed = await browser.get(re.findall(r'href="(/v1/authorize/[\w-]{22}/wechat)"', page.text)[0], headers=headers)
    question = await browser.get(pressed.headers["location"], headers={**headers, "X-Desk-Person": "alice"})
    answer = unescape(re.findall(r'<a href="([^"]+answer=allow)"', question.text)[0])
    allowed = await browser.get(question.url.join(answer), headers=headers)
    # WeChat's browser also opens this URL twice
    back = [await browser.get(allowed.headers["location"], headers=headers) for _ in range(2)]
    assert back[0].headers["location"] == back[1].headers["location"]
    return back[0].headers["location"]


async def in_wechat(browser: httpx.AsyncClient, url: str, phone: dict[str, str]) -> str:
    """Log in with the service account, in WeChat's browser."""
    return await by_wechats_page(browser, url, "Mozilla/5.0 (iPhone) MicroMessenger/8.0.60 Language/zh_CN")


async def on_a_computer(browser: httpx.AsyncClient, url: str, phone: dict[str, str]) -> str:
    """Log in with the website app, on a computer."""
    return await by_wechats_page(browser, url, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/141.0.0.0")


Way = Callable[[httpx.AsyncClient, str, dict[str, str]], Awaitable[str]]


async def come_and_go_with_authlib(browser: httpx.AsyncClient, name: str, secret: str | None, way: Way) -> None:
    """Let Alice log in to the site this way, check that the site knows her, and revoke the site's tokens."""
    metadata: dict[str, Any] = (await browser.get("/.well-known/openid-configuration")).json()
    login = (await browser.post("/v1/login", json={"code": "alice"})).json()
    phone = bearer(login)
    site = AsyncOAuth2Client(
        client_id=name,
        client_secret=secret,
        token_endpoint_auth_method="none" if secret is None else "client_secret_basic",
        scope="openid profile",
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        trust_env=False,
        event_hooks=browser.event_hooks,
    )
    url, state = site.create_authorization_url(metadata["authorization_endpoint"], code_verifier=VERIFIER)
    token: OAuth2Token = await site.fetch_token(
        metadata["token_endpoint"],
        authorization_response=await way(browser, url, phone),
        state=state,
        code_verifier=VERIFIER,
    )
    assert (await site.get(metadata["userinfo_endpoint"])).json()["sub"] == login["user"]["id"]
    again = await site.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
    assert again["refresh_token"] != token["refresh_token"]
    await site.revoke_token(metadata["revocation_endpoint"], token=again["refresh_token"])
    assert (await site.get(metadata["userinfo_endpoint"])).status_code == 401
    await site.aclose()
