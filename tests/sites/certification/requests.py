"""Requests that a certification test sends."""

from jose import jwt


def request_object(**claims: str) -> str:
    return jwt.encode(claims, "", algorithm="HS256").rpartition(".")[0] + "."
