"""`guard.current` asks wxauth about each token, and refuses or falls back exactly as its response says."""

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.guard.asking import NOT_REACHED, guard_at, identified, outcome, outcome_of, problem
from tests.guard.fakes import client_of
from tests.guard.guarded_apps import plain_app
from tests.guard.wsgi_apps import who
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.upstream import Behaviour, Upstream, abort, answer, endless, hang, in_pieces, raw, reset
from wxauth_guard import BearerGuard, BearerWSGIMiddleware, Principal, WxAuthError
from wxauth_guard.errors import SessionRevoked, VerificationUnavailable
from wxauth_guard.jwks import RemoteKeys
from wxauth_guard.pytest_plugin import _issuers, pytest_runtest_teardown
from wxauth_guard.testing import USER_ID, TestIssuer

AUDIENCE = "https://mcp.example.com/mcp"
# What it asks, and what it learns.


async def test_the_question_has_the_token_and_what_the_guard_accepts() -> None:
    async with Upstream(identified(roles="clerk,cook")) as wxauth:
        for audience, options, query in (
            ("wxauth", {}, ""),
            ("wxauth", {"websites": True}, "?websites=true"),
            ("wxauth", {"scopes": ["openid"]}, "?websites=true"),
            (AUDIENCE, {}, "?resource=https%3A%2F%2Fmcp.example.com%2Fmcp"),
            (AUDIENCE, {"websites": True}, "?resource=https%3A%2F%2Fmcp.example.com%2Fmcp"),
        ):
            issuer = TestIssuer(wxauth.url, audience)
            token = issuer.token(roles=["boss"], scope="openid" if query else None)
            user = await guard_at(wxauth.url, issuer, **options).current.verify(token)
            assert (sorted(user.roles), user.is_current) == (["clerk", "cook"], True)
            assert wxauth.requests[-1] == f"/v1/verify{query}"
            assert f"\r\nAuthorization: Bearer {token}\r\n".lower().encode() in wxauth.heads[-1].lower()


async def test_a_guard_that_does_not_ask_says_so_and_sends_nothing() -> None:
    async with Upstream(identified()) as wxauth:
        issuer = TestIssuer(wxauth.url)
        guard = guard_at(wxauth.url, issuer)
        assert guard.current is guard.current
        assert guard.current.current is guard.current
        assert (await guard.verify(issuer.token(roles=["boss"]))).is_current is None
        for token in ("nonsense", issuer.token(expires_in=-60), issuer.token(scope="openid"), TestIssuer().token()):
            with pytest.raises(WxAuthError):
                await guard.current.verify(token)
        assert wxauth.requests == []


async def test_wxauth_is_asked_at_the_internal_url_below_the_issuers_path() -> None:
    async with Upstream(identified()) as wxauth:
        issuer = TestIssuer("https://auth.example.com/auth")
        guard = BearerGuard(issuer.issuer, keys=RemoteKeys(issuer.issuer, internal_url=f"{wxauth.url}/a"))
        guard._verifier = issuer.guard()._verifier
        authority: Any = guard._authority_in_use()
        authority._timeout = authority._begin_timeout = PATIENCE
        assert (await guard.current.verify(issuer.token())).is_current
        assert wxauth.requests == ["/a/v1/verify"]


def test_an_issuer_that_cannot_be_asked_safely_is_a_mistake_at_once() -> None:
    with pytest.raises(ValueError, match="plain http to another machine"):
        _ = BearerGuard("http://auth.example.com", keys=TestIssuer().key).current


# What wxauth's response means.

