"""The guard in Django REST framework, as an authentication class and an exception handler."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from wxauth_guard.bearer import Guard
from wxauth_guard.claims import Principal
from wxauth_guard.errors import MissingToken, WxAuthError
from wxauth_guard.problems import problem


class BearerAuthentication(BaseAuthentication):
    """The class to put first in `DEFAULT_AUTHENTICATION_CLASSES`, as a subclass with the attribute `guard`.

    If a request has no Bearer token, the next class decides. For roles, call `require_roles(request.user.wxauth, …)`
    in the view, and set `EXCEPTION_HANDLER` to `wxauth_guard.rest_framework.exception_handler`.
    """

    guard: ClassVar[Guard]

    def authenticate(self, request: Request) -> Any:
        """Return the user of the request's token, or None if it has none."""
        user = self.guard.find_user_sync(request.headers.get("Authorization"))
        return None if user is None else (User(user), None)

    def authenticate_header(self, request: Request) -> Any:
        """Return the challenge. Without one, other classes' refusals would return 403."""
        return "Bearer"


class User:
    """A `Principal` with the attributes that throttles and permissions read. It has no permissions in Django."""

    is_active = is_authenticated = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, principal: Principal) -> None:
        self.wxauth, self.pk = principal, principal.id

    def __getattr__(self, name: str) -> Any:
        if name == "wxauth":  # while `copy` or `pickle` makes a user
            raise AttributeError(name)
        return getattr(self.wxauth, name)

    def has_perm(self, permission: str, obj: object = None) -> bool:
        """Return False: permissions of Django belong to its own users."""
        return False

    has_perms = has_module_perms = has_perm


def exception_handler(error: Exception, context: dict[str, Any]) -> Any:
    """Answer a `WxAuthError` with a problem document, and any other error as REST framework does.

    If the project has a handler of its own, call this one for a `WxAuthError` there.
    """
    if isinstance(error, NotAuthenticated):
        error = MissingToken("this view needs a user")
    # Imported here, because the module imports the classes that the settings name.
    from rest_framework.views import exception_handler as answer, set_rollback

    if not isinstance(error, WxAuthError):
        return answer(error, context)
    set_rollback()
    body, status, headers = problem(error, context["request"].headers)
    return HttpResponse(body, status=status, headers=headers)
