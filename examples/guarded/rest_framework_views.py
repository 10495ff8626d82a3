from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated

from wxauth_guard import BearerGuard, MissingToken, Principal, WxAuthError, problem

guard = BearerGuard(issuer="http://127.0.0.1:8000")


class WxAuth(BaseAuthentication):
    """The class to put first in `DEFAULT_AUTHENTICATION_CLASSES`. Without a Bearer token, the next class decides."""

    def authenticate(self, request):
        user = guard.find_user_sync(request.headers.get("Authorization"))
        return user and (User(user), None)

    def authenticate_header(self, request):
        return "Bearer"  # otherwise, your own AuthenticationFailed and NotAuthenticated would return 403


class User:
    """A `Principal` with the attributes that throttles and permissions read. It has no permissions in Django."""

    is_active = is_authenticated = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, principal: Principal):
        self.wxauth, self.pk = principal, principal.id

    def __getattr__(self, name):
        return getattr(self.wxauth, name)

    def has_perm(self, permission, obj=None):
        return False

    has_perms = has_module_perms = has_perm


def refuse(error, context):
    """The `EXCEPTION_HANDLER`. If you have a handler, call it here instead of REST framework's handler."""
    if isinstance(error, NotAuthenticated):
        error = MissingToken("this view needs a user")
    if not isinstance(error, WxAuthError):
        from rest_framework.views import exception_handler  # imported here, because it imports the default classes

        return exception_handler(error, context)
    body, status, headers = problem(error, context["request"].headers)
    return HttpResponse(body, status=status, headers=headers)
