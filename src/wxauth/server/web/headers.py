"""Header fields that are read here and not by FastAPI: cookies, and `If-None-Match`.

`http.cookies` takes seconds for some kilobytes of backslashes (CVE-2024-7592, in Python before 3.11.10 and 3.12.6), and
FastAPI has it parse the cookies of each request, whether or not a route reads them.
"""

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import InvalidRequest

COOKIES_KEY: Final = "wxauth.cookies"
"""The key in the ASGI scope to which the edge moves the `Cookie` header, so that FastAPI does not see it."""
MAX_COOKIES: Final = 4096
"""Bytes of all `Cookie` headers of a request. If there are more, they are ignored."""

_SPACE: Final = " \t"
"""What browsers may send around a name. Any other space is part of it: a no-break space before `__Host-` makes a name
that a neighbour domain may set."""


def cookie_in(request: Request, name: str) -> str | None:
    """The value of a cookie as it was sent: ours need no unquoting.

    Raises: InvalidRequest, if there are several of this name. One of them may have been set by a neighbour under the
        same domain, and nothing shows which.
    """
    header: bytes = request.scope.get(COOKIES_KEY, b"")
    if len(header) > MAX_COOKIES:
        return None
    pairs = (pair.partition("=") for pair in header.decode("latin-1").split(";"))
    values = [value.strip(_SPACE) for key, _, value in pairs if key.strip(_SPACE) == name]
    if len(values) > 1:
        raise InvalidRequest(f"Cookie must have one {name}", status=400)
    return values[0] if values else None


def cacheable_response(
    request: Request, content: bytes, *, etag: str, headers: Mapping[str, str], media_type: str
) -> Response:
    """The content with its `ETag`; 304 if the request's `If-None-Match` names that ETag (RFC 9110, section 13.1.2)."""
    headers = {**headers, "ETag": etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
