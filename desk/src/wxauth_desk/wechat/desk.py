"""The desk, a page that simulates a phone and browsers, and shows all requests and responses.

The page cannot send the requests of the phone and the browsers itself, because a web page cannot set their headers and
cookies. This module sends those of the phone, and `browsers.py` those of the browsers.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from wxauth_desk.clone import shared_file
from wxauth_desk.i18n import languages
from wxauth_desk.page_texts import page_texts
from wxauth_desk.wechat.browsers import trusted_certificates
from wxauth_desk.wechat.call_record import CallRecord, Handler
from wxauth_desk.wechat.controls import APP_TITLES, APPS, LATER_APP
from wxauth_desk.wechat.faults import Faults
from wxauth_desk.wechat.guides import guide_urls, send_guide
from wxauth_desk.wechat.offered_faults import FailureOf, offered_faults, unknown_failure

PAGE_HEADER: Final = "x-desk-page"  # the id of the page that sends a phone's request, which the page shows itself
# The request's other headers come from the developer's browser.
_FORWARDED_HEADERS: Final = ("accept", "authorization", "content-type", "x-request-id")
# The desk's server decodes the body, so `content-encoding` would be wrong. It sets the other headers itself.
_DROPPED_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)
_TIMEOUT_SECONDS: Final = 60  # as in `wx.request`
DESK_PATH: Final = "/desk/"
_GUIDES_PATH: Final = f"{DESK_PATH}guides/"
SHOP_PATH: Final = "/membership"  # of the mini-program's back end, at the address of the example sites
AGENT_CLIENT_ID: Final = "wxauth-example-agent"
AGENT_PATH: Final = f"{DESK_PATH}agent.html"  # wxauth redirects the agent's user to this page
_PAGE: Final = Path(__file__).parent / "page"
_SHARED_FILES: Final = {  # shared with the service's pages and with mini-programs, in these folders of a clone
    "base.css": "src/wxauth/console/page",
    "dom.js": "src/wxauth/console/page",
    "languages.js": "src/wxauth/console/page",
    "icon.svg": "src/wxauth/sites/pages/page",
    "wxauth.js": "clients/miniprogram",
    "wxauth-scan.js": "clients/miniprogram",
    "wxauth-site.js": "clients/miniprogram",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The programs around the simulated WeChat, which the desk's phone calls and the desk's page links to."""

    service_url: str = "http://127.0.0.1:8000"
    site_url: str = "http://127.0.0.1:8004"  # of the example sites
    shop_url: str = f"http://127.0.0.1:8004{SHOP_PATH}"  # of the back end that the shop's mini-program calls
    mcp_url: str | None = None  # of the example MCP server
    console_url: str | None = None
    is_alone: bool = False  # without wxauth, so the desk shows only the parts that need no wxauth
    failure_of: FailureOf = unknown_failure


