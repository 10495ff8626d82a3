"""The desk, a page that simulates a phone and browsers, and shows all requests and responses.

This module serves the page, sends the requests of the simulated phone, and lists the faults that the page offers. The
simulated browsers are in `browsers.py`. The page cannot send the requests of the phone and the browsers itself, because
a web page cannot set their headers and cookies.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from wxauth_desk.i18n import Text, languages, lazy_gettext as _
from wxauth_desk.page_texts import page_texts
from wxauth_desk.wechat.browsers import trusted_certificates
from wxauth_desk.wechat.call_record import CallRecord, Handler
from wxauth_desk.wechat.controls import APPS, LATER_APP
from wxauth_desk.wechat.faults import Faults

_FORWARDED_HEADERS: Final = ("accept", "authorization", "content-type", "x-request-id")
"""The headers of the page's request that the simulated phone sends.

The request's other headers come from the developer's browser.
"""
_DROPPED_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)
"""The headers of a response that are not forwarded to the page.

The page's own server decodes the body, and sets these headers itself.
"""
_TIMEOUT_SECONDS: Final = 60
"""The timeout, in seconds, of a request, as in `wx.request`."""
DESK_PATH: Final = "/desk/"
SHOP_PATH: Final = "/membership"
"""The path of the mini-program's back end, on the address of the example sites."""
AGENT: Final = "wxauth-example-agent"
"""The client_id of the desk's agent."""
AGENT_PATH: Final = f"{DESK_PATH}agent.html"
"""The path of the page to which wxauth redirects the agent's user."""
_PAGE: Final = Path(__file__).parent / "page"
_SHARED_FILES: Final = {
    "base.css": "src/wxauth/console/page",
    "dom.js": "src/wxauth/console/page",
    "languages.js": "src/wxauth/console/page",
    "icon.svg": "src/wxauth/login_pages/page",
    **dict.fromkeys(("wxauth.js", "wxauth-scan.js", "wxauth-site.js"), "clients/miniprogram"),
}
"""The files that the page shares with the service's pages and with mini-programs, and their folders in a clone."""
_SHARED_IN_WHEEL: Final = Path(__file__).parents[1] / "_shared"
"""The folder of these files in an installed desk."""
_CHECKOUT: Final = Path(__file__).parents[4]
_UNLISTED: Final = 99999
"""An errcode that no documentation lists."""
_ERRCODES: Final = {
    "code2session": (
        *(-1, 40029, 40163, 40226, 45011, 45009, 40013, 40125, 40164, 40243),
        *(41002, 41004, 41008, 48001, 50002, 89503, _UNLISTED),
    ),
    "getuserphonenumber": (
        *(-1, 40029, 40163, 40003, 43104, 45011, 45009, 40001, 40014, 42001, 40013, 41001, 47001, 48001, 50002),
        *(89501, 40234, _UNLISTED),
    ),
    "stable_token": (
        *(-1, 45011, 45009, 40001, 40013, 40125, 40164, 40243, 41002, 41004, 89501, 89503, 89506, 89507, _UNLISTED),
    ),
}
"""The errcodes that a developer can select on the page, by the API that returns them.

The starred tuples only keep the formatter from writing each number on its own line.
"""
_UNLISTED_MEANING: Final = _("an errcode that isn't in any list")
_MEANINGS: Final = {
    -1: _("WeChat is busy"),
    40001: _("the access token is invalid or isn't the latest token"),
    40003: _("the openid doesn't belong to this app"),
    40013: _("the appid is malformed"),
    40014: _("the access token is malformed"),
    40029: _("the wx.login code is invalid, has expired, or belongs to another app"),
    40125: _("the AppSecret is wrong"),
    40163: _("the wx.login code has already been used"),
    40164: _("this server's IP address isn't on the IP whitelist"),
    40226: _("WeChat classifies this user as high-risk"),
    40234: _("the app requires signed and encrypted calls"),
    40243: _("the AppSecret is frozen"),
    41001: _("the access token is missing"),
    41002: _("the appid is missing"),
    41004: _("the AppSecret is missing"),
    41008: _("the wx.login code is missing"),
    42001: _("the access token has expired"),
    43104: _("the phone number code belongs to another user"),
    45009: _("the daily quota is used up"),
    45011: _("too many calls within a minute"),
    47001: _("the request body doesn't have the expected format"),
    48001: _("the account isn't allowed to use this API"),
    50002: _("the account is restricted"),
    89501: _("this server's IP address is waiting for the administrator's confirmation"),
    89503: _("the call is waiting for the administrator's confirmation"),
    89506: _("the administrator has rejected this server's IP address twice, so calls are blocked for 24 hours"),
    89507: _("the administrator has rejected this server's IP address, so calls are blocked for an hour"),
}
"""The meaning of each errcode, according to WeChat's documentation."""
_TRANSPORT_FAULTS: Final[tuple[tuple[dict[str, Any], Text], ...]] = (
    ({"slow": 3}, _("responds after 3 s")),
    ({"hang": True}, _("never responds")),
    ({"drop": True}, _("drops the connection")),
    ({"garbage": True}, _("returns garbage")),
    ({"html": True}, _("returns a web page")),
    ({"status": 500}, _("returns HTTP 500")),
)
"""The faults of the connection to WeChat, or of its response, each with its meaning."""
FailureOf = Callable[[str, Mapping[str, Any]], dict[str, Any] | None]
"""A function that returns the error (code, status and titles) that a phone gets if a call to an API has a fault.

The function returns None if nothing fails, or if no service is known.
"""


