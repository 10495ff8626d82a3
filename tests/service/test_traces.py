"""Traces: the caller's trace id in the log, and OpenTelemetry's spans, which contain no secret."""

import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.fakes import Clock, Secrets, WeChatByRespx, service_env
from tests.processes import PATIENCE, WXAUTH, Running, free_port, serving, until
from tests.sweeps import swept
from tests.world import Client, LogLines, MakeClient, bearer, leave
from wxauth import __version__
from wxauth.server.core.settings import InvalidSettings, Settings
from wxauth.server.dev.wechat import create_simulator
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.build import build_services
from wxauth.server.service.spans import Spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def test_the_trace_of_a_caller_is_in_each_log_line(
    client: Client, wechat: WeChatByRespx, log_lines: LogLines
) -> None:
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await client.post("/v1/login", json={"code": wechat.code_for("alice")}, headers=given)
    await client.get("/v1/me", headers=given)
    await client.get("/v1/me")
    traces = [(line["event"], line.get("trace_id")) for line in log_lines() if "request_id" in line]
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


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced_client(
    exporter: InMemorySpanExporter,
    make_settings: Callable[..., Settings],
    make_client: MakeClient,
    wechat: WeChatByRespx,
    clock: Clock,
) -> AsyncIterator[httpx.AsyncClient]:
    """The service with traces, at its front door."""
    services = build_services(
        make_settings(),
        clock=clock,
        wechat_transport=wechat.transport,
        tracing=Spans(SimpleSpanProcessor(exporter)),
    )
    await services[KeyRing].refresh()
    yield make_client(services)
    await services.aclose()


def as_tree(spans: tuple[ReadableSpan, ...]) -> dict[str, str | None]:
    """The name of each span, and of the one that it is a part of."""
    names = {span.context.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


def everything_in(spans: tuple[ReadableSpan, ...]) -> str:
    return "\n".join(json.dumps(json.loads(span.to_json()), ensure_ascii=False) for span in spans)


async def test_a_login_has_spans_for_its_call_to_wechat_and_its_statement(
    traced_client: Client, exporter: InMemorySpanExporter, wechat: WeChatByRespx, log_lines: LogLines
) -> None:
    answer = await traced_client.post("/v1/login", json={"code": wechat.code_for("alice")})
    spans = exporter.get_finished_spans()
    assert as_tree(spans) == {
        "WeChat code2session": "POST /v1/login",
        "record_login": "POST /v1/login",
        "POST /v1/login": None,
    }
    request = spans[-1]
    assert request.kind is SpanKind.SERVER
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/login",
        "http.response.status_code": 200,
        "wxauth.request_id": answer.headers["x-request-id"],
    }
    assert request.resource.attributes["service.name"] == "wxauth"
    assert request.resource.attributes["service.version"] == __version__
    (line,) = (line for line in log_lines() if line["event"] == "logged_in")
    assert line["trace_id"] == f"{request.context.trace_id:032x}"


async def test_a_request_goes_on_with_its_callers_trace(traced_client: Client, exporter: InMemorySpanExporter) -> None:
    await traced_client.get("/.well-known/jwks.json", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    *_, span = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT


async def test_probes_and_what_its_caller_does_not_sample_are_not_traced(
    traced_client: Client, exporter: InMemorySpanExporter, wechat: WeChatByRespx
) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    await traced_client.post("/v1/login", json={"code": wechat.code_for("alice")}, headers=unsampled)
    for path in ("/livez", "/readyz", "/metrics"):
        await traced_client.get(path)
    assert exporter.get_finished_spans() == ()


async def test_a_failed_span_has_the_code_of_the_failure_and_is_an_error_if_it_is_no_callers(
    traced_client: Client, exporter: InMemorySpanExporter, wechat: WeChatByRespx
) -> None:
    wechat.answers(httpx.ReadTimeout("silence"))
    await traced_client.post("/v1/login", json={"code": "any"})
    call, request = exporter.get_finished_spans()
    for span in (call, request):
        assert span.attributes is not None
        assert span.attributes["error.type"] == "wechat_timeout"
        assert span.status.status_code is StatusCode.ERROR
        assert not span.events
    exporter.clear()
    await traced_client.get("/v1/me")
    (request,) = exporter.get_finished_spans()
    assert request.attributes is not None
    assert request.attributes["error.type"] == "missing_token"
    assert request.status.status_code is StatusCode.UNSET, "a caller's mistake is no error"


async def test_the_span_of_a_transaction_names_the_function_that_begins_the_transaction(
    traced_client: Client, exporter: InMemorySpanExporter, wechat: WeChatByRespx
) -> None:
    tokens = (await traced_client.post("/v1/login", json={"code": wechat.code_for("alice")})).json()
    exporter.clear()
    await leave(traced_client, tokens)
    spans = exporter.get_finished_spans()
    transactions = [s.name for s in spans if s.attributes and s.attributes.get("db.operation.name") == "transaction"]
    assert transactions == ["locked_user"] * 2  # before WeChat is asked, and after


async def test_no_span_has_a_secret_a_path_or_a_query(
    traced_client: Client, exporter: InMemorySpanExporter, wechat: WeChatByRespx, secrets: Secrets
) -> None:
    code = wechat.code_for("alice")
    tokens = (await traced_client.post("/v1/login?debug=yes", json={"code": code, "nickname": "小明的名字"})).json()
    await traced_client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
    await traced_client.delete(f"/v1/me/sessions/{tokens['session_id']}", headers=bearer(tokens))
    await traced_client.get("/nothing/of/ours?token=abc")
    wechat.answers(ZeroDivisionError("what was said"))
    await traced_client.post("/v1/login", json={"code": code})
    exported = everything_in(exporter.get_finished_spans())
    secrets.check_log(exported)
    of_user = (tokens["session_id"], tokens["user"]["openid"], "小明")
    for text in ("/nothing", "debug=yes", "token=abc", "SELECT", *of_user):
        assert text not in exported
    assert "DELETE /v1/me/sessions/{session_id}" in exported


# The service as it runs


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
    assert sorted(received) == ["POST /v1/login", "WeChat code2session", "record_login", "record_login"]


@pytest.mark.no_database
def test_without_the_packages_for_it_the_setting_is_refused(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "wxauth.server.service.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidSettings, match=r'WXAUTH_OTLP_URL: .* pip install "wxauth\[otel\]"'):
        build_services(make_settings(otlp_url="http://127.0.0.1:4318"))
