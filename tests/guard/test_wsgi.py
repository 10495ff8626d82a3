"""The guard's WSGI middleware sends the same responses as its ASGI middleware."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

from tests.guard.fakes import FakeIssuer, client_of
from tests.guard.wsgi_apps import who
from tests.headers import bearer
from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, BearerMiddleware, BearerWSGIMiddleware

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from starlette.types import Receive, Scope, Send


async def who_by_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    user = scope.get("user")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": (user.openid if user else "nobody").encode()})


def ask(
    guard: BearerGuard,
    path: str = "/orders",
    headers: Iterable[tuple[str, str | bytes]] = (),
    method: str = "GET",
    **options: Any,
) -> httpx.Response:
    """Return the response to a request.

    Like a server, this function joins headers of the same name and unquotes the path.
    """
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
    }
    setup_testing_defaults(environ)
    for name, sent in headers:
        value = sent.decode("latin-1") if isinstance(sent, bytes) else sent
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    head: list[Any] = []
    app = validator(BearerWSGIMiddleware(validator(who), guard, **options))
    answered = app(environ, lambda *arguments: head.extend(arguments) or bytes)  # type: ignore[func-returns-value]
    body = b"".join(answered)
    answered.close()  # type: ignore[attr-defined]
    request = httpx.Request(method, f"https://orders.test{path}")
    return httpx.Response(int(head[0].split(" ")[0]), headers=head[1], content=body, request=request)


async def test_a_refusal_is_that_of_the_asgi_middleware_to_the_letter(guard: BearerGuard, issuer: FakeIssuer) -> None:
    token = issuer.token()
    requests: dict[str, list[tuple[str, str]]] = {
        "no token": [],
        "no token, in Chinese": [("Accept-Language", "zh_CN")],
        "no token, in WeChat": [("User-Agent", "Mozilla/5.0 MicroMessenger/8.0.50 NetType/WIFI Language/zh_CN")],
        "a bad token": [("Authorization", "Bearer no")],
        "another scheme": [("Authorization", f"Basic {token}")],
        "a scheme with parameters": [("Authorization", 'Digest username="alice", realm="shop"')],
        "two tokens": [("Authorization", f"Bearer {token}")] * 2,
        "two schemes": [("Authorization", "Basic YTpi"), ("Authorization", f"Bearer {token}")],
        "no role": [("Authorization", f"Bearer {token}"), ("Accept-Language", "zh-CN,zh;q=0.9,en;q=0.8")],
    }
    asgi = client_of(BearerMiddleware(who_by_asgi, guard, roles="clerk"))
    with Sweep() as sweep:
        for name, headers in requests.items():
            with sweep.case(name):
                sent = [("X-Request-ID", "order-7"), *headers]
                expected, answer = await asgi.get("/", headers=sent), ask(guard, headers=sent, roles="clerk")
                assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
                assert dict(answer.headers) == dict(expected.headers)
    with_role = bearer(issuer.token("clerk")).items()
    assert ask(guard, headers=with_role, roles="clerk").text == "openid-alice"
    assert ask(guard, headers=with_role, roles=["auditor", "clerk"]).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/%68ealthz", 200),
        ("/%E5%81%A5%E5%BA%B7", 200),
        ("/healthz/", 401),
        ("//healthz", 401),
        ("/healthz;a", 401),
        ("/Healthz", 401),
        ("/orders/../healthz", 401),
        ("/healthz%2F", 401),
        ("/%ff", 401),
    ],
)
def test_public_paths_are_compared_exactly(guard: BearerGuard, path: str, status: int) -> None:
    assert ask(guard, path, public=["/healthz", "/健康"]).status_code == status


def test_a_public_path_has_no_user_even_if_the_environ_names_a_user(guard: BearerGuard) -> None:
    environ: WSGIEnvironment = {"PATH_INFO": "/healthz", "wxauth.user": "mallory"}
    setup_testing_defaults(environ)
    app = BearerWSGIMiddleware(who, guard, public="/healthz")
    assert b"".join(app(environ, lambda *_: bytes)) == b"nobody"


def test_a_refused_head_request_has_no_body(guard: BearerGuard) -> None:
    answer = ask(guard, method="HEAD")
    assert (answer.status_code, answer.content) == (401, b"")
    assert int(answer.headers["content-length"]) > 0


def test_an_optional_guard_knows_its_users_and_leaves_everybody_else_to_the_app(
    guard: BearerGuard, issuer: FakeIssuer
) -> None:
    for authorization, answered in (
        (None, (200, "nobody")),
        ("Basic YTpi", (200, "nobody")),
        (f"Bearer {issuer.token()}", (200, "openid-alice")),
    ):
        headers = [] if authorization is None else [("Authorization", authorization)]
        answer = ask(guard, headers=headers, optional=True)
        assert (answer.status_code, answer.text) == answered
    assert ask(guard, headers=[("Authorization", "Bearer no")], optional=True).json()["code"] == "invalid_token"
