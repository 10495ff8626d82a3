"""The names that `wxauth_guard` exports. The package imports this module when one of these names is first requested."""

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
else:  # services in Flask or Django need no FastAPI: docs/contribute/decisions/0013-the-guard-without-fastapi.md
    from wxauth_guard.bearer import Guard as BearerGuard

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
