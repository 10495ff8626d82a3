"""The desk, a page that simulates a phone and browsers, and shows all requests and responses.

This module serves the page, and sends the requests of the simulated phone. The simulated browsers are in `browsers.py`.
The page cannot send the requests of the phone and the browsers itself, because a web page cannot set their headers and
cookies.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from wxauth_desk.page_texts import page_texts
from wxauth_desk.wechat.browsers import trusted_certificates
from wxauth_desk.wechat.call_record import CallRecord, Handler
from wxauth_desk.wechat.controls import APPS, LATER_APP
from wxauth_desk.wechat.faults import Faults
from wxauth_desk.wechat.offered_faults import FailureOf, offered_faults

_FORWARDED_HEADERS: Final = ("accept", "authorization", "content-type", "x-request-id")
"""The headers of the page's request that the simulated phone passes on to the server.

The request's other headers come from the developer's browser.
"""
_DROPPED_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)
"""The headers of a response that are not forwarded to the page.

The desk's server decodes the body, so `content-encoding` would be wrong. It sets the other headers itself.
"""
_TIMEOUT_SECONDS: Final = 60
"""The timeout, in seconds, of a request, as in `wx.request`."""
DESK_PATH: Final = "/desk/"
SHOP_PATH: Final = "/membership"
"""The path of the mini-program's back end, at the address of the example sites."""
AGENT_CLIENT_ID: Final = "wxauth-example-agent"
"""The client_id of the desk's agent."""
AGENT_PATH: Final = f"{DESK_PATH}agent.html"
"""The path of the page to which wxauth redirects the agent's user."""
_PAGE: Final = Path(__file__).parent / "page"
_SHARED_FILES: Final = {
    "base.css": "src/wxauth/console/page",
    "dom.js": "src/wxauth/console/page",
    "languages.js": "src/wxauth/console/page",
    "icon.svg": "src/wxauth/login_pages/page",
    "wxauth.js": "clients/miniprogram",
    "wxauth-scan.js": "clients/miniprogram",
    "wxauth-site.js": "clients/miniprogram",
}
"""The files that the page shares with the service's pages and with mini-programs, and their folders in a clone."""
_SHARED_IN_WHEEL: Final = Path(__file__).parents[1] / "_shared"
"""The folder of these files in an installed desk."""
_CLONE: Final = Path(__file__).parents[4]
"""The root of a clone."""


def phone_network(*urls: str) -> Handler:
    """Return an endpoint that forwards the page's requests only to URLs below these, and streams the responses.

    `wx.request` sends its own user agent, and no `Accept-Language`. A browser does not allow a page to do the same.
    Therefore, the page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`. If there is no
    response from the server, the endpoint returns the name of the error, with the header `X-Phone-Error`.
    """

    async def send(request: Request) -> Response:
        url = request.headers.get("x-phone-url", "")
        if not url.startswith(tuple(f"{each}/" for each in urls)):
            return PlainTextResponse(
                f"X-Phone-Url: must be below {' or '.join(urls)}", status_code=HTTPStatus.UNPROCESSABLE_ENTITY
            )
        headers = {name: request.headers[name] for name in _FORWARDED_HEADERS if name in request.headers}
        headers["user-agent"] = request.headers.get("x-phone-user-agent", "")
        body = await request.body()
        client = httpx.AsyncClient(verify=trusted_certificates(), trust_env=False, timeout=_TIMEOUT_SECONDS)
        forwarded = client.build_request(request.method, url, headers=headers, content=body)
        try:
            answer = await client.send(forwarded, stream=True)
        except httpx.HTTPError as exc:
            await client.aclose()
            return PlainTextResponse(type(exc).__name__, HTTPStatus.BAD_GATEWAY, headers={"X-Phone-Error": "1"})

        async def pieces() -> AsyncIterator[bytes]:
            async with aclosing(client), aclosing(answer):
                async for piece in answer.aiter_bytes():
                    yield piece

        response_headers = {name: value for name, value in answer.headers.items() if name not in _DROPPED_HEADERS}
        return StreamingResponse(pieces(), status_code=answer.status_code, headers=response_headers)

    return send


def desk_routes(
    call_record: CallRecord,
    faults: Faults,
    *,
    service_url: str,
    site_url: str,
    shop_url: str,
    mcp_url: str | None,
    is_alone: bool,
    failure_of: FailureOf,
) -> list[Route]:
    """Return the routes of the page and its files, of the data that the page shows, and of the phone's network.

    `service_url` is the URL of wxauth, `site_url` the URL of the example sites, and `shop_url` the URL of the back end
    that the shop's mini-program calls. If there is no MCP server, `mcp_url` is None. With `is_alone`, no wxauth runs
    next to the desk. `failure_of` returns the error that a phone gets because of a fault.
    """
    setup = {
        "is_alone": is_alone,
        "service_url": service_url,
        "site_url": site_url,
        "shop_url": shop_url,
        # The route that sends its response in pieces (see `create_shop_back_end`). Only the example shop has it, so the
        # URL does not begin with `shop_url`.
        "count_url": f"{site_url}{SHOP_PATH}/count",
        "apps": [app["app_id"] for app in APPS],
        "later_app": LATER_APP,
        "agent": None if mcp_url is None else {"client_id": AGENT_CLIENT_ID, "server": mcp_url},
        "faults": offered_faults(failure_of),
    }
    servers = [service_url, site_url, shop_url]
    if mcp_url is not None:
        servers.append(mcp_url.removesuffix("/mcp"))  # the server's metadata is not below `/mcp`

    send_page_file = _page_endpoint(service_url)

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
        Route(DESK_PATH + "request", phone_network(*servers), methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
        Route(DESK_PATH + "setup", read_setup),
        Route(DESK_PATH + "texts.json", read_texts),
        # In the page's script, a call has the name "wire".
        Route(DESK_PATH + "wires/{revision:int}", read_calls),
        Route(DESK_PATH + "{name}", send_page_file),
    ]


def _page_endpoint(service_url: str) -> Handler:
    """Return the endpoint of the page and its files."""
    files, shared = StaticFiles(directory=_PAGE), _shared_files()
    headers = _page_headers(service_url)

    async def send_file(request: Request) -> Response:
        if request.url.hostname == "localhost":
            # The browser stores the phones for each host name, so under `localhost`, the page would not show the phones
            # that it shows under `127.0.0.1`.
            return RedirectResponse(request.url.replace(hostname="127.0.0.1", path=DESK_PATH))
        name = request.path_params.get("name", "index.html")
        response = await shared.get(name, files).get_response(name, request.scope)
        response.headers.update(headers)
        return response

    return send_file


def _shared_files() -> Mapping[str, StaticFiles]:
    """Return the ASGI app that serves each of `_SHARED_FILES`, by the file's name."""
    if _SHARED_IN_WHEEL.is_dir():
        return dict.fromkeys(_SHARED_FILES, StaticFiles(directory=_SHARED_IN_WHEEL))
    return {name: StaticFiles(directory=_CLONE / folder) for name, folder in _SHARED_FILES.items()}


def _page_headers(service_url: str) -> Mapping[str, str]:
    """Return the headers of the page and its files. They allow the page to show pictures from the service."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src 'self' blob:; img-src 'self' blob: data: {service_url}"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
