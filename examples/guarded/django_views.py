from functools import wraps

from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from wxauth_guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")


def guarded(view, *roles):
    @wraps(view)
    def guarded_view(request, *args, **captured):
        try:
            request.wxauth = guard.find_user_sync(request.headers.get("Authorization"))
            require_roles(request.wxauth, *roles)
        except WxAuthError as refusal:
            return refuse(refusal, request)
        return view(request, *args, **captured)

    return csrf_exempt(guarded_view)


def refuse(refusal, request):
    body, status, headers = problem(refusal, request.headers)
    return HttpResponse(body, status=status, headers=headers)


def middleware(get_response):
    """Set `request.wxauth` for public views that show who is logged in. It is None without a token, as in the admin."""

    def find_user(request):
        try:
            request.wxauth = guard.find_user_sync(request.headers.get("Authorization"))
        except WxAuthError as refusal:
            return refuse(refusal, request)
        return get_response(request)

    return find_user


def orders(request):
    return JsonResponse({"user": str(request.wxauth.id), "openid": request.wxauth.openid})
