"""What the middlewares and the frameworks' decorators share: who may enter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from types import FunctionType
from typing import Any, Final, TypeVar

from wxauth_guard.bearer import Guard, as_set, require_roles
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, InsufficientScope, MissingToken, WxAuthError
from wxauth_guard.problems import AnyHeaders

# A guarded view can raise these errors about its own user. Any other error might be about another token.
ABOUT_USER: Final = (MissingToken, InsufficientRole, InsufficientScope)

# This attribute of a view lists the functions that guard it. A guarded class of views has it, too.
_GUARDED_BY: Final = "_wxauth_guarded_by"

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
    setattr(view_class, _GUARDED_BY, ())
    return view_class


def note_guard(view: Any, guarded: Callable[..., Any]) -> None:
    if isinstance(view, FunctionType):
        vars(view).setdefault(_GUARDED_BY, []).append(guarded)


def check_not_open(view: Any) -> None:
    """Raise RuntimeError if a decorator of ours stands above the one that registered this view."""
    chain = [view]
    while hasattr(chain[-1], "__wrapped__"):
        chain.append(chain[-1].__wrapped__)
    noted = [vars(each)[_GUARDED_BY] for each in chain if _GUARDED_BY in getattr(each, "__dict__", ())]
    view_class = getattr(view, "view_class", None)
    is_of_guarded_class = _GUARDED_BY in getattr(view_class, "__dict__", ())
    if not all(any(guard in chain for guard in guards) for guards in noted) or (is_of_guarded_class and not noted):
        raise open_view(view_class or view)


def open_view(view: Any) -> RuntimeError:
    return RuntimeError(
        f"{view.__qualname__} is open: place @bearer(...) below the decorator that registers the route, or in the"
        " `decorators` of a class that registers itself"
    )


def is_preflight(method: str | None, headers: AnyHeaders) -> bool:
    """Return whether a browser asks which requests a page of another origin may send. It sends no token then."""
    return (
        method == "OPTIONS"
        and headers.get("Origin") is not None
        and headers.get("Access-Control-Request-Method") is not None
    )


def handled_classes(error_class: type[WxAuthError]) -> list[type[WxAuthError]]:
    """Return the classes for which a project can register a handler of its own that answers such a refusal."""
    return [each for each in error_class.__mro__ if issubclass(each, WxAuthError)]
