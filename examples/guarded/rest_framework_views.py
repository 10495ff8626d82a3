from django.http import HttpResponse
from rest_framework import authentication, response, views

from wxauth.guard import BearerGuard, WxAuthError, problem

guard = BearerGuard(issuer="http://127.0.0.1:8000")


class WxAuth(authentication.BaseAuthentication):
    def authenticate(self, request):
        return guard.verify_sync(guard.bearer_token(request.headers.get("Authorization"))), None


def refuse(error, context):
    if not isinstance(error, WxAuthError):
        return views.exception_handler(error, context)
    body, status, headers = problem(error, context["request"].headers)
    return HttpResponse(body, status=status, headers=headers)


class Orders(views.APIView):
    authentication_classes = (WxAuth,)

    def get(self, request):
        return response.Response({"user": str(request.user.id), "openid": request.user.openid})
