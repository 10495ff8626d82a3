"""The network of the phone on the desk: it sends requests as a phone does, which a web page cannot."""

import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TAKEN: Final = ("authorization", "content-type", "x-request-id")
_LEFT_OUT: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)
_TIMEOUT_SECONDS: Final = 60
"""As in `wx.request`."""


@cache
def trusted_certificates() -> ssl.SSLContext:
    """Those that httpx trusts. It would read them for each client, which takes 17 ms."""
    return httpx.create_ssl_context(trust_env=False)


def phone_network(service_url: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that forwards a page's requests to the service, and nowhere else.

    A browser does not allow a page to set the user agent, or to omit `Accept-Language`, as `wx.request` does. So the
    page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`.
    """

    async def send(request: Request) -> Response:
        url = request.headers.get("x-phone-url", "")
        if not url.startswith(f"{service_url}/"):
            return PlainTextResponse(f"X-Phone-Url: must be below {service_url}/", status_code=422)
        headers = {name: request.headers[name] for name in _TAKEN if name in request.headers}
        headers["user-agent"] = request.headers.get("x-phone-user-agent", "")
        try:
            async with httpx.AsyncClient(
                verify=trusted_certificates(), trust_env=False, timeout=_TIMEOUT_SECONDS
            ) as client:
                answer = await client.request(request.method, url, headers=headers, content=await request.body())
        except httpx.HTTPError as exc:
            return PlainTextResponse(type(exc).__name__, status_code=502, headers={"X-Phone-Error": "1"})
        passed_headers = {name: value for name, value in answer.headers.items() if name not in _LEFT_OUT}
        return Response(answer.content, status_code=answer.status_code, headers=passed_headers)

    return send
