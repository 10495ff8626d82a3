"""Requests to `/v1/verify` in the forms that gateways send, with any method, path and query."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

VERIFY_PATH: Final = "/v1/verify"
ROLE: Final = "role"
"""The query parameter with a role that a proxy requires."""
RESOURCE: Final = "resource"
"""The query parameter with the resource whose tokens a proxy requires."""
_BODY_FIELDS: Final = frozenset({b"content-length", b"content-type", b"expect", b"transfer-encoding"})
"""The header fields that describe a body."""


class AnyRequest:
    """Middleware that turns each request to `/v1/verify`, or to a path below it, into a GET without a body.

    Envoy, Istio and Higress use the method of the client's request, and append its path and query. The client chooses
    all three, so this middleware sets the method to GET, and removes the appended path and query, before any other code
    reads them.

    There is one exception. If the path is exactly `/v1/verify/`, and the query names a role or resource, an
    administrator probably meant the query for `/v1/verify`. In this case, the middleware keeps the query, so that the
    route refuses the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the wrapped app, in the form that `_normalized` returns."""
        if scope["type"] == "http" and VERIFY_PATH in scope["path"]:  # other requests skip the exact comparisons
            scope = _normalized(scope)
        await self._app(scope, receive, send)


def _normalized(scope: Scope) -> Scope:
    """Return the scope of a GET without a body, if the request is for `VERIFY_PATH` or for a path below it.

    Return the scope of any other request unchanged.
    """
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    is_below = path.startswith(f"{VERIFY_PATH}/")
    if not is_below and path != VERIFY_PATH:
        return scope
    headers = [field for field in scope["headers"] if field[0] not in _BODY_FIELDS]
    normalized = {**scope, "method": "GET", "headers": headers}
    if is_below:
        # The appended path becomes a single segment, because the route's parameter matches only one segment.
        normalized["path"] = f"{root}{VERIFY_PATH}/-"
        normalized["raw_path"] = normalized["path"].encode()
        is_mistaken = path == f"{VERIFY_PATH}/" and _has_requirements(scope["query_string"])
        if not is_mistaken:
            normalized["query_string"] = b""
    return normalized


def _has_requirements(query: bytes) -> bool:
    """Return whether a query requires a role or a resource."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(name in (ROLE, RESOURCE) for name, _ in pairs)
