"""Checks that apply to all problem documents."""

from __future__ import annotations

from typing import Any

import httpx

from wxauth_guard.errors import WxAuthError
from wxauth_guard.i18n import Text

OF_PERSONS: dict[str, list[Text]] = {}
"""Alternative titles, which tell the user what to change."""
try:
    from wxauth.errors import NICKNAME_REFUSED, PICTURE_OF_ANOTHER_KIND, PICTURE_TOO_LARGE
except ModuleNotFoundError:
    pass  # the guard's tests also run without the service
else:
    OF_PERSONS["invalid_request"] = [NICKNAME_REFUSED, PICTURE_OF_ANOTHER_KIND]
    OF_PERSONS["payload_too_large"] = [PICTURE_TOO_LARGE]


def kinds_of(base: type[WxAuthError]) -> list[type[WxAuthError]]:
    """Return all subclasses, direct and indirect."""
    return [kind for child in base.__subclasses__() for kind in (child, *kinds_of(child))]


TITLES: dict[str, list[Text]] = {}
for _kind in kinds_of(WxAuthError):
    if hasattr(_kind, "code"):
        TITLES.setdefault(_kind.code, []).append(_kind.title)


def problem_of(answer: httpx.Response, code: str, status: int) -> dict[str, Any]:
    """Return the problem document after checking the properties that all problems share."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    language = answer.headers["content-language"]
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:wxauth:problem:{code}"
    if code != "sign_up_refused":  # this problem can have a title of the operator's own service
        titles = [*TITLES[code], *OF_PERSONS.get(code, ())]
        assert document["title"] in [title.translated(language) for title in titles]
    assert (document["status"], document["request_id"]) == (status, answer.headers["x-request-id"])
    assert document["detail"]
    expected = {"type", "title", "status", "detail", "code", "request_id"}
    if code == "invalid_request":
        expected |= {"errors"}
        assert all(error.keys() == {"field", "message"} for error in document["errors"])
    if code == "account_leaving":
        expected |= {"erase_at"}
    optional = {"wechat_errcode"} | ({"until"} if code == "account_disabled" else set())
    assert document.keys() - optional == expected
    return document
