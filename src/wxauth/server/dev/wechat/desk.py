"""The phone on the desk: a page that simulates a phone, and shows all requests and answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth.errors import Title, WeChatBadResponse, WeChatError, WeChatTimeout, WeChatUnavailable
from wxauth.server.console.routes import CONSOLE_PAGE
from wxauth.server.dev.wechat.faults import Faults
from wxauth.server.dev.wechat.people import APPS, LATER_APP
from wxauth.server.dev.wechat.phone import phone_network
from wxauth.server.dev.wechat.wires import Wires
from wxauth.server.wechat import errcodes

DESK_PATH: Final = "/desk/"
SHOP_PATH: Final = "/membership"
"""The back end of the mini-program, on the address of the example sites."""

_PAGE: Final = Path(__file__).parent / "page"
_SHARED: Final = ("base.css", "dom.js", "icon.svg")
"""Files shared with the console, so that both have one design."""
_CLIENTS: Final = ("wxauth.js", "wxauth-scan.js", "wxauth-site.js")
_IN_WHEEL: Final = Path(__file__).parents[3] / "_miniprogram"
_IN_CHECKOUT: Final = Path(__file__).parents[5] / "clients" / "miniprogram"
_UNKNOWN: Final = 99999

_ERRCODES: Final = {
    errcodes.CODE2SESSION: (
        *(-1, 40029, 40163, 40226, 45011, 45009, 40013, 40125, 40164, 40243),
        *(41002, 41004, 41008, 48001, 50002, 89503, _UNKNOWN),
    ),
    errcodes.PHONE_NUMBER: (
        *(-1, 40029, 40163, 40003, 43104, 45011, 45009, 40001, 40014, 42001, 40013, 41001, 47001, 48001, 50002),
        *(89501, 40234, _UNKNOWN),
    ),
    errcodes.STABLE_TOKEN: (
        *(-1, 45011, 45009, 40001, 40013, 40125, 40164, 40243, 41002, 41004, 89501, 89503, 89506, 89507, _UNKNOWN),
    ),
}
"""The errcodes that can be selected for each API that the page uses."""
_IN_NO_LIST: Final = Title("one that is in no list", "列表之外的错误码")
_ON_THE_WAY: Final[tuple[tuple[dict[str, Any], Title, type[WeChatError] | None], ...]] = (
    ({"slow": 3}, Title("slow: answers after 3 s", "慢：3 秒后响应"), None),
    ({"hang": True}, Title("hangs: no answer, ever", "挂起：永不响应"), WeChatTimeout),
    ({"drop": True}, Title("drops the connection", "断开连接"), WeChatUnavailable),
    ({"garbage": True}, Title("answers garbage", "返回乱码"), WeChatBadResponse),
    ({"html": True}, Title("answers a web page", "返回网页"), WeChatBadResponse),
    ({"status": 500}, Title("answers HTTP 500", "返回 HTTP 500"), WeChatUnavailable),
)


def desk_routes(wires: Wires, faults: Faults, *, service_url: str, site_url: str, shop_url: str | None) -> list[Route]:
    """The routes of the page, of the real client library that the page runs, and of the data that it shows."""
    files, shared = StaticFiles(directory=_PAGE), StaticFiles(directory=CONSOLE_PAGE)
    clients = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src 'self' blob:; img-src 'self' blob: {service_url}"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    setup: dict[str, Any] = {
        "service_url": service_url,
        "site_url": site_url,
        "shop_url": shop_url or site_url + SHOP_PATH,
        "count_url": f"{site_url}{SHOP_PATH}/count",
        "apps": [app["app_id"] for app in APPS],
        "later_app": LATER_APP,
        "faults": known_faults(),
    }

    async def page(request: Request) -> Response:
        if request.url.hostname == "localhost":  # under another name, the page would have other phones
            return RedirectResponse(request.url.replace(hostname="127.0.0.1", path=DESK_PATH))
        name = request.path_params.get("name", "index.html")
        if name in _CLIENTS:
            response: Response = FileResponse(clients / name)
        else:
            response = await (shared if name in _SHARED else files).get_response(name, request.scope)
        response.headers.update(headers)
        return response

    async def read_setup(_: Request) -> Response:
        return JSONResponse(setup, headers={"Cache-Control": "no-store"})

    async def read_wires(request: Request) -> Response:
        news = wires.since(int(request.path_params["revision"]))
        return JSONResponse({**news, "faults": faults.waiting}, headers={"Cache-Control": "no-store"})

    async def add_slash(_: Request) -> Response:
        return RedirectResponse(DESK_PATH)

    return [
        Route(DESK_PATH.rstrip("/"), add_slash),
        Route(DESK_PATH, page),
        Route(
            DESK_PATH + "request",
            phone_network(service_url, site_url, setup["shop_url"]),
            methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
        ),
        Route(DESK_PATH + "setup", read_setup),
        Route(DESK_PATH + "wires/{revision:int}", read_wires),
        Route(DESK_PATH + "{name}", page),
    ]


def known_faults() -> dict[str, list[dict[str, Any]]]:
    """For each API, the faults that can be selected, their meanings, and the resulting `failure` on the phone.

    `failure` is null if the call succeeds in the end.
    """
    return {api: list(_known_faults(api)) for api in _ERRCODES}


class OwnPagesOnly:
    """Refuses requests of other web pages that the developer may have open. Programs are allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if headers.get("origin") not in (None, f"http://{host}"):
                app = PlainTextResponse("This is for programs and pages of this machine alone.\n", status_code=403)
        await app(scope, receive, send)


def _known_faults(api: str) -> Iterator[dict[str, Any]]:
    for errcode in _ERRCODES[api]:
        # The service renews a refused WeChat token and calls again.
        is_mended = api == errcodes.PHONE_NUMBER and errcode in errcodes.WECHAT_TOKEN_REFUSED
        failure = None if is_mended else errcodes.error_for(errcode, api=api)
        meaning = errcodes.meaning_of(errcode, api=api) or _IN_NO_LIST
        yield _known({"errcode": errcode}, meaning, failure)
    for fault, meaning, kind in _ON_THE_WAY:
        yield _known(fault, meaning, kind)


def _known(fault: dict[str, Any], meaning: Title, failure: WeChatError | type[WeChatError] | None) -> dict[str, Any]:
    failure_answer = failure and {"code": failure.code, "status": failure.status, "title": failure.title._asdict()}
    return {"fault": fault, "meaning": meaning._asdict(), "failure": failure_answer}
