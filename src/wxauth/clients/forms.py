"""Forms in the bodies of requests."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from wxauth_guard.errors import FieldError, InvalidRequest

FORM_TYPE: Final = "application/x-www-form-urlencoded"
# Decoding 64 KiB of percent signs would take 35 ms, in which the process handles no other request.
MAX_ESCAPES: Final = 8192
_MAX_FORM_FIELDS: Final = 128  # because the process handles no other request while it parses a form


def media_type_of(request: Request, *, default: str) -> str:
    """Return the media type of a request's body, in lower case; `default` if the request has no `Content-Type`."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


async def form_values(request: Request, name: str) -> list[str]:
    """Return the non-empty values of a field in a form.

    Raises: InvalidRequest, if the form is not UTF-8, contains too many fields or percent signs, or arrives too late;
        PayloadTooLarge.
    """
    # Each call parses the whole form, which is quick because of the two limits.
    form = await request.body()
    if form.count(b"&") >= _MAX_FORM_FIELDS:
        raise InvalidRequest.of("body", f"Must have at most {_MAX_FORM_FIELDS} fields")
    if form.count(b"%") > MAX_ESCAPES:
        raise InvalidRequest.of("body", f"Must have at most {MAX_ESCAPES} percent-encoded characters")
    try:
        return [value for field, value in parse_qsl(form.decode()) if field == name]
    except ValueError:
        raise InvalidRequest("the body isn't UTF-8", errors=[FieldError("body", "Not UTF-8")]) from None
