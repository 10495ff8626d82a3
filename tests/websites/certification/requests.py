"""Requests that a test of certification sends."""

from jose import jwt


def request_object(**claims: str) -> str:
    return jwt.encode(claims, "", algorithm="HS256").rpartition(".")[0] + "."
