"""The guard: services in Python import it to accept wxauth's access tokens.

guard = BearerGuard(issuer="https://auth.example.com", audience="wxauth")

@app.get("/orders")
async def orders(user: Annotated[Principal, Depends(guard)]): ...

app = BearerMiddleware(app, guard, public=["/healthz"])  # or, for any ASGI app, as middleware
app = BearerWSGIMiddleware(app, guard, public=["/healthz"])  # for any WSGI app
app = BearerMiddleware(app, guard, optional=True)  # beside open pages and other logins, which send no Bearer token

user = await guard.verify(guard.bearer_token(request.headers.get("Authorization")))  # in any other framework
user = await guard.find_user(request.headers.get("Authorization"))  # or None, without a Bearer token
require_roles(user, "clerk")

guard = BearerGuard(issuer="https://auth.example.com", audience="https://mcp.example.com/mcp", scopes=["orders:read"])
guard.requires("orders:write")  # a guard that needs this scope too, for wherever a guard is used
app.routes.append(guard.metadata_route(resource_name="Orders"))  # names the issuer of tokens to clients
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from wxauth_guard.asgi import BearerMiddleware
from wxauth_guard.bearer import bearer_token, require_roles
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientScope, MissingToken, WxAuthError
from wxauth_guard.problems import problem
from wxauth_guard.wsgi import BearerWSGIMiddleware

if TYPE_CHECKING or find_spec("fastapi") is not None:
    from wxauth_guard.fastapi import BearerGuard
else:  # for WSGI and other frameworks: docs/decisions/0013-the-guard-without-fastapi.md
    from wxauth_guard.bearer import Guard as BearerGuard

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
