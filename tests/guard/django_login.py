"""The middleware and the login of an existing Django project, whose settings name them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

ALLOWED = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "Authorization"}


def allow_origins(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer preflight requests, as the middleware of django-cors-headers does."""

    def answer(request: HttpRequest) -> HttpResponse:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = HttpResponse(status=200) if is_preflight else get_response(request)
        for name, value in ALLOWED.items():
            response.headers[name] = value
        return response

    return answer


def guarded(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Apply the middleware of the Django example if this example is loaded. The examples are served one by one."""

    def answer(request: HttpRequest) -> HttpResponse:
        shown = sys.modules.get("django_example")
        response: HttpResponse = shown.middleware(get_response)(request) if shown else get_response(request)
        return response

    return answer


class StaffLogin(BaseAuthentication):
    """The project's own login for staff."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Token":
            return None
        if token == "unknown":
            raise AuthenticationFailed("who is that?")
        from django.contrib.auth.models import User

        return User(pk=7, username=token, is_staff=token == "of-staff"), None
