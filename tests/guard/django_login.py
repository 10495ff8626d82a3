"""A Django project that was there before: its middleware and its own login, which its settings name."""

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
    """The middleware that answers preflights, as django-cors-headers does."""

    def answer(request: HttpRequest) -> HttpResponse:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = HttpResponse(status=200) if is_preflight else get_response(request)
        for name, value in ALLOWED.items():
            response.headers[name] = value
        return response

    return answer


def guarded(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The example's middleware, where the project has it: the examples are served one after the other."""

    def answer(request: HttpRequest) -> HttpResponse:
        shown = sys.modules.get("django_example")
        response: HttpResponse = shown.middleware(get_response)(request) if shown else get_response(request)
        return response

    return answer


class StaffLogin(BaseAuthentication):
    """The project's own login."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Token":
            return None
        if token == "unknown":
            raise AuthenticationFailed("who is that?")
        from django.contrib.auth.models import User

        return User(pk=7, username=token, is_staff=token == "of-staff"), None
