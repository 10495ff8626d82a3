"""The log contains the caller's trace id, and OpenTelemetry's spans contain no secret."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, use_span
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.fakes import Secrets, service_env
from tests.processes import PATIENCE, WXAUTH, Running, free_port, serving, until
from tests.sweeps import swept
from tests.world import Client, LogLines, Stage, bearer
from wxauth import __version__
from wxauth.core.services import Services
from wxauth.core.statements import Statement
from wxauth.keys.keyring import KeyRing
from wxauth.service.build import build_services
from wxauth.service.spans import Spans
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth.wechat.errcodes import Api
from wxauth_desk.wechat import create_simulator

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def test_the_trace_of_a_caller_is_in_each_log_line(stage: Stage) -> None:
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await stage.login(headers=given)
    await stage.client.get("/v1/me", headers=given)
    await stage.client.get("/v1/me")
    traces = [(line["event"], line.get("trace_id")) for line in stage.log_lines() if "request_id" in line]
    assert traces == [("logged_in", TRACE), ("request_refused", TRACE), ("request_refused", None)]


@pytest.mark.no_database
@swept(
    "malformed",
    [
        *(f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01", "eyJhbGciOiJFUzI1NiJ9"),
        *(f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}"),
    ],
)
async def test_a_malformed_trace_header_is_ignored(client: Client, log_lines: LogLines, malformed: str) -> None:
    await client.get("/v1/me", headers={"traceparent": malformed})
    *_, line = (line for line in log_lines() if line["event"] == "request_refused")
    assert "trace_id" not in line


class Traced(NamedTuple):
    """The service with traces, and a client of it."""

    client: Client
    services: Services
    stage: Stage
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended so far."""
        return self.exporter.get_finished_spans()


@pytest.fixture
async def traced(stage: Stage) -> AsyncIterator[Traced]:
    exporter = InMemorySpanExporter()
    services = build_services(
        stage.services.settings,
        clock=stage.clock,
        wechat_transport=stage.wechat.transport,
        tracing=Spans(exporter, SimpleSpanProcessor),
    )
    await services[KeyRing].refresh()
    yield Traced(stage.make_client(services), services, stage, exporter)
    await services.aclose()


async def test_a_login_has_spans_for_its_call_to_wechat_and_its_statement(traced: Traced) -> None:
    answer = await traced.stage.login.ask(at=traced.client)
    call, known_user, new_user, request = traced.spans
    assert [span.name for span in traced.spans] == ["GET", "WITH", "WITH", "POST /v1/login"]
    for span in (call, known_user, new_user):
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.kind is SpanKind.CLIENT
    assert call.attributes is not None
    assert new_user.attributes is not None
    assert urlsplit(str(call.attributes["url.full"])).path == Api.CODE2SESSION.path
    assert "INSERT INTO unionids" in str(new_user.attributes["db.query.text"])
    assert (request.parent, request.kind) == (None, SpanKind.SERVER)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/login",
        "http.response.status_code": 200,
        "wxauth.request_id": answer.headers["x-request-id"],
    }
    assert request.resource.attributes["service.name"] == "wxauth"
    assert request.resource.attributes["service.version"] == __version__
    (line,) = traced.stage.logged("logged_in")
    assert line["trace_id"] == f"{request.context.trace_id:032x}"


