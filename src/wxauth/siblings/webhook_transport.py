"""httpx requests to other people's servers: over aiohttp's connections, to checked addresses alone."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

from wxauth.siblings.addresses import Scheme, is_refused

MAX_ANSWER: Final = 4096
"""Bytes of an answer that are read, so that its connection can be used again."""
ANSWER_PATIENCE: Final = 1.0
"""Seconds for them: what counts is the status."""
CONNECT_PATIENCE: Final = 8.0
KEEPALIVE: Final = 4.0
"""Seconds; many servers close an idle connection after five, and a request on a closed one would count as a failure."""


class AddressRefused(OSError):
    """Nothing may be sent to this address."""

    def __str__(self) -> str:
        return "address refused"


class WebhookTransport(httpx.AsyncBaseTransport):
    """Sends to whoever the request's URL names, unless the address is one that nothing may be sent to.

    The address is checked where a socket for it is made: what was checked is what is connected to, whatever the name
    resolved to before, and in whatever form it was written. Redirects are not followed, proxies of the environment
    not used. An answer is its status and `Retry-After`.

    Raises: httpx.TransportError with a few words that may be shown: no text of the other side's.

    Args:
        resolver: Finds the addresses of a name; the system's, unless given.
        verify: How certificates are checked.
    """

    def __init__(self, *, resolver: AbstractResolver | None = None, verify: ssl.SSLContext | bool = True) -> None:
        self._resolver = resolver
        self._verify = verify
        self._timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_PATIENCE)
        self._sessions: dict[Scheme, aiohttp.ClientSession] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the status and a little of what follows."""
        scheme: Scheme = "https" if request.url.scheme == "https" else "http"
        url = URL(str(request.url), encoded=True)
        try:
            if url.host is not None and _is_refused_literal(url.host, scheme):
                raise AddressRefused
            async with self._session(scheme).request(
                request.method,
                url,
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=await request.aread(),
                allow_redirects=False,
                timeout=self._timeout,
            ) as answer:
                await _read_a_little(answer)
                retry_after = answer.headers.get("Retry-After")
                headers = {} if retry_after is None else {"Retry-After": retry_after}
                return httpx.Response(answer.status, headers=headers)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            failure = _named(exc)
        raise failure  # out here, so that aiohttp's error, with the URL in it, is not even its context

    async def aclose(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, scheme: Scheme) -> aiohttp.ClientSession:
        # Not in __init__: a session belongs to the running loop.
        if scheme not in self._sessions:
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # whoever sends keeps count
                    ssl=self._verify,
                    keepalive_timeout=KEEPALIVE,
                    resolver=self._resolver,
                    socket_factory=lambda info: _checked_socket(info, scheme),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._sessions[scheme]


def _checked_socket(info: aiohttp.AddrInfoType, scheme: Scheme) -> socket.socket:
    family, kind, protocol, _, address = info
    if is_refused(str(address[0]), scheme):
        raise AddressRefused
    return socket.socket(family, kind, protocol)


def _is_refused_literal(host: str, scheme: Scheme) -> bool:
    with suppress(ValueError):
        return is_refused(host, scheme)
    return False  # a name, whose addresses are looked at when they are known


async def _read_a_little(answer: aiohttp.ClientResponse) -> None:
    """Of an answer whose end is not seen soon the connection is not used again."""
    read = 0
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_PATIENCE):
            while read < MAX_ANSWER and not answer.content.at_eof():
                read += len(await answer.content.read(MAX_ANSWER - read))
    if not answer.content.at_eof():
        answer.close()


def _named(exc: Exception) -> httpx.TransportError:
    match exc:
        case AddressRefused():
            return httpx.ConnectError(str(exc))
        case aiohttp.ConnectionTimeoutError() | TimeoutError():
            return httpx.ConnectTimeout("timed out while connecting")
        case aiohttp.ClientConnectorCertificateError():
            return httpx.ConnectError("certificate not valid")
        case aiohttp.ClientConnectorSSLError():
            return httpx.ConnectError("TLS failed")
        case aiohttp.ClientConnectorDNSError():
            return httpx.ConnectError("host not found")
        case aiohttp.ClientConnectorError():
            # Of several addresses, asyncio gives the reasons in one text.
            refused = str(AddressRefused())
            return httpx.ConnectError(refused if refused in str(exc.os_error) else "could not connect")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError("answer is not HTTP")
        case aiohttp.ClientError() | OSError():
            return httpx.ReadError("connection lost")
        case _:
            return httpx.UnsupportedProtocol("URL cannot be used")