ACCEPTED = {
    "the user": identified(),
    "more than is needed": answer(b"x" * 100_000, headers=f"X-Auth-User-Id: {USER_ID}\r\n"),
}
REFUSED = {
    "an ended session": (problem("invalid_token", "401 Unauthorized"), "session_revoked"),
    "a 401 without a body": (answer(b"", status="401 Unauthorized"), "session_revoked"),
    "a 401 that is a page": (answer(b"<html>", status="401 Unauthorized"), "session_revoked"),
    "a 401 of much JSON": (answer(b"[" * 100_000, status="401 Unauthorized"), "session_revoked"),
    "a 401 whose body breaks off": (raw(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n{"), "session_revoked"),
    "an expired token": (problem("token_expired", "401 Unauthorized"), "token_expired"),
    "a scope": (problem("insufficient_scope", "403 Forbidden"), "insufficient_scope"),
    "a firewall": (answer(b"<html>", status="403 Forbidden"), "insufficient_scope"),
}
UNREACHABLE = {
    "an end": abort,
    "a reset": reset,
    "a head that breaks off": raw(b"HTTP/1.1 200 OK\r\nX-Auth-User"),
    **{status: answer(b"", status=f"{status} x") for status in ("502", "503", "504")},
    "wxauth's own 503": problem("storage_unavailable", "503 Service Unavailable"),
}
NOT_TO_BE_TRUSTED = {
    **{
        status: answer(b"", status=f"{status} x", headers=f"X-Auth-User-Id: {USER_ID}\r\n")
        for status in ("201", "204", "206", "300", "400", "404", "405", "407", "409", "418", "422", "429", "431")
    },
    **{status: answer(b"", status=f"{status} x") for status in ("500", "501", "505", "599")},
    **{
        status: answer(b"", status=f"{status} x", headers="Location: /v1/verify?again\r\n")
        for status in ("301", "302", "303", "307", "308")
    },
    "nobody": answer(b""),
    "a page": answer(b"<html>"),
    "another user": identified(user_id=uuid4()),
    "two users": identified(more=f"X-Auth-User-Id: {uuid4()}\r\n"),
    "another session": identified(more=f"X-Auth-Session-Id: {uuid4()}\r\n"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
}


async def check(behaviour: Behaviour, *, expected: tuple[str, Optional[bool]], offline: Any = None) -> None:
    async with Upstream(behaviour) as wxauth:
        issuer = TestIssuer(wxauth.url)
        token = issuer.token(roles=["boss"])
        assert await outcome(guard_at(wxauth.url, issuer).current, token) == expected
        with_offline = guard_at(wxauth.url, issuer, or_offline=True)
        assert await outcome(with_offline.current, token) == (offline or expected)
        assert "/v1/verify?again" not in wxauth.requests


async def test_wxauths_word_counts() -> None:
    with Sweep() as sweep:
        for name, behaviour in ACCEPTED.items():
            with sweep.case(name):
                await check(behaviour, expected=("", True))
        for name, (behaviour, code) in REFUSED.items():
            with sweep.case(name):
                await check(behaviour, expected=(code, None))


async def test_an_unreachable_wxauth_refuses_unless_the_signature_is_enough() -> None:
    with Sweep() as sweep:
        for name, behaviour in UNREACHABLE.items():
            with sweep.case(name):
                await check(behaviour, expected=(NOT_REACHED, None), offline=("", False))


async def test_nobody_gets_in_by_a_response_that_cannot_be_trusted(caplog: pytest.LogCaptureFixture) -> None:
    with Sweep() as sweep:
        for name, behaviour in NOT_TO_BE_TRUSTED.items():
            with sweep.case(name):
                caplog.clear()
                await check(behaviour, expected=(NOT_REACHED, None))
                told = [record.getMessage() for record in caplog.records if record.name == "wxauth_guard"]
                assert told, name
                assert not any("eyJ" in line for line in told)


async def test_no_connection_no_name_and_no_answer_in_time_are_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream(hang) as closed:
        url = closed.url
    for behaviour, at in ((None, url), (hang, None), (in_pieces(b"HTTP/1.1 200 OK\r\n", then=hang), None)):
        async with Upstream(behaviour or hang) as wxauth:
            issuer = TestIssuer(at or wxauth.url)
            for offline, expected in ((False, (NOT_REACHED, None)), (True, ("", False))):
                guard = guard_at(issuer.issuer, issuer, or_offline=offline, timeout=0.3)
                assert await outcome(guard.current, issuer.token()) == expected
    monkeypatch.setattr("socket.getaddrinfo", _unknown)
    issuer = TestIssuer("https://auth.test")
    assert await outcome(guard_at(issuer.issuer, issuer).current, issuer.token()) == (NOT_REACHED, None)


@pytest.mark.parametrize(("status", "code"), [("401 No", "session_revoked"), ("429 Too Many Requests", NOT_REACHED)])
async def test_a_refusal_whose_body_never_comes_is_no_outage(status: str, code: str) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\n{{".encode()
    async with Upstream(in_pieces(head, then=hang)) as wxauth:
        issuer = TestIssuer(wxauth.url)
        for in_thread in (False, True):
            for seconds in (0.3, 3, 30):  # until the head arrives in time on a busy machine
                guard = guard_at(wxauth.url, issuer, or_offline=True, timeout=seconds).current
                token = issuer.token()
                verifying = asyncio.to_thread(guard.verify_sync, token) if in_thread else guard.verify(token)
                result = await outcome_of(verifying)
                if result != ("", False):
                    break
            assert result == (code, None)


def _unknown(*_: object, **_options: object) -> None:
    import socket

    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_wrong_certificate_is_never_an_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = Authority(tmp_path).server("127.0.0.1")
    async with Upstream(identified(), tls=tls) as wxauth:
        issuer = TestIssuer(wxauth.url)
        guard = guard_at(wxauth.url, issuer, or_offline=True, tls=ssl.create_default_context())
        assert await outcome(guard.current, issuer.token()) == (NOT_REACHED, None)
        assert wxauth.requests == []
    assert "TLS failed" in caplog.text


async def test_an_unavailable_verification_is_a_problem_in_both_languages() -> None:
    issuer = TestIssuer()
    app = FastAPI()
    guard = issuer.guard()

    @app.get("/")
    async def orders(user: Annotated[Principal, Depends(guard.current)]) -> str:
        return user.openid

    async with client_of(app) as client:
        headers = {**issuer.headers(), "Accept-Language": "zh-CN"}
        with issuer.unreachable():
            answered = await client.get("/", headers=headers)
        document = problem_of(answered, NOT_REACHED, 503)
        assert (answered.headers["retry-after"], document["title"]) == ("5", "暂时无法验证登录，请稍后再试。")
        issuer.ban(USER_ID)
        answered = await client.get("/", headers=headers)
        assert problem_of(answered, "session_revoked", 401)["title"] == "你已退出登录，请重新登录。"
        assert answered.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_one_line_a_minute_says_why(caplog: pytest.LogCaptureFixture) -> None:
    issuer = TestIssuer()
    guard = issuer.guard(or_offline=True)
    with caplog.at_level(logging.WARNING), issuer.unreachable():
        for _ in range(3):
            assert (await guard.current.verify(issuer.token())).is_current is False
    assert len([record for record in caplog.records if "at once" in record.getMessage()]) == 1


# The connections.


async def test_questions_share_connections_and_survive_one_that_was_closed() -> None:
    async with Upstream(identified()) as wxauth:
        issuer = TestIssuer(wxauth.url)
        guard = guard_at(wxauth.url, issuer)
        for _ in range(5):
            await guard.current.verify(issuer.token())
        assert wxauth.connections == 1
    async with Upstream(identified(), abort, identified()) as wxauth:  # the second response is a closed connection
        issuer = TestIssuer(wxauth.url)
        guard = guard_at(wxauth.url, issuer)
        assert [await outcome(guard.current, issuer.token()) for _ in range(2)] == [("", True)] * 2


ASKING = """
import asyncio, os, sys, threading
from wxauth_guard import BearerGuard
from wxauth_guard.testing import TestKey
from wxauth_guard.jwks import RemoteKeys
url, token, patience = sys.argv[1:]
guard = BearerGuard(url).current
guard._authority_in_use()._timeout = guard._authority_in_use()._begin_timeout = float(patience)
for _ in range(2):
    assert asyncio.run(guard.verify(token)).is_current  # several event loops
threads = [threading.Thread(target=guard.verify_sync, args=(token,)) for _ in range(8)]
for act in ("start", "join"):
    for thread in threads:
        getattr(thread, act)()
child = os.fork()
assert guard.verify_sync(token).is_current
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert guard.verify_sync(token).is_current
"""


@pytest.mark.process
async def test_event_loops_threads_and_forks_may_ask() -> None:
    issuer = TestIssuer()

    async def behave(writer: asyncio.StreamWriter) -> None:
        known = {"/.well-known/oauth-authorization-server": issuer.metadata, "/.well-known/jwks.json": issuer.jwks}
        document = known.get(wxauth.requests[-1])
        await (identified() if document is None else answer(document))(writer)

    async with Upstream(behave) as wxauth:
        issuer.issuer = wxauth.url
        command = (sys.executable, "-W", "error", "-c", ASKING, wxauth.url, issuer.token(), str(PATIENCE))
        asking = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
        _, told = await asyncio.wait_for(asking.communicate(), PATIENCE)
    assert (asking.returncode, told) == (0, b"")


# Wherever a guard stands.


@pytest.fixture
def issuer() -> TestIssuer:
    return TestIssuer()


async def test_it_stands_where_a_guard_stands(issuer: TestIssuer) -> None:
    guard, app = issuer.guard(), FastAPI()

    @app.get("/")
    async def orders(
        user: Annotated[Principal, Depends(guard.current)], known: Annotated[Principal, Depends(guard)]
    ) -> list[Optional[bool]]:
        return [user.is_current, known.is_current]

    @app.get("/clerks")
    async def clerks(user: Annotated[Principal, Depends(guard.current.require_role("clerk"))]) -> list[str]:
        return sorted(user.roles)

    @app.get("/open")
    async def welcome(user: Annotated[Optional[Principal], Depends(guard.current.optional)]) -> Optional[bool]:
        return None if user is None else user.is_current

    async with client_of(app) as client:
        assert (await client.get("/", headers=issuer.headers())).json() == [True, None]
        assert (await client.get("/open")).json() is None
        assert (await client.get("/open", headers=issuer.headers())).json() is True
        problem_of(await client.get("/clerks", headers=issuer.headers()), "insufficient_role", 403)
        issuer.set_roles(USER_ID, ["clerk"])
        assert (await client.get("/clerks", headers=issuer.headers())).json() == ["clerk"]
        issuer.set_roles(USER_ID, [])
        problem_of(await client.get("/clerks", headers=issuer.headers(roles=["clerk"])), "insufficient_role", 403)
        session = uuid4()
        issuer.end_session(session)
        for path in ("/", "/open", "/clerks"):
            answered = await client.get(path, headers=issuer.headers(session_id=session))
            problem_of(answered, "session_revoked", 401)
        assert (await client.get("/open", headers=issuer.headers())).status_code == 200


async def test_the_middlewares_ask_too(issuer: TestIssuer) -> None:
    guard = issuer.guard().current
    by_wsgi = httpx.Client(transport=httpx.WSGITransport(BearerWSGIMiddleware(who, guard)))

    async def in_thread(headers: dict[str, str]) -> httpx.Response:
        return await asyncio.to_thread(by_wsgi.get, "https://orders.test/orders", headers=headers)

    async with client_of(plain_app(guard)) as client:
        by_asgi: Callable[[dict[str, str]], Any] = lambda headers: client.get("/orders", headers=headers)  # noqa: E731
        for ask in (by_asgi, in_thread):
            assert (await ask(issuer.headers())).status_code == 200
            issuer.ban(USER_ID)
            problem_of(await ask(issuer.headers()), "session_revoked", 401)
            issuer.forget()


async def test_scopes_and_the_question_go_together(issuer: TestIssuer) -> None:
    guard = issuer.guard()
    for each in (guard.requires("orders:read").current, guard.current.requires("orders:read")):
        assert (await each.verify(issuer.token(scope="orders:read"))).is_current
        with pytest.raises(WxAuthError):
            await each.verify(issuer.token(scope="openid"))
        issuer.ban(USER_ID)
        with pytest.raises(SessionRevoked):
            await each.verify(issuer.token(scope="orders:read"))
        issuer.forget()
    with pytest.raises(WxAuthError):
        await guard.current.verify(issuer.token(scope="orders:read"))


# In a sibling's own tests.


async def test_overriding_the_guard_overrides_current(issuer: TestIssuer) -> None:
    guard, app = BearerGuard("https://auth.example.com"), FastAPI()
    somebody = issuer.guard().verify_sync(issuer.token(openid="o-1"))

    @app.get("/")
    async def orders(user: Annotated[Principal, Depends(guard.current)]) -> str:
        return user.openid

    @app.get("/scoped")
    async def scoped(user: Annotated[Principal, Depends(guard.requires("orders:read").current)]) -> str:
        return user.openid

    async def awaited() -> Principal:
        return somebody

    def of_request(request: Request) -> Principal:
        return replace(somebody, openid=request.url.path)

    def yielding() -> Iterator[Principal]:
        yield somebody

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        app.dependency_overrides[guard] = of_request
        assert (await client.get("/")).json() == "/"
        for impossible in (yielding, lambda user: user):
            app.dependency_overrides[guard] = impossible
            with pytest.raises(TypeError, match="this override of the guard"):
                await client.get("/")
        app.dependency_overrides[guard.current] = yielding
        assert (await client.get("/")).json() == "o-1"
        del app.dependency_overrides[guard.current]
    async with client_of(app) as client:
        for override in (lambda: somebody, awaited):
            app.dependency_overrides[guard] = override
            assert (await client.get("/")).json() == "o-1"
            problem_of(await client.get("/scoped"), "missing_token", 401)
        app.dependency_overrides[guard] = issuer.guard()
        headers = issuer.headers(openid="o-2", scope="orders:read")
        assert (await client.get("/scoped", headers=headers)).json() == "o-2"
        assert (await client.get("/", headers=issuer.headers(openid="o-2"))).json() == "o-2"
        issuer.ban(USER_ID)
        problem_of(await client.get("/", headers=issuer.headers()), "session_revoked", 401)
        problem_of(await client.get("/scoped", headers=headers), "session_revoked", 401)
        issuer.forget()
        app.dependency_overrides = {}
        with issuer.trusted_by(guard):
            assert (await client.get("/", headers=issuer.headers(openid="o-3"))).json() == "o-3"
            with issuer.unreachable():
                problem_of(await client.get("/", headers=issuer.headers()), NOT_REACHED, 503)


def test_the_fixture_forgets_a_test(issuer: TestIssuer) -> None:
    guard = issuer.guard().current
    with contextlib.ExitStack() as stack:
        _issuers.append(issuer)
        stack.callback(_issuers.remove, issuer)
        issuer.ban(str(USER_ID))
        issuer.set_roles(str(USER_ID), "clerk")
        with pytest.raises(SessionRevoked):
            guard.verify_sync(issuer.token())
        pytest_runtest_teardown()
        assert guard.verify_sync(issuer.token()).roles == frozenset()
    with issuer.unreachable(), pytest.raises(VerificationUnavailable):
        guard.verify_sync(issuer.token())
    assert json.dumps(guard.verify_sync(issuer.token()).is_current) == "true"
