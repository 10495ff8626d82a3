"""The middleware of both commands, which accepts only requests to names of this machine.

A web page whose own name resolves to this machine (DNS rebinding) has the service's origin, and could log in as any
user in the simulated WeChat. Only the name in `Host` distinguishes a request of such a page from a request of wxauth's
pages, because a browser sends no `Origin` with a GET.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HOST: Final = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(:\d{0,5})?", re.ASCII)
_EVERYWHERE: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 - compared only
REFUSED_ALONE: Final = (
    "wxauth-desk wechat does not answer to the name {name}: use 127.0.0.1, localhost or WeChat's own name\n"
    "wxauth-desk wechat 不接受以主机名 {name} 访问，请使用 127.0.0.1、localhost 或微信的域名\n"
)
_REFUSED_BY_DEV: Final = (
    "wxauth-desk dev does not answer to this name: start it with --allow-host {name}\n"
    "wxauth-desk dev 不接受以此主机名访问，如需允许，请在启动时加上 --allow-host {name}\n"
)


def name_in(host: str) -> str | None:
    """Return the name or address in a `Host`, without its port and brackets; None if it is malformed."""
    match = _HOST.fullmatch(host.lower())
    return None if match is None else match["v6"] or match["name"]


class OwnNamesOnly:
    """Middleware that refuses requests to a name that is neither loopback nor allowed.

    `0.0.0.0` or `::` among the names allows every address, because a page has an address as its name only if it was
    loaded from this address. With `own_pages`, requests of other web pages that the developer may have open are
    refused, too. Requests of programs are allowed. `refusal` says what to do, and may contain `{name}`.
    """

    def __init__(
        self, app: ASGIApp, names: Iterable[str], *, own_pages: bool = False, refusal: str = _REFUSED_BY_DEV
    ) -> None:
        self._app = app
        self._names = frozenset(names)
        self._own_pages = own_pages
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            name = name_in(host)
            if name is None or not self._is_own(name):
                app = PlainTextResponse(self._refusal.format(name=name or "NAME"), status_code=403)
            elif self._own_pages and headers.get("origin") not in (None, f"http://{host}"):
                app = PlainTextResponse("This is for programs and pages of this machine alone.\n", status_code=403)
        await app(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ip_address(name).is_loopback or not self._names.isdisjoint(_EVERYWHERE)
        except ValueError:
            return False
