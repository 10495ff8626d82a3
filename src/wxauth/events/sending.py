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

BODY_SECONDS: Final = 1.0  # the body is ignored, and read only to reuse the connection
_MAX_ANSWER_BYTES: Final = 4096  # a longer body only costs the connection: the outcome is the status


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """The outcome of sending a message: either the status of the response, or the reason why there is no response."""

    status: int | None
    milliseconds: int  # from the start of the request to the status, or to the failure
    error: str | None = None
    retry_after: str | None = None
    location: str | None = None  # where the receiver redirects, which wxauth does not follow

    @property
    def is_accepted(self) -> bool:
        return self.status is not None and httpx.codes.is_success(self.status)


async def send(
    transport: httpx.AsyncBaseTransport, url: str, *, content: bytes, headers: dict[str, str], patience: float
) -> SendOutcome:
    """POST a message once. A failure is returned, not raised. `patience` is the time for the status, in seconds."""
    started_at = perf_counter()
    response: httpx.Response | None = None
    error: str | None = None
    status_at: float | None = None
    status_timeout = asyncio.timeout(patience)

    def note_status(_status: int) -> float:
        """Return how many seconds the body may take."""
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
            extensions={"on_status": note_status, "max_body": _MAX_ANSWER_BYTES},
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
