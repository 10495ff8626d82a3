"""A small WSGI app that needs no framework, for tests of the guard."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Optional

from wxauth_guard import Principal

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def who(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Respond with the user's openid, or with "nobody" if there is no user."""
    user: Optional[Principal] = environ.get("wxauth.user")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(user.openid if user else "nobody").encode()]