def no_service(_api: str, _fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return None, because the simulated WeChat without wxauth does not know how its caller handles a failure."""
    return None


def phone_network(*urls: str) -> Handler:
    """Return an endpoint that forwards the page's requests to these URLs only, and streams the responses.

    A browser does not allow a page to set the user agent, or to omit `Accept-Language`, as `wx.request` does.
    Therefore, the page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`.
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

    If there is no MCP server, `mcp_url` is None. With `is_alone`, no wxauth runs next to the desk. The URLs and
    `failure_of` are those of `create_simulator`.
    """
    setup = {
        "is_alone": is_alone,
        "service_url": service_url,
        "site_url": site_url,
        "shop_url": shop_url,
        "count_url": f"{site_url}{SHOP_PATH}/count",
        "apps": [app["app_id"] for app in APPS],
        "later_app": LATER_APP,
        "agent": None if mcp_url is None else {"client_id": AGENT, "server": mcp_url},
        "faults": known_faults(failure_of),
    }
    servers = [service_url, site_url, shop_url]
    if mcp_url is not None:
        servers.append(mcp_url.removesuffix("/mcp"))  # the server's metadata is not below `/mcp`

    page = _page_endpoint(service_url)

    async def read_setup(_request: Request) -> Response:
        return JSONResponse(setup, headers={"Cache-Control": "no-store"})

    async def read_texts(request: Request) -> Response:
        return page_texts(_PAGE, request)

    async def read_wires(request: Request) -> Response:
        news = call_record.since(int(request.path_params["revision"]))
        return JSONResponse({**news, "faults": faults.shown}, headers={"Cache-Control": "no-store"})

    async def add_slash(_request: Request) -> Response:
        return RedirectResponse(DESK_PATH)

    return [
        Route(DESK_PATH.rstrip("/"), add_slash),
        Route(DESK_PATH, page),
        Route(DESK_PATH + "request", phone_network(*servers), methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
        Route(DESK_PATH + "setup", read_setup),
        Route(DESK_PATH + "texts.json", read_texts),
        Route(DESK_PATH + "wires/{revision:int}", read_wires),
        Route(DESK_PATH + "{name}", page),
    ]


def _page_endpoint(service_url: str) -> Handler:
    """Return the endpoint of the page and its files."""
    files, shared = StaticFiles(directory=_PAGE), _shared_files()
    headers = _page_headers(service_url)

    async def send_file(request: Request) -> Response:
        if request.url.hostname == "localhost":
            # The browser stores the phones for each host name, so under this name, the page would have other phones.
            return RedirectResponse(request.url.replace(hostname="127.0.0.1", path=DESK_PATH))
        name = request.path_params.get("name", "index.html")
        response = await shared.get(name, files).get_response(name, request.scope)
        response.headers.update(headers)
        return response

    return send_file


def _shared_files() -> Mapping[str, StaticFiles]:
    """Return the apps that serve `_SHARED_FILES`, by the file's name."""
    if _SHARED_IN_WHEEL.is_dir():
        return dict.fromkeys(_SHARED_FILES, StaticFiles(directory=_SHARED_IN_WHEEL))
    return {name: StaticFiles(directory=_CHECKOUT / folder) for name, folder in _SHARED_FILES.items()}


def _page_headers(service_url: str) -> Mapping[str, str]:
    """Return the headers of the page and its files, with which the page can show pictures from the service."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src 'self' blob:; img-src 'self' blob: data: {service_url}"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def known_faults(failure_of: FailureOf = no_service) -> dict[str, list[dict[str, Any]]]:
    """Return the faults that the page offers for each API, by the API's name.

    Each fault contains its `meaning` in each language, and the `failure` that the phone then gets.
    """
    return {api: [_shown_fault(api, *fault, failure_of) for fault in _faults_of(api)] for api in _ERRCODES}


def _faults_of(api: str) -> Iterator[tuple[dict[str, Any], Text]]:
    """Yield the faults that the page offers for an API, each with its meaning."""
    for errcode in _ERRCODES[api]:
        yield {"errcode": errcode}, _MEANINGS.get(errcode, _UNLISTED_MEANING)
    yield from _TRANSPORT_FAULTS


def _shown_fault(api: str, fault: dict[str, Any], meaning: Text, failure_of: FailureOf) -> dict[str, Any]:
    """Return a fault with its meaning in each language, and with the failure that a phone then gets."""
    meanings = {language: meaning.translated(language) for language in languages()}
    return {"fault": fault, "meaning": meanings, "failure": failure_of(api, fault)}
