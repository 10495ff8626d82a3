"""The forwarding of WeChat's messages to the operator's own handler, and of the handler's response to WeChat."""

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import Final

import httpx

from wxauth.core.metrics import Histogram
from wxauth.core.services import part
from wxauth.errors import PushNotForwarded
from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.connection import HttpAnswer
from wxauth.outbound.receivers import USER_AGENT
from wxauth.outbound.transport import ANSWER

MAX_FORWARDED_AT_ONCE: Final = 64
FORWARDED_HEADER: Final = "Wxauth-Forwarded"  # two services that forward messages to each other would cause a loop
FORWARD_SECONDS: Final = Histogram(
    "wxauth_push_forward_seconds",
    "Duration of handing a message on to an app's push_forward.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4),
)

_FIELD_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")  # RFC 9110, section 5.5: no control character except the tab


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """What wxauth returns to WeChat: by default, that the message was received."""

    content: bytes = b"success"
    content_type: str | None = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class PushRequest:
    """A request as WeChat sent it."""

    query: bytes  # still encoded
    content_type: bytes | None
    is_forwarded: bool
    body: bytes


@part
class PushForwarding:
    """The part that forwards messages to the operator's handlers. `transport` connects only to allowed addresses."""

    transport: httpx.AsyncBaseTransport
    # Each app has its own limit, so that a slow handler does not delay the messages of other apps.
    _limits: defaultdict[str, asyncio.Semaphore] = field(
        init=False, default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(MAX_FORWARDED_AT_ONCE))
    )

    async def forward(self, app_id: str, request: PushRequest, *, url: str, deadline: float) -> PushAnswer:
        """Forward a message to the handler of its app. `deadline` is a time of the event loop's clock."""
        if request.is_forwarded:
            raise PushNotForwarded(f"the message was already forwarded: it has the header {FORWARDED_HEADER}")
        limit = self._limits[app_id]
        if limit.locked():  # the message is not lost, because WeChat sends it again
            raise PushNotForwarded(f"{MAX_FORWARDED_AT_ONCE} messages of this app are already being forwarded")
        started = perf_counter()
        try:
            async with limit, asyncio.timeout_at(deadline):
                return await send_to_handler(self.transport, url, request)
        except TimeoutError:
            raise _not_forwarded(_("no response in time")) from None
        finally:
            FORWARD_SECONDS.observe(perf_counter() - started)


async def send_to_handler(
    transport: httpx.AsyncBaseTransport, url: str, request: PushRequest, *, method: str = "POST"
) -> PushAnswer:
    """Send a request to an app's `push_forward`. WeChat verifies a URL with GET.

    Raises: PushNotForwarded, also for a status other than 200, and for a compressed response.
    """
    if request.content_type is not None and not _FIELD_VALUE.fullmatch(request.content_type):
        raise PushNotForwarded("the Content-Type contains control characters")
    headers = [
        (FORWARDED_HEADER.encode(), b"1"),
        (b"Accept", b"*/*"),
        (b"User-Agent", USER_AGENT.encode()),
        (b"Accept-Encoding", b"identity"),
    ]
    if request.content_type is not None:
        headers.append((b"Content-Type", request.content_type))
    target = _target_of(httpx.URL(url), request.query)
    forwarded = httpx.Request(method, url, headers=headers, content=request.body, extensions={"target": target})
    try:
        response = await transport.handle_async_request(forwarded)
    except httpx.RequestError as exc:
        raise _not_forwarded(exc.args[0]) from None  # the transport's errors have translatable texts
    answer: HttpAnswer = response.extensions[ANSWER]
    if answer.status != HTTPStatus.OK:
        raise _not_forwarded(_("its status was {n}", n=answer.status))
    if answer.is_encoded:
        raise _not_forwarded(_("the response was compressed"))
    return PushAnswer(answer.body, answer.content_type)


def _target_of(url: httpx.URL, query: bytes) -> bytes:
    # The query is not appended to the URL, because httpx would change the spelling of WeChat's query.
    if url.query:
        return url.raw_path + b"&" + query
    if b"?" in url.raw_path:  # the `push_forward` ends with a question mark that no query follows
        return url.raw_path + query
    return url.raw_path + b"?" + query


def _not_forwarded(reason: str) -> PushNotForwarded:
    return PushNotForwarded(_("{name}: {rule}", name="push_forward", rule=reason))
