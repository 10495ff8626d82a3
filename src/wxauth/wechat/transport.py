"""httpx requests over aiohttp's connections.

httpx's own pool costs several times as much CPU at 200 waiting requests; `httpx_aiohttp` names a lost
connection "connect timeout", which would let a request be sent again that may have arrived. Here each
failure keeps its name, a body is capped, and nothing is sent twice.
"""

import ssl
from typing import Final

import aiohttp
import httpx
from yarl import URL

MAX_BODY: Final = 64 * 1024
"""Bytes of an answer, unless the request's extension `max_body` says otherwise."""
MAX_CONNECTIONS: Final = 256
KEEPALIVE_SECONDS: Final = 30.0
CONNECT_SHARE: Final = 0.4
"""What one connect may take of the whole exchange's time, so that the fallback host has its turn."""


class _ConnectionLost(aiohttp.ClientError):
    """Not the error that aiohttp would answer with a second try."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A transport with httpx's names for what goes wrong.

    The request's `target` extension, where there is one, is the request target (RFC 9112, section 3.2), in
    place of the path and query of its URL: a secret in it is then in no URL that is printed or logged.

    An answer is its status and its body as they came, and WeChat's time as the extension `date`. Its header
    fields are left out: httpx would unpack a Content-Encoding that nobody asked for, to any size.

    Raises: httpx.ConnectError or httpx.ConnectTimeout where the request was certainly not sent, and for
    everything later httpx.ReadError, httpx.RemoteProtocolError or, where the answer is no HTTP or too
    large, httpx.DecodingError. None of them carries a text of aiohttp's, which may hold the URL.
    """

    def __init__(self, *, connect_timeout: float, verify: ssl.SSLContext | bool = True) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout)
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the whole answer."""
        session = self._session or self._open_session()
        base = f"{request.url.scheme}://{request.url.netloc.decode()}"
        target: bytes = request.extensions.get("target", request.url.raw_path)
        max_body: int = request.extensions.get("max_body", MAX_BODY)
        try:
            async with session.request(
                request.method,
                URL(base + target.decode(), encoded=True),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=self._timeout,
            ) as answer:
                body = await answer.content.read(max_body)
                while not answer.content.at_eof():
                    if len(body) >= max_body:
                        answer.close()
                        raise httpx.DecodingError("the answer is too large")
                    body += await answer.content.read(max_body - len(body))
                return httpx.Response(answer.status, content=body, extensions={"date": answer.headers.get("Date")})
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            failure = _named(exc)
        raise failure  # out here, so that aiohttp's error is not even its context

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        # Not in __init__: a session belongs to the running loop.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, ssl=self._verify, keepalive_timeout=KEEPALIVE_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_never_send_twice,),
            auto_decompress=False,
            trust_env=False,
        )
        return self._session


async def _never_send_twice(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # aiohttp sends an idempotent request again when a kept-alive connection breaks under it; to WeChat a
    # GET is not idempotent, it spends the code.
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise _ConnectionLost from None


def _named(exc: Exception) -> httpx.RequestError:
    reason = type(exc).__name__
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(reason)
        case aiohttp.ClientConnectorError():  # name resolution, refusal, TLS handshake
            return httpx.ConnectError(reason)
        case aiohttp.ClientResponseError():
            return httpx.DecodingError(reason)
        case _ConnectionLost() | OSError():
            return httpx.ReadError(reason)
        case _:
            return httpx.RemoteProtocolError(reason)
