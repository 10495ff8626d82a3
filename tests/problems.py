"""Checks that apply to all failures."""

import re
from functools import cache
from typing import Any, Final

import httpx

from wxauth.errors import Title, WxAuthError


def kinds_of(base: type[WxAuthError]) -> list[type[WxAuthError]]:
    """All subclasses, direct and indirect."""
    return [kind for child in base.__subclasses__() for kind in (child, *kinds_of(child))]


TITLES: dict[str, Title] = {kind.code: kind.title for kind in kinds_of(WxAuthError) if hasattr(kind, "code")}


OF_ANY_REQUEST: Final = {"invalid_request", "method_not_allowed", "payload_too_large", "not_found"}
"""What the edge answers, too, whatever the operation."""


@cache
def _operations() -> list[tuple[str, re.Pattern[str], set[str]]]:
    """Method, path and documented failures of each operation; none where the guard's half alone is installed."""
    try:
        from tests.docs import openapi
    except ModuleNotFoundError:
        return []
    operations = []
    for path, methods in openapi()["paths"].items():
        pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path))
        for method, operation in methods.items():
            contents = [answer.get("content", {}) for answer in operation["responses"].values()]
            problems = [content.get("application/problem+json", {}) for content in contents]
            codes = {code for problem in problems for code in problem.get("examples", {})}
            operations.append((method.upper(), pattern, codes))
    return operations


def documented_failures(request: httpx.Request) -> set[str] | None:
    """The failures in the documentation of what was requested; None if it is no documented operation."""
    asked = request.method, request.url.path
    found = [codes for method, path, codes in _operations() if asked[0] == method and path.fullmatch(asked[1])]
    return set().union(*found) if found else None


def problem_of(answer: httpx.Response, code: str, status: int) -> dict[str, Any]:
    """The problem document, after checking everything that all problems have in common."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    language = answer.headers["content-language"]
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:wxauth:problem:{code}"
    if code != "sign_up_refused":  # may have the title of the operator's own service
        assert document["title"] == getattr(TITLES[code], {"en": "en", "zh-CN": "zh"}[language])
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["detail"]
    expected = {"type", "title", "status", "detail", "code", "request_id"}
    if code == "invalid_request":
        expected |= {"errors"}
        assert all(error.keys() == {"field", "message"} for error in document["errors"])
    if code == "account_leaving":
        expected |= {"erase_at"}
    optional = {"wechat_errcode"} | ({"until"} if code == "account_disabled" else set())
    assert document.keys() - optional == expected
    documented = documented_failures(answer.request)
    assert documented is None or code in OF_ANY_REQUEST or code in documented, f"{answer.request} does not list {code}"
    return document