def phone_network(service_url: str, *other_urls: str) -> Handler:
    """Return an endpoint that forwards the page's requests only to URLs below these, and streams the responses.

    `wx.request` sends its own user agent, and no `Accept-Language`. A browser does not allow a page to do the same.
    Therefore, the page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`. If there is no
    response from the server, the endpoint returns the name of the error, with the header `X-Phone-Error`.
    """
    urls = (service_url, *other_urls)

    async def send(request: Request) -> Response:
        url = request.headers.get("x-phone-url", "")
        if not url.startswith(tuple(f"{each}/" for each in urls)):
            return PlainTextResponse(
                f"X-Phone-Url: must be below {' or '.join(urls)}", status_code=HTTPStatus.UNPROCESSABLE_ENTITY
            )
        headers = {name: request.headers[name] for name in _FORWARDED_HEADERS if name in request.headers}
        headers["user-agent"] = request.headers.get("x-phone-user-agent", "")
        # The middleware `Watched` around wxauth removes this header. Other servers must not get it.
        if PAGE_HEADER in request.headers and url.startswith(f"{service_url}/"):
            headers[PAGE_HEADER] = request.headers[PAGE_HEADER]
        body = await request.body()
        client = httpx.AsyncClient(verify=trusted_certificates(), trust_env=False, timeout=_TIMEOUT_SECONDS)
        try:
            forwarded = client.build_request(request.method, url, headers=headers, content=body)
            answer = await client.send(forwarded, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            await client.aclose()
            return PlainTextResponse(type(exc).__name__, HTTPStatus.BAD_GATEWAY, headers={"X-Phone-Error": "1"})

        async def pieces() -> AsyncIterator[bytes]:
            async with aclosing(client), aclosing(answer):
                async for piece in answer.aiter_bytes():
                    yield piece

        response_headers = {name: value for name, value in answer.headers.items() if name not in _DROPPED_HEADERS}
        return StreamingResponse(pieces(), status_code=answer.status_code, headers=response_headers)

    return send


def desk_routes(call_record: CallRecord, faults: Faults, around: Surroundings) -> list[Route]:
    """Return the routes of the page and its files, of the data that the page shows, and of the phone's network."""
    setup = _setup(around)
    server_urls = [around.service_url, around.site_url, around.shop_url]
    if around.mcp_url is not None:
        server_urls.append(around.mcp_url.removesuffix("/mcp"))  # the server's metadata is not below `/mcp`

    send_page_file = _page_endpoint(around.service_url)

    async def read_setup(_request: Request) -> Response:
        return JSONResponse(setup, headers={"Cache-Control": "no-store"})

    async def read_texts(request: Request) -> Response:
        return page_texts(_PAGE, request)

    async def read_calls(request: Request) -> Response:
        news = call_record.since(int(request.path_params["revision"]))
        return JSONResponse({**news, "faults": faults.shown}, headers={"Cache-Control": "no-store"})

    async def add_slash(_request: Request) -> Response:
        return RedirectResponse(DESK_PATH)

    return [
        Route(DESK_PATH.rstrip("/"), add_slash),
        Route(DESK_PATH, send_page_file),
        Route(DESK_PATH + "request", phone_network(*server_urls), methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
        Route(DESK_PATH + "setup", read_setup),
        Route(DESK_PATH + "texts.json", read_texts),
        # In the page's script, a call has the name "wire".
        Route(DESK_PATH + "wires/{revision:int}", read_calls),
        Route(_GUIDES_PATH + "{path:path}", send_guide),
        Route(DESK_PATH + "{name}", send_page_file),
    ]


def _setup(around: Surroundings) -> Mapping[str, Any]:
    return {
        "is_alone": around.is_alone,
        "service_url": around.service_url,
        "site_url": around.site_url,
        "shop_url": around.shop_url,
        # The route that sends its response in pieces (see `create_shop_back_end`). Only the example shop has it, so the
        # URL does not begin with `shop_url`.
        "count_url": f"{around.site_url}{SHOP_PATH}/count",
        "links": {
            "shop": None if around.is_alone else f"{around.site_url}/",
            "console": around.console_url,
            "docs": None if around.is_alone else f"{around.service_url}/docs",
        },
        "guides": guide_urls(_GUIDES_PATH),
        "apps": [_with_titles(app) for app in (*APPS, LATER_APP)],
        "later_app_id": LATER_APP["app_id"],
        "agent": None if around.mcp_url is None else {"client_id": AGENT_CLIENT_ID, "server": around.mcp_url},
        "faults": offered_faults(around.failure_of),
    }


def _with_titles(app: Mapping[str, str]) -> Mapping[str, Any]:
    title = APP_TITLES[app["app_id"]]
    return {**app, "titles": {language: title.translated(language) for language in languages()}}


def _page_endpoint(service_url: str) -> Handler:
    own_files = StaticFiles(directory=_PAGE)
    shared_files = {
        name: StaticFiles(directory=shared_file(f"{folder}/{name}", name_in_wheel=name).parent)
        for name, folder in _SHARED_FILES.items()
    }
    headers = _page_headers(service_url)

    async def send_file(request: Request) -> Response:
        if request.url.hostname == "localhost":
            # The browser stores the phones for each host name, so under `localhost`, the page would not show the phones
            # that it shows under `127.0.0.1`.
            return RedirectResponse(request.url.replace(hostname="127.0.0.1", path=DESK_PATH))
        name = request.path_params.get("name", "index.html")
        response = await shared_files.get(name, own_files).get_response(name, request.scope)
        response.headers.update(headers)
        return response

    return send_file


def _page_headers(service_url: str) -> Mapping[str, str]:
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src 'self' blob:; img-src 'self' blob: data: {service_url}"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
