from django.http import HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated

from wxauth_guard import BearerGuard, InsufficientScope, MissingToken, Principal, WxAuthError, problem

guard = BearerGuard(issuer="http://127.0.0.1:8000")


class WxAuth(BaseAuthentication):
    """The first of `DEFAULT_AUTHENTICATION_CLASSES`. Without a Bearer token, the next one decides."""

    def authenticate(self, request):
        user = guard.find_user_sync(request.headers.get("Authorization"))
        if user and "scope" in user.claims:
            raise InsufficientScope("this is not for websites or agents")
        return user and (User(user), None)

    def authenticate_header(self, request):
        return "Bearer"  # without it, this project's own AuthenticationFailed and NotAuthenticated would be 403


class User:
    """A `Principal`, with what throttles and permissions ask of a user; it has none of the rights of Django's own."""

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
    """The `EXCEPTION_HANDLER`. If you have one, call it in place of REST framework's."""
    if isinstance(error, NotAuthenticated):
        error = MissingToken("this view needs a user")
    if not isinstance(error, WxAuthError):
        from rest_framework.views import exception_handler  # which imports the default classes, so not above

        return exception_handler(error, context)
    body, status, headers = problem(error, context["request"].headers)
    return HttpResponse(body, status=status, headers=headers)
