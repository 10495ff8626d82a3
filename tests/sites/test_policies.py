"""The Content-Security-Policy of each page. This file must list each route that returns pages, and each template."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.sites.browsers import BYE, House, Tab, hidden_fields
from tests.sites.form_post import BY_FORM
from tests.sites.links import SAFARI, approved, browser_of, type_in
from tests.sites.protected import MCP, RESOURCES
from tests.sites.street import IN_WECHAT
from wxauth.service.app import create_api
from wxauth.sites.pages.rendering import PAGES_FOLDER

pytestmark = [
    pytest.mark.settings(resources=RESOURCES),
    pytest.mark.shop(account_app_id="wx1234567890abcdef", link=True, sso=True, logout_uris=[BYE], resources=[MCP]),
]
LOOPBACK = "http://localhost:8000"
IN_WEB_VIEW = f"{IN_WECHAT} miniProgram/wx1234567890abcdef"
UNKNOWN = "A" * 22
OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'"
)
NO_FORM = f"{OWN}; form-action 'none'; frame-ancestors 'none'"
OWN_FORM = f"{OWN}; form-action 'self'; frame-ancestors 'none'"
ENDS_AT_A_SITE = f"{OWN}; frame-ancestors 'none'"
IN_A_FRAME_OF_THE_SITE = f"{OWN}; frame-ancestors https://shop.example.com"
POLICIES = {
    "code": NO_FORM,
    "code, with a link": ENDS_AT_A_SITE,
    "number": ENDS_AT_A_SITE,
    "person": ENDS_AT_A_SITE,
    "form-post": IN_A_FRAME_OF_THE_SITE,
    "account": NO_FORM,
    "web-view": NO_FORM,
    "elsewhere": NO_FORM,
    "log-out": OWN_FORM,
    "log-out, to an unregistered address": OWN_FORM,
    "log-out, to the site": ENDS_AT_A_SITE,
    "device": OWN_FORM,
    "device-login": OWN_FORM,
    "device-code": NO_FORM,
    "message": NO_FORM,
    "front": NO_FORM,
}
"""The policies, by the name of the template, with the reason for a difference."""
FRAMES = {"page", "site", "macros"}
"""The templates that are parts of others."""
MESSAGES = {
    "/v1/authorize": "/v1/authorize?client_id=nobody",
    "/v1/authorize/form_post": "/v1/authorize/form_post?answer=x",
    "/v1/authorize/wechat": "/v1/authorize/wechat",
    "/v1/authorize/wechat/away": "/v1/authorize/wechat/away",
    **{
        f"/v1/authorize/{{request_id}}/{action}": f"/v1/authorize/{UNKNOWN}/{action}"
        for action in ("next", "cancel", "continue", "another", "wechat", "link", "number")
    },
    "/v1/authorize/{request_id}/wechat/{name}": f"/v1/authorize/{UNKNOWN}/wechat/over",
    "/v1/end_session": "/v1/end_session?id_token_hint=a",
    "/d": "/d",
    "/d/{scene}": "/d/x",
}
"""The routes of the login pages, each with a URL that returns a message."""
WITHOUT_PAGES = {
    "/v1/authorize/{request_id}/state",
    "/v1/pages/{name}",
    "/v1/scans/{scene}/code",
    "/v1/scans/{scene}/state",
}


def policy_of(page: httpx.Response) -> str:
    assert page.headers["content-type"] == "text/html; charset=utf-8", page.text
    return page.headers["content-security-policy"]


async def pages_of(house: House) -> AsyncIterator[tuple[str, httpx.Response]]:
    browser, end = house.browser, {"client_id": "shop"}
    yield "code", await browser.open()
    yield "form-post", await browser.open(**BY_FORM, prompt="none")
    yield "account", await browser.open(headers={"User-Agent": IN_WECHAT})
    yield "web-view", await browser.open(headers={"User-Agent": IN_WEB_VIEW})
    yield "elsewhere", await browser.open(headers={"User-Agent": IN_WEB_VIEW}, resource=MCP)
    safari = browser_of((await house.replicas_browser(scan_link="scheme")).client, SAFARI)
    linked = await safari.open()
    yield "code, with a link", linked
    tab = Tab(safari, linked.text)
    await approved(tab, house.phone)
    yield "number", await type_in(tab, "1")
    del safari.client.headers["User-Agent"]
    await house.code()
    yield "person", await browser.open()
    yield "log-out", await house.log_out(**end)
    yield "log-out, to an unregistered address", await house.log_out(**end, post_logout_redirect_uri=f"{BYE}/")
    yield "log-out, to the site", await house.log_out(**end, post_logout_redirect_uri=BYE)
    yield "message", await browser.client.get("/d")
    site = await house.add_site("kube", title="Cluster", device=True, user_code=True, redirect_uris=[LOOPBACK])
    yield "device", await browser.client.get("/d")
    device_url = (await site.start())["verification_uri_complete"]
    device_login = await browser.client.get(device_url)
    yield "device-login", device_login
    yield "device-code", await browser.client.post(device_url, data=hidden_fields(device_login))
    yield "front", await browser.client.get("/", headers={"Accept": "text/html"})


@pytest.mark.slow
async def test_only_a_page_whose_form_ends_at_a_site_lets_its_form_lead_anywhere(house: House) -> None:
    found = {name: page async for name, page in pages_of(house)}
    assert {name: policy_of(page) for name, page in found.items()} == POLICIES
    templates = {path.stem for path in PAGES_FOLDER.glob("*.html")} - FRAMES
    assert {re.split(",", name)[0] for name in POLICIES} == templates
    # A page without `form-action` has only the forms that are meant for the site, and no script in its text.
    for name, page in found.items():
        assert "<script>" not in page.text, name
        if "form-action" not in POLICIES[name]:
            assert re.search('<form [^>]*method="post"', page.text), name


async def test_each_message_keeps_its_form_at_home(house: House) -> None:
    own = "wxauth.sites.pages."
    routes = [
        route
        for route in create_api().routes
        if isinstance(route, APIRoute) and route.endpoint.__module__.startswith(own)
    ]
    assert {route.path for route in routes} == MESSAGES.keys() | WITHOUT_PAGES
    for route in routes:
        if route.path in MESSAGES:
            for method in route.methods or ():
                page = await house.browser.client.request(method, MESSAGES[route.path])
                assert policy_of(page) == NO_FORM, (method, route.path)
