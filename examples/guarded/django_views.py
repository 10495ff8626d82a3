from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from wxauth.guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")


def guarded(view, *roles):
    def guarded_view(request, **captured):
        try:
            request.wxauth = guard.verify_sync(guard.bearer_token(request.headers.get("Authorization")))
            require_roles(request.wxauth, *roles)
        except WxAuthError as refusal:
            body, status, headers = problem(refusal, request.headers)
            return HttpResponse(body, status=status, headers=headers)
        return view(request, **captured)

    return csrf_exempt(guarded_view)


def orders(request):
    return JsonResponse({"user": str(request.wxauth.id), "openid": request.wxauth.openid})
