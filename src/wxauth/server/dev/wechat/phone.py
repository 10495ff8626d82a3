"""The network of the phone on the desk: it sends requests as a phone does, which a web page cannot."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

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


def phone_network(*urls: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that forwards a page's requests to these URLs, and nowhere else. Answers come as they are sent.

    A browser does not allow a page to set the user agent, or to omit `Accept-Language`, as `wx.request` does. So the
    page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`.
    """

    async def send(request: Request) -> Response:
        url = request.headers.get("x-phone-url", "")
        if not url.startswith(tuple(f"{each}/" for each in urls)):
            return PlainTextResponse(f"X-Phone-Url: must be below {' or '.join(urls)}", status_code=422)
        headers = {name: request.headers[name] for name in _TAKEN if name in request.headers}
        headers["user-agent"] = request.headers.get("x-phone-user-agent", "")
        client = httpx.AsyncClient(verify=trusted_certificates(), trust_env=False, timeout=_TIMEOUT_SECONDS)
        sent = client.build_request(request.method, url, headers=headers, content=await request.body())
        try:
            answer = await client.send(sent, stream=True)
        except httpx.HTTPError as exc:
            await client.aclose()
            return PlainTextResponse(type(exc).__name__, status_code=502, headers={"X-Phone-Error": "1"})

        async def pieces() -> AsyncIterator[bytes]:
            async with aclosing(client), aclosing(answer):
                async for piece in answer.aiter_bytes():
                    yield piece

        passed_headers = {name: value for name, value in answer.headers.items() if name not in _LEFT_OUT}
        return StreamingResponse(pieces(), status_code=answer.status_code, headers=passed_headers)

    return send
