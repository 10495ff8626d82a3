"""Errors as HTTP responses in `application/problem+json` (RFC 9457). The service and the guards share this module."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, overload

from wxauth_guard.errors import WxAuthError
from wxauth_guard.i18n import SOURCE, find_language, translate
from wxauth_guard.json_texts import to_json

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.websockets import WebSocket

# The service's own middleware stores a request's id under this key of the ASGI scope.
REQUEST_ID_KEY: Final = "wxauth.request_id"

POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
# This ASGI extension lets an app send a response to a WebSocket handshake.
WEBSOCKET_DENIAL: Final = "websocket.http.response"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_ACCEPT_LANGUAGE: Final = 1024
# This is a language range as in RFC 9110, section 12.5.4, but also with `_` in the tag, as in zh_CN.
_LANGUAGE_RANGE: Final = re.compile(
    r"\s*(?P<tag>[A-Za-z]{1,8}(?:[-_][A-Za-z0-9_-]*)?)\s*(?:;\s*q\s*=\s*(?P<quality>[01](?:\.\d{0,3})?)\s*)?"
)
# WeChat's user agent can name the language that the user has chosen in WeChat.
_WECHAT_USER_AGENT: Final = re.compile(r"MicroMessenger(?:.*\bLanguage/(?P<tag>[\w-]+))?")


class AnyHeaders(Protocol):
    """The header fields of a request in any framework. Names are matched regardless of case."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header field; None if the request lacks the field."""


class ProblemAnswer(NamedTuple):
    """A response with a problem document.

    Flask accepts this tuple as a response, and Sanic's function `raw` accepts its items as arguments.
    """

    body: bytes
    status: int
    headers: dict[str, str]

    @property
    def document(self) -> dict[str, Any]:
        """The members of the body, for a service that has its own format for errors."""
        document: dict[str, Any] = json.loads(self.body)
        return document


def accepted_request_id(value: str | None) -> str:
    """Return the caller's `X-Request-ID` if its form is valid; otherwise a new id."""
    if value is not None and _REQUEST_ID.fullmatch(value):
        return value
    return os.urandom(16).hex()


def preferred_language(headers: Headers) -> str:
    """Return the language that `Accept-Language` prefers among the languages with texts; English if it names none.

    `wx.request` sends no `Accept-Language`, and some programs send `*`. In these cases, the language in WeChat's user
    agent is returned, or Chinese if the user agent is WeChat's but names no language.
    """
    return _language(headers.getlist("accept-language"), headers.get("user-agent", ""))


def _language(accept_language: Iterable[str], user_agent: str) -> str:
    ranges = ",".join(accept_language)[:_MAX_ACCEPT_LANGUAGE].split(",")
    specific_ranges = [text for text in ranges if text.partition(";")[0].strip() not in ("", "*")]
    if not specific_ranges:
        wechat = _WECHAT_USER_AGENT.search(user_agent)
        language = None if wechat is None else find_language(wechat["tag"] or "zh")
        return language or SOURCE
    qualities_and_tags = []
    for text in specific_ranges:
        match = _LANGUAGE_RANGE.fullmatch(text)
        if match is not None:
            qualities_and_tags.append((float(match["quality"] or 1), match["tag"]))
    # Tags of equal quality stay in the order of the header.
    for quality, tag in sorted(qualities_and_tags, key=lambda pair: pair[0], reverse=True):
        language = find_language(tag)
        if quality > 0 and language is not None:
            return language
    return SOURCE


def problem_document(error: WxAuthError, *, language: str, request_id: str) -> dict[str, Any]:
    """Return the members of RFC 9457, wxauth's own members `code` and `request_id`, and the members of the error.

    Only the `title` is translated into `language`.
    """
    return {
        "type": f"urn:wxauth:problem:{error.code}",
        "title": translate(error.title, language),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        **error.members(),
    }


def problem(error: WxAuthError, headers: AnyHeaders) -> ProblemAnswer:
    """Return the response to a failed request with these headers of any framework, in the caller's language."""
    request_id = accepted_request_id(headers.get("X-Request-ID"))
    language = _language([headers.get("Accept-Language") or ""], headers.get("User-Agent") or "")
    response = _translated_answer(error, language, request_id)
    response.headers["X-Request-ID"] = request_id
    return response


def asgi_problem(error: WxAuthError, scope: Mapping[str, Any]) -> ProblemAnswer:
    """Return the response to a failed ASGI request, in the caller's language."""
    stored_id: str | None = scope.get(REQUEST_ID_KEY)
    request_id = stored_id or accepted_request_id(_first_value(scope, b"x-request-id"))
    language = _language(header_values(scope, b"accept-language"), _first_value(scope, b"user-agent") or "")
    response = _translated_answer(error, language, request_id)
    if stored_id is None:  # otherwise, the service's own middleware adds the header to each response
        response.headers["X-Request-ID"] = request_id
    return response


def problem_response(error: WxAuthError, scope: Mapping[str, Any]) -> Response:
    """Return the response of `asgi_problem`, for Starlette and FastAPI."""
    from starlette.responses import Response

    body, status, headers = asgi_problem(error, scope)
    return Response(body, status, headers)


def header_values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    """Return the values of a header field, named in lower case, in an ASGI request."""
    return [value.decode("latin-1") for field, value in scope["headers"] if field == name]


def _first_value(scope: Mapping[str, Any], name: bytes) -> str | None:
    return next(iter(header_values(scope, name)), None)


def _translated_answer(error: WxAuthError, language: str, request_id: str) -> ProblemAnswer:
    """Return the response in this language, without `X-Request-ID`."""
    headers = {
        **error.headers(),
        "Cache-Control": "no-store",
        "Content-Language": language,
        "Content-Type": "application/problem+json",
    }
    document = problem_document(error, language=language, request_id=request_id)
    return ProblemAnswer(to_json(document), error.status, headers)


@overload
async def answer_problem(connection: WebSocket, error: Exception) -> None: ...


@overload
async def answer_problem(connection: HTTPConnection, error: Exception) -> Response | None: ...


async def answer_problem(connection: HTTPConnection, error: Exception) -> Response | None:
    """Handle a `WxAuthError` of an HTTP or WebSocket route, as an exception handler of Starlette and FastAPI.

    If a WebSocket has not been accepted yet, and the server can respond to its handshake, the client gets the problem
    document. Any other WebSocket is closed with the status code 1008. For a WebSocket, the function returns None.
    """
    from starlette.websockets import WebSocket, WebSocketState

    assert isinstance(error, WxAuthError)  # Starlette's type of a handler allows no narrower parameter
    if not isinstance(connection, WebSocket):
        return problem_response(error, connection.scope)
    is_handshake = connection.application_state is WebSocketState.CONNECTING
    if is_handshake and WEBSOCKET_DENIAL in connection.scope.get("extensions", {}):
        # The handler sends the response itself, because Starlette before 0.41 ignores the return value of a WebSocket's
        # handler.
        await connection.send_denial_response(problem_response(error, connection.scope))
        return None
    if WebSocketState.DISCONNECTED not in (connection.client_state, connection.application_state):
        await connection.close(POLICY_VIOLATION, error.code)
    return None
