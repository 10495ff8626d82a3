"""The guard, which services in Python import to accept wxauth's access tokens.

guard = BearerGuard(issuer="https://auth.example.com", audience="wxauth")

@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]): ...

app = BearerMiddleware(app, guard, public=["/healthz"])  # for any ASGI app
app = BearerWSGIMiddleware(app, guard, public=["/healthz"])  # for any WSGI app
app = BearerMiddleware(app, guard, optional=True)  # if some pages are open or use another login

user = await guard.verify(guard.bearer_token(request.headers.get("Authorization")))  # in any other framework
user = await guard.find_user(request.headers.get("Authorization"))  # or None, without a Bearer token
require_roles(user, "clerk")

guard = BearerGuard(issuer="https://auth.example.com", audience="https://mcp.example.com/mcp", scopes=["orders:read"])
guard.requires("orders:write")  # a second guard, which also requires this scope
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


def __getattr__(name: str) -> object:
    """Return the object with an exported name. When the first name is requested, load all exported objects (PEP 562).

    The objects are not loaded with the package, because pytest imports the package for `pytest_plugin`, and would
    otherwise start more slowly.

    Raises: AttributeError, if no exported object has this name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wxauth_guard import names

    globals().update({each: getattr(names, each) for each in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    """Return all names, including the names of objects that are not loaded yet."""
    return sorted({*globals(), *__all__})
