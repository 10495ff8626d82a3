"""The function that sends a message once to the server of a webhook or site, and the outcome of the message."""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import httpx

from wxauth.i18n import lazy_gettext as _
from wxauth.outbound.connection import HttpAnswer
from wxauth.outbound.receivers import USER_AGENT
from wxauth.outbound.transport import ANSWER

MAX_ANSWER_BYTES: Final = 4096
"""The maximum number of bytes that wxauth reads of a response body.

If the body is longer, wxauth closes the connection. This does not change the outcome, which depends on the status.
"""
BODY_SECONDS: Final = 1.0
"""The longest time, in seconds, for reading the body of a response.

wxauth ignores the body, and reads a short one only so that it can reuse the connection.
"""


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """The outcome of sending a message: either the status of the response, or the reason why there is no response."""

    status: int | None
    """The status of the response; None if there is no response."""
    milliseconds: int
    """The time, in milliseconds, from the start of the request to the status of the response, or to the failure."""
    error: str | None = None
    """A short reason why there is no response; None if there is a response."""
    retry_after: str | None = None
    """The value of the `Retry-After` header; None if there is no such header."""
    location: str | None = None
    """The target of a redirect, as the receiver has sent it; None if the response is no redirect, or names no target.

    wxauth does not follow redirects.
    """

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver has accepted the message."""
        return self.status is not None and 200 <= self.status < 300


async def send(
    transport: httpx.AsyncBaseTransport, url: str, *, content: bytes, headers: dict[str, str], patience: float
) -> SendOutcome:
    """POST a message once, and return the outcome. A failure is returned, not raised.

    Wait at most `patience` seconds for the status of the response.
    """
    started_at = perf_counter()
    response: httpx.Response | None = None
    error: str | None = None
    status_at: float | None = None
    status_timeout = asyncio.timeout(patience)

    def note_status(_status: int) -> float:
        """End the limit of `patience`, because the status has arrived. Return how many seconds the body may take."""
        nonlocal status_at
        status_at = perf_counter()
        status_timeout.reschedule(None)
        return BODY_SECONDS

    try:
        request = httpx.Request(
            "POST",
            url,
            content=content,
            headers={**headers, "accept": "*/*", "user-agent": USER_AGENT},
            extensions={"on_status": note_status, "max_body": MAX_ANSWER_BYTES},
        )
        async with status_timeout:
            response = await transport.handle_async_request(request)
    except TimeoutError:
        error = _("no response in {n:g} s", n=patience)
    except httpx.TransportError as exc:
        error = exc.args[0]  # `str(exc)` would translate the text now, into one language
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: the host name cannot be encoded
        error = _("the URL cannot be used")
    milliseconds = round(((status_at or perf_counter()) - started_at) * 1000)
    if response is None:
        return SendOutcome(None, milliseconds, error)
    answer: HttpAnswer = response.extensions[ANSWER]
    location = answer.location if response.is_redirect else None
    return SendOutcome(answer.status, milliseconds, retry_after=answer.retry_after, location=location)
