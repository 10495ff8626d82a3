"""The REST framework views of an existing project."""

from django.http import HttpResponse
from rest_framework.permissions import AllowAny, BasePermission, IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class IsClerk(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user and request.user.is_authenticated) and "clerk" in request.user.roles


class Orders(APIView):
    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user.id), "openid": request.user.openid})


class Erase(APIView):
    permission_classes = (IsClerk,)

    def delete(self, request: Request) -> Response:
        return Response(status=204)


class Staff(APIView):
    permission_classes = (IsAdminUser,)

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse("accounts")


class Welcome(APIView):
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> HttpResponse:
        openid = getattr(request.user, "openid", None)
        return HttpResponse(f"welcome, {openid}" if openid else "welcome")


orders, erase, staff, welcome = Orders.as_view(), Erase.as_view(), Staff.as_view(), Welcome.as_view()
