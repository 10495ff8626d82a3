"""The two logins of the shop in REST framework, which its settings name."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tests.guard.shops import GUARD
from wxauth_guard.rest_framework import BearerAuthentication


class Login(BearerAuthentication):
    guard = GUARD


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
