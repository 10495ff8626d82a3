"""`SSL_CERT_FILE` names a company's own authority, and applies to every host that wxauth calls.

`tests/wechat/test_connecting.py` tests it for WeChat, and `tests/core/test_database_away.py` for the database.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from opentelemetry.trace import SpanKind

from tests.certificates import Authority
from tests.upstream import Upstream, answer
from wxauth.checks.issuer import check_issuer
from wxauth.checks.result import Findings
from wxauth.core.clock import utc_now
from wxauth.limits.redis import RedisCounts
from wxauth.outbound.receivers import ReceiverTransport
from wxauth.outbound.urls import NameResolver
from wxauth.service.spans import spans_to
from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.jwks import RemoteKeys

pytestmark = pytest.mark.no_database


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority whose certificates this machine trusts."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # the library that sends traces prefers these variables
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
async def upstream(authority: Authority) -> AsyncIterator[Upstream]:
    """A server with a certificate of that authority."""
    async with Upstream(answer({}), tls=authority.server("127.0.0.1")) as server:
        yield server


async def test_a_webhook_is_delivered(upstream: Upstream) -> None:
    transport = ReceiverTransport(resolve=NameResolver().resolve)
    answered = await transport.handle_async_request(httpx.Request("POST", upstream.url, content=b"{}"))
    assert answered.status_code == 200
    await transport.aclose()


async def test_a_guard_and_the_check_ask_the_issuer(upstream: Upstream) -> None:
    with pytest.raises(KeysUnavailable):
        await RemoteKeys(upstream.url).find("1")
    assert len(upstream.requests) == 1
    [result] = [each async for each in check_issuer(upstream.url, Findings(), now=utc_now(), patience=5)]
    assert "certificate" not in result.text
    assert len(upstream.requests) == 2


async def test_a_collector_is_sent_traces(upstream: Upstream) -> None:
    tracing = spans_to(upstream.url)
    with tracing._provider.get_tracer("test").start_as_current_span("request", kind=SpanKind.SERVER):
        pass
    await tracing.aclose()
    assert len(upstream.requests) == 1


async def test_a_redis_of_a_private_authority_counts(authority: Authority) -> None:
    async def count(reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith(b"*"):
                writer.write(b":1\r\n")
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0, ssl=authority.server("127.0.0.1"))
    url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aclosing(RedisCounts(url, what="check", patience=5)) as counts:
        assert await counts.add("check", seconds=1) == 1
