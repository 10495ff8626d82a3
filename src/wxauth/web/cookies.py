"""The cookies of a request, which `Edge` takes out of the header fields, so that nothing else parses them.

Before Python 3.11.10 and 3.12.6, Starlette's `request.cookies` takes seconds for some kilobytes of backslashes
(CVE-2024-7592). It also chooses one of several cookies with the same name.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from wxauth_guard.errors import InvalidRequest

_COOKIES_KEY: Final = "wxauth.cookies"
# Any other space belongs to the name. A neighbouring domain can set a cookie whose name has a no-break space before
# `__Host-`, and this cookie must not count as wxauth's.
_SPACE: Final = " \t"


def move_cookies(scope: Scope, cookies: bytes) -> None:
    """Move the cookies from the header fields to the scope, where `cookie_in` reads them."""
    scope[_COOKIES_KEY] = cookies
    scope["headers"] = [field for field in scope["headers"] if field[0] != b"cookie"]


def cookie_in(request: Request, name: str) -> str | None:
    """Return the value of a cookie exactly as the browser sent it. wxauth's own cookies need no unquoting.

    Raises: InvalidRequest, if there are several cookies of this name. Another site under the same domain may have set
        one of them, and wxauth cannot tell which one.
    """
    candidates = _pairs_with(name.encode(), request.scope.get(_COOKIES_KEY, b""))
    pairs = (pair.decode("latin-1").partition("=") for pair in candidates)
    values = [value.strip(_SPACE) for key, _, value in pairs if key.strip(_SPACE) == name]
    if len(values) > 1:
        raise InvalidRequest(f"Cookie must contain only one {name}", status=HTTPStatus.BAD_REQUEST)
    return values[0] if values else None


def _pairs_with(name: bytes, header: bytes) -> Iterator[bytes]:
    # The header may contain 64 KiB of cookies of all sites under the same domain. Splitting it would take 5 ms.
    end = -1
    while (found := header.find(name, end + 1)) != -1:
        begin = max(header.rfind(b";", end + 1, found), end) + 1
        end = header.find(b";", found)
        if end == -1:
            end = len(header)
        yield header[begin:end]
