"""What the middlewares and the frameworks' decorators share: who may enter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, TypeVar

from wxauth_guard.bearer import Guard, as_set, require_roles
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, InsufficientScope, MissingToken, WxAuthError
from wxauth_guard.problems import AnyHeaders

# A guarded view can raise these errors about its own user. Any other error might be about another token.
ABOUT_USER: Final = (MissingToken, InsufficientRole, InsufficientScope)

_Class = TypeVar("_Class", bound=type[Any])


class Entry:
    """A guard with the roles that it requires, or one that also admits requests without a Bearer token."""

    def __init__(self, guard: Guard, roles: Iterable[str], *, optional: bool) -> None:
        self._guard = guard
        self._roles = as_set(roles)
        self._optional = optional
        if self._roles and optional:
            raise ValueError("optional admits requests without a user, and so without roles")

    async def find_user(self, *authorizations: str | None) -> Principal | None:
        if self._optional:
            return await self._guard.find_user(*authorizations)
        principal = await self._guard.verify(self._guard.bearer_token(*authorizations))
        require_roles(principal, *self._roles)
        return principal

    def find_user_sync(self, *authorizations: str | None) -> Principal | None:
        if self._optional:
            return self._guard.find_user_sync(*authorizations)
        principal = self._guard.verify_sync(self._guard.bearer_token(*authorizations))
        require_roles(principal, *self._roles)
        return principal


def guard_views_of(view_class: _Class, decorate: Callable[..., Any]) -> _Class:
    """Guard what `as_view` of this class and of its subclasses returns, whatever `decorators` these have."""
    as_view = view_class.as_view.__func__

    @wraps(as_view)
    def guarded_as_view(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        return decorate(as_view(cls, *args, **kwargs))

    view_class.as_view = classmethod(guarded_as_view)
    return view_class


def is_preflight(method: str | None, headers: AnyHeaders) -> bool:
    """Return whether a browser asks which requests a page of another origin may send. It sends no token then."""
    return (
        method == "OPTIONS"
        and headers.get("Origin") is not None
        and headers.get("Access-Control-Request-Method") is not None
    )


def handled_classes(refusal: WxAuthError) -> list[type[WxAuthError]]:
    """Return the classes for which a project can register a handler of its own that answers this refusal."""
    return [each for each in type(refusal).__mro__ if issubclass(each, WxAuthError)]
