"""The middleware of `wxauth-desk dev` and `wxauth-desk wechat`, which refuses foreign host names and large bodies.

Both commands accept only requests to names of this machine and to allowed names. An attacker's web page can have a host
name that resolves to this machine (DNS rebinding). The browser then treats the page and the service as one origin, so
the page could log in as any user in the simulated WeChat. Only the name in `Host` distinguishes the requests of such a
page from the requests of wxauth's pages, because a browser sends no `Origin` with a same-origin GET.
"""

import re
from collections.abc import Iterable
from functools import wraps
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# This pattern matches an IPv6 address in brackets, an IPv4 address or a name, with or without a port.
_HOST: Final = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(:\d{0,5})?", re.ASCII)
# In `WXAUTH_HOST` or `--allow-host`, these stand for all addresses of this machine.
ALL_INTERFACES: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 - compared only
# The largest real bodies are pictures of up to 2 MB.
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
REFUSED_BY_WECHAT: Final = (
    "wxauth-desk wechat does not answer to the name {name}: use 127.0.0.1, localhost or WeChat's own name\n"
    "wxauth-desk wechat 不接受以主机名 {name} 访问，请使用 127.0.0.1、localhost 或微信的域名\n"
)
_REFUSED_BY_DEV: Final = (
    "wxauth-desk dev does not answer to this name: start it with --allow-host {name}\n"
    "wxauth-desk dev 不接受以此主机名访问，如需允许，请在启动时加上 --allow-host {name}\n"
)
_REFUSED_TO_OTHER_PAGES: Final = "This is for programs and pages of this machine alone.\n"


def name_in(host: str) -> str | None:
    """Return the name or address in a `Host` header, in lower case, without port; None if it is malformed."""
    match = _HOST.fullmatch(host.lower())
    return None if match is None else match["v6"] or match["name"]


class OwnNamesOnly:
    """Middleware that refuses requests to a name that is neither loopback nor allowed.

    `0.0.0.0` or `::` among the allowed names allows every IP address. This is safe, because DNS rebinding needs a host
    name. If the host of a page is an IP address, the browser has loaded the page from this address.

    With `own_pages_only`, the middleware also refuses requests from web pages of other origins, which the developer
    might have open in the browser. Programs send no `Origin`, so they are allowed.
    """

    def __init__(
        self,
        app: ASGIApp,
        allowed_names: Iterable[str],
        *,
        own_pages_only: bool = False,
        refusal: str = _REFUSED_BY_DEV,
    ) -> None:
        self._app = app
        self._allowed_names = frozenset(allowed_names)
        self._own_pages_only = own_pages_only
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":  # no part of the desk accepts WebSockets
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            name = name_in(host)
            if name is None or not self._is_own(name):
                app = PlainTextResponse(self._refusal.format(name=name or "NAME"), status_code=HTTPStatus.FORBIDDEN)
            elif self._own_pages_only and headers.get("origin") not in (None, f"http://{host}"):
                app = PlainTextResponse(_REFUSED_TO_OTHER_PAGES, status_code=HTTPStatus.FORBIDDEN)
        await app(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        if name in self._allowed_names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ip_address(name).is_loopback or not self._allowed_names.isdisjoint(ALL_INTERFACES)
        except ValueError:  # a host name instead of an address
            return False


class LimitedBody:
    """Middleware that reads at most `MAX_BODY_BYTES` of a request's body, and refuses a larger body with 413.

    The error is raised where the endpoint reads the body, so that Starlette turns it into the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0

        @wraps(receive)  # so that `_drop_connection` in wechat/faults.py can unwrap it
        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, receive_limited, send)
