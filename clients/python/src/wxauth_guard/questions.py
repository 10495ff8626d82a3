"""Requests to wxauth over HTTP, in threads, and what their failures mean."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, NamedTuple

from wxauth_guard.issuer import causes_of, httpx

_MAX_PROBLEM_BYTES: Final = 16 * 1024
# With `or_offline`, an outage admits a token. Therefore, no status that a client can cause counts as an outage, and no
# lack of this machine's resources.
UNREACHABLE_STATUSES: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
_OWN_ERRNOS: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
        *(errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EAGAIN),  # all local ports are in use
        *(errno.EPERM, errno.EACCES),  # for example, this machine's table of connections is full
        *(socket.EAI_MEMORY, getattr(socket, "EAI_SYSTEM", socket.EAI_MEMORY)),
    }
)


class Response(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(eq=False)
class Question:
    """A request to wxauth. A thread sends it, and others wait for `completion`."""

    url: str
    token: str | None = field(repr=False)
    called_at: float
    began_at: float | None = None
    response: Response | None = None  # set before the body is read, which may take too long
    error: Exception | None = None
    completion: Future[None] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.completion.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel it

    def send(self, client: httpx.Client, *, timeout: float, timer: Callable[[], float]) -> None:
        """Send the question now, and complete it."""
        self.began_at = timer()
        deadline = self.began_at + timeout
        try:
            try:
                self._get(client, deadline, timer)
            except (httpx.RemoteProtocolError, httpx.NetworkError) as exc:
                if not _ended_without_response(exc):
                    raise
                self._get(client, deadline, timer)  # wxauth has closed the idle connection meanwhile
        except Exception as exc:
            self.error = exc
        finally:
            self.completion.set_result(None)

    def _get(self, client: httpx.Client, deadline: float, timer: Callable[[], float]) -> None:
        # `iter_raw` does not decompress, because the result could have any size.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        remaining = max(deadline - timer(), 0.001)  # a socket needs a positive timeout
        with client.stream("GET", self.url, headers=headers, timeout=remaining) as response:
            self.response = Response(response.status_code, response.headers, b"")
            body = bytearray()
            with suppress(httpx.HTTPError):  # the status decides, even without a body
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > _MAX_PROBLEM_BYTES or timer() > deadline:
                        break
            self.response = Response(response.status_code, response.headers, bytes(body))


def is_unreachable(error: Exception) -> bool:
    """Return whether this error means that wxauth could not be reached, or sent no response in time."""
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return False  # for example, a wrong certificate is a fault of the configuration
        if isinstance(cause, OSError) and cause.errno in _OWN_ERRNOS:
            return False
    if isinstance(error, httpx.PoolTimeout):
        return False  # it was never sent
    is_late = isinstance(error, (httpx.TimeoutException, TimeoutError))
    return is_late or isinstance(error, httpx.NetworkError) or _ended_without_response(error)


def _ended_without_response(error: Exception) -> bool:
    # httpx has no class for this error, so its text, which is httpcore's, is compared.
    is_end = isinstance(error, httpx.RemoteProtocolError) and "without sending a response" in str(error)
    return is_end or isinstance(error, (httpx.ReadError, httpx.WriteError))
