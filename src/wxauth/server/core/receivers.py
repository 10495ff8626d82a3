"""httpx transport to other people's servers, which connects only to checked addresses."""

import asyncio
import hmac
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import httpcore
import httpx

from wxauth import __version__
from wxauth.server.core.addresses import Scheme, is_refused

MAX_ANSWER: Final = 4096
"""Bytes of a response body that are read. A connection with a longer response is not reused."""
BODY_TIMEOUT_SECONDS: Final = 1.0
"""Seconds for reading the body. Only the status matters."""
CONNECT_TIMEOUT_SECONDS: Final = 8.0
KEEPALIVE_SECONDS: Final = 4.0
"""Many servers close an idle connection after five, and a request on a closed one would count as failed."""
MAX_IDLE: Final = 64
USER_AGENT: Final = f"wxauth/{__version__}"

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a name. Raises: OSError, UnicodeError."""


class _Refused(httpcore.ConnectError):
    """A connection error with our own text, which may be shown."""


class ReceiverTransport(httpx.AsyncBaseTransport):
    """Sends to the host of the request's URL, unless its address is refused.

    Names are resolved here, and connections go to the address that was checked. So neither a name that resolves
    differently the next time nor an unusual spelling of an address bypasses the check. Redirects are not followed, and
    proxies from the environment are not used. A response contains only the status, `Retry-After`, and a body, of which
    somebody who closes the response unread gets nothing.

    Raises: httpx.TransportError, with a short message that may be shown: it contains no text from the other side.

    Args:
        resolve: Returns the addresses of a name.
        tls: The certificates to trust. By default, those of this machine.
    """

    def __init__(self, *, resolve: Resolve, tls: ssl.SSLContext | None = None) -> None:
        self._resolve = resolve
        self._tls = tls
        self._pools: dict[Scheme, httpcore.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the status. Closing the response reads the beginning of its body."""
        scheme: Scheme = "https" if request.url.scheme == "https" else "http"
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=await request.aread(),
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_SECONDS}},
        )
        try:
            answer = await self._pool(scheme).handle_async_request(asked)
            retry_after = [value for name, value in answer.headers if name.lower() == b"retry-after"]
            headers = [(b"Retry-After", value) for value in retry_after[:1]]
            return httpx.Response(answer.status, headers=headers, stream=_Body(answer))
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ValueError, OSError) as exc:
            failure = _named(exc)
        raise failure  # outside the `except`, so that the other side's text is not even this error's context

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    def _pool(self, scheme: Scheme) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=self._https() if scheme == "https" else None,
                max_connections=None,  # Deliveries limits how many messages are sent at once
                max_keepalive_connections=MAX_IDLE,
                keepalive_expiry=KEEPALIVE_SECONDS,
                network_backend=_Checked(scheme, self._resolve),
            )
        return self._pools[scheme]

    def _https(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()  # takes 17 ms, which plain HTTP need not pay


class _Checked(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses, never to names."""

    def __init__(self, scheme: Scheme, resolve: Resolve) -> None:
        self._scheme = scheme
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that is allowed and accepts it."""
        try:
            found = await self._resolve(host)
        except TimeoutError:
            raise _Refused("no answer for the host's name") from None
        except (OSError, UnicodeError):
            raise _Refused("host not found") from None
        addresses = [address for address in dict.fromkeys(found) if not is_refused(address, self._scheme)]
        if not addresses:
            raise _Refused("address refused")
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                each = None if timeout is None else timeout / len(addresses)
                return await self._network.connect_tcp(address, port, each, local_address, socket_options)
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    """A response body. If nobody wants it, only the beginning is read."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer
        self._is_wanted = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the body. Raises: httpx.TransportError."""
        self._is_wanted = True
        try:
            async for chunk in self._answer.aiter_stream():
                yield chunk
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as exc:
            failure = _named(exc)
        else:
            return
        raise failure  # outside the `except`, as above

    async def aclose(self) -> None:
        """Read to the end of a short response, so that its connection can be reused."""
        read = 0
        try:
            if self._is_wanted:
                return
            with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
                async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                    async for chunk in self._answer.aiter_stream():
                        read += len(chunk)
                        if read >= MAX_ANSWER:
                            break
        finally:
            await self._answer.aclose()


def _named(exc: Exception) -> httpx.TransportError:
    match exc:
        case _Refused():
            return httpx.ConnectError(str(exc))
        case httpcore.ConnectTimeout() | TimeoutError():
            return httpx.ConnectTimeout("timed out while connecting")
        case httpcore.ConnectError():
            return httpx.ConnectError(_why_not_connected(exc))
        case httpcore.RemoteProtocolError():
            # httpcore raises this error for a closed connection, too.
            return httpx.RemoteProtocolError("connection lost" if "disconnected" in str(exc) else "answer is not HTTP")
        case httpcore.NetworkError() | httpcore.TimeoutException() | OSError():
            return httpx.ReadError("connection lost")
        case _:
            return httpx.UnsupportedProtocol("URL cannot be used")


def _why_not_connected(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "certificate not valid"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    return "could not connect"


def signed_headers(message_id: str, body: bytes, keys: Iterable[bytes], *, now: datetime) -> Mapping[str, str]:
    """The headers of a message, signed as Standard Webhooks 1.0.0 says, with one signature per key."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