async def test_nothing_is_told_to_wechat_and_nothing_outside_of_requests_is_traced(traced: Traced) -> None:
    await traced.stage.login(at=traced.client, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": "a=b"})
    [sent] = [call.request for call in traced.stage.wechat.route.calls]
    assert not {"traceparent", "tracestate", "baggage"} & {*sent.headers}
    traced.exporter.clear()
    await traced.services.database.time()
    assert traced.spans == ()


async def test_who_goes_with_others_in_one_statement_has_a_span_of_their_own(traced: Traced) -> None:
    logins = [await traced.stage.login(f"person-{number}") for number in range(5)]
    await asyncio.gather(*(traced.client.get("/v1/me", headers=bearer(login)) for login in logins))
    requests = {span.context.span_id for span in traced.spans if span.name == "GET /v1/me"}
    statements = [span for span in traced.spans if span.attributes and "db.system.name" in span.attributes]
    assert [span.name for span in statements] == ["SELECT", *["user_of_session"] * 4]  # who comes first goes alone
    assert {span.parent.span_id for span in statements if span.parent} == requests
    assert len(requests) == len(statements) == 5


async def test_a_request_goes_on_with_its_callers_trace(traced: Traced) -> None:
    await traced.client.get("/.well-known/jwks.json", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    *_, span = traced.spans
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT


async def test_probes_and_what_its_caller_does_not_sample_are_not_traced(traced: Traced) -> None:
    await traced.stage.login(at=traced.client, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    for path in ("/livez", "/readyz", "/metrics"):
        await traced.client.get(path)
    assert traced.spans == ()


async def test_a_failed_span_has_no_message_and_is_an_error_if_it_is_no_callers(traced: Traced) -> None:
    traced.stage.wechat.answers(httpx.ReadTimeout("silence"))
    await traced.client.post("/v1/login", json={"code": "any"})
    call, request = traced.spans
    for span, code in ((call, "ReadTimeout"), (request, "wechat_timeout")):
        assert span.attributes is not None
        assert span.attributes["error.type"] == code
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert not span.events
    traced.exporter.clear()
    await traced.client.get("/v1/me")
    (request,) = traced.spans
    assert request.attributes is not None
    assert request.attributes["error.type"] == "missing_token"
    assert request.status.status_code is StatusCode.UNSET, "a caller's mistake is no error"


async def test_no_span_has_a_secret_a_path_a_query_a_value_or_a_message(traced: Traced, secrets: Secrets) -> None:
    code = traced.stage.wechat.code_for("alice")
    sent = {"User-Agent": "alices-phone", "Authorization": "Bearer aaa.bbb.ccc", "Cookie": "wxauth=d.d.d"}
    given = {"code": code, "nickname": "小明的名字"}
    tokens = (await traced.client.post("/v1/login?debug=yes", json=given, headers=sent)).json()
    await traced.client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
    await traced.client.delete(f"/v1/me/sessions/{tokens['session_id']}", headers=bearer(tokens))
    await traced.client.get("/nothing/of/ours?token=abc", headers=sent)
    traced.stage.wechat.answers(ZeroDivisionError("what was said"))
    await traced.client.post("/v1/login", json={"code": code})
    parent = NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    with use_span(parent), pytest.raises(asyncpg.UniqueViolationError, match="identities_pkey"):
        await traced.services.database.run(Statement("INSERT INTO identities SELECT * FROM identities"))
    exported = "\n".join(json.dumps(json.loads(span.to_json()), ensure_ascii=False) for span in traced.spans)
    secrets.check_log(exported)
    of_user = (tokens["session_id"], tokens["user"]["openid"], "小明", "what was said", "already exists")
    of_request = ("/nothing", "debug=yes", "token=abc", "alices-phone", "aaa.bbb.ccc", "d.d.d", "127.0.0.1")
    for text in (*of_user, *of_request):
        assert text not in exported
    assert "DELETE /v1/me/sessions/{session_id}" in exported
    assert "ZeroDivisionError" in exported
    assert "UniqueViolationError" in exported


# The service as a process.


@pytest.mark.process
def test_spans_arrive_at_the_collector_before_the_service_ends(tmp_path: Path, database_url: str) -> None:
    received: list[str] = []

    async def collector(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert request.url.path == "/v1/traces"
        export = ExportTraceServiceRequest.FromString(await request.body())
        received.extend(
            span.name for batch in export.resource_spans for scoped in batch.scope_spans for span in scoped.spans
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    port = free_port()
    with serving(create_simulator()) as wechat_url, serving(collector, lifespan="off") as collector_url:
        env = service_env(database_url, wechat_base_url=wechat_url, port=port, otlp_url=collector_url)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
            until(lambda: '"started"' in command.output)
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/login", json={"code": "alice"}, timeout=PATIENCE)
            assert answer.status_code == 200
            assert command.end(signal.SIGTERM) == 0
    assert sorted(received) == ["GET", "POST /v1/login", "WITH", "WITH"]


@pytest.mark.no_database
def test_without_the_packages_for_it_the_setting_is_refused(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "wxauth.service.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidSettings, match=r"WXAUTH_OTLP_URL: .* pip install \./clients/python '\.\[otel\]'"):
        build_services(make_settings(otlp_url="http://127.0.0.1:4318"))
