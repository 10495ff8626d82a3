"""The guard, which services in Python import to accept wxauth's access tokens.

In FastAPI, the guard is a dependency of a route:

    guard = BearerGuard(issuer="https://auth.example.com", audience="wxauth")

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(guard)]): ...

For all routes of an app, choose one of these middlewares:

    app = BearerMiddleware(app, guard, public=["/healthz"])  # for any ASGI app
    app = BearerWSGIMiddleware(app, guard, public=["/healthz"])  # for any WSGI app
    app = BearerMiddleware(app, guard, optional=True)  # if some pages are open or use another login

In any other framework, call one of these methods:

    user = await guard.verify(guard.bearer_token(request.headers.get("Authorization")))
    user = await guard.find_user(request.headers.get("Authorization"))  # None if there is no Bearer token

A guard verifies tokens offline. `guard.current` is a guard, too, and also asks wxauth, so that a ban counts at once.

To require roles in these frameworks, call `require_roles(user, "clerk")`. All these functions raise a `WxAuthError` if
the request must be refused. `problem(error, request.headers)` returns the response to such a request.

The audience can also be an OAuth resource, whose tokens have scopes (here with FastAPI or Starlette):

    audience = "https://mcp.example.com/mcp"
    guard = BearerGuard(issuer="https://auth.example.com", audience=audience, scopes=["orders:read"])
    writing_guard = guard.requires("orders:write")  # also requires this scope
    app.routes.append(guard.metadata_route(resource_name="Orders"))  # tells clients where to get tokens
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wxauth_guard.names import (
        BearerGuard,
        BearerMiddleware,
        BearerWSGIMiddleware,
        InsufficientScope,
        MissingToken,
        Principal,
        WxAuthError,
        bearer_token,
        problem,
        require_roles,
    )

__version__ = "0.1.0"
__all__ = [
    "BearerGuard",
    "BearerMiddleware",
    "BearerWSGIMiddleware",
    "InsufficientScope",
    "MissingToken",
    "Principal",
    "WxAuthError",
    "bearer_token",
    "problem",
    "require_roles",
]


# PEP 562: pytest imports the package for `pytest_plugin`, and would start more slowly if the objects were loaded now.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wxauth_guard import names

    globals().update({each: getattr(names, each) for each in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
