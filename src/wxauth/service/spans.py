"""OpenTelemetry traces with a span for each request and, within it, each call to WeChat and each statement.

If `WXAUTH_OTLP_URL` is set, OpenTelemetry's packages for ASGI, asyncpg and httpx make these spans. Otherwise this
module is not imported. The packages also note paths, queries, addresses and failure messages, which might contain a
code, a token or a user's text. So only what `_KEPT` names is sent.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, Tracer, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.http import parse_excluded_urls
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth import __version__
from wxauth.core.connecting import Deadlines
from wxauth.core.database import Database
from wxauth.core.logs import trace_id
from wxauth.service.build import Tracing
from wxauth.web.edge import PROBLEM_KEY
from wxauth_guard.problems import REQUEST_ID_KEY

# Each unsent batch delays the end of the service by this time, but at most by the SDK's limit of 30 s.
EXPORT_TIMEOUT_SECONDS: Final = 5.0

# Machines request these every few seconds, which would hide all other spans.
_UNTRACED: Final = "/livez$,/readyz$,/metrics$"
# The SDK reads the collector's certificate authority from these.
_CERTIFICATE_VARIABLES: Final = frozenset({"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"})
# The URL of a call to WeChat has no query, and a statement has no values.
_KEPT: Final = (
    *("http.request.method", "http.route", "http.response.status_code", "error.type", "wxauth.request_id"),
    *("url.full", "db.system.name", "db.query.text"),
)


class Spans(Tracing):
    """A factory of parts that create spans. `processor` hands the finished spans to the exporter."""

    def __init__(
        self, exporter: SpanExporter, processor: Callable[[SpanExporter], SpanProcessor] = BatchSpanProcessor
    ) -> None:
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http,database"  # the names in `_KEPT`
        defaults = Resource.create({SERVICE_NAME: "wxauth", SERVICE_VERSION: __version__})
        # OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME take precedence over wxauth's values.
        resource = defaults.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor(_Exporter(exporter)))
        set_global_textmap(_CallersTrace())
        AsyncPGInstrumentor().instrument(tracer_provider=self._provider)  # type: ignore[no-untyped-call]

    def app(self, app: ASGIApp) -> ASGIApp:
        """Return the app, wrapped in a middleware that opens a span for each request."""
        return OpenTelemetryMiddleware(
            _Described(app),
            excluded_urls=parse_excluded_urls(_UNTRACED),
            default_span_details=lambda scope: (scope["method"], {}),
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],
        )

    def database(self, url: str, *, deadlines: Deadlines) -> Database:
        """Return a `Database` that opens a span for who goes with others in one statement."""
        return _TracedDatabase(url, deadlines=deadlines, tracer=self._provider.get_tracer("wxauth", __version__))

    def transport(self, transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Return a transport that opens a span for each request to WeChat."""
        return AsyncOpenTelemetryTransport(transport, tracer_provider=self._provider)

    async def aclose(self) -> None:
        """Send the remaining spans in a thread, because the SDK blocks while it waits for the collector."""
        AsyncPGInstrumentor().uninstrument()  # type: ignore[no-untyped-call]
        await asyncio.to_thread(self._provider.shutdown)


def spans_to(url: str) -> Spans:
    """Return the factory whose parts send their spans to the collector at this URL (OTLP over HTTP).

    The SDK's `OTEL_` variables configure everything except the time limit of an export.
    """
    # The SDK does not read SSL_CERT_FILE. The SDK's variables for certificates take precedence over SSL_CERT_FILE.
    sdk_has_file = not _CERTIFICATE_VARIABLES.isdisjoint(os.environ)
    certificate_file = None if sdk_has_file else os.environ.get("SSL_CERT_FILE")
    return Spans(
        OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS, certificate_file=certificate_file)
    )


class _Exporter(SpanExporter):
    """Exports what happened within requests, without what might be secret."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_kept(span) for span in spans if span.parent or span.kind is SpanKind.SERVER])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _kept(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        attributes={name: attributes[name] for name in _KEPT if name in attributes},
        kind=span.kind,
        status=Status(span.status.status_code),  # without the message of an exception
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class _CallersTrace(TraceContextTextMapPropagator):
    def inject(self, *_carrier: Any, **_options: Any) -> None:
        """Tell WeChat nothing about the trace."""


class _Described:
    """What the middleware around it doesn't know about a request: its route, its id, and the code of its failure."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = get_current_span()

        async def describe(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                span.set_attribute("wxauth.request_id", scope[REQUEST_ID_KEY])
                if route := scope.get("route"):
                    span.update_name(f"{scope['method']} {route.path}")
                    span.set_attribute("http.route", route.path)
                if problem := scope.get(PROBLEM_KEY):
                    span.set_attribute("error.type", problem.code)

        token = trace_id.set(format_trace_id(span.get_span_context().trace_id))
        try:
            await self._app(scope, receive, describe)
        finally:
            trace_id.reset(token)


class _TracedDatabase(Database):
    """The statement of a batch belongs to no request, so the wait of each caller gets a span."""

    def __init__(self, url: str, *, deadlines: Deadlines, tracer: Tracer) -> None:
        super().__init__(url, deadlines=deadlines)
        self._tracer = tracer

    async def _wait(self, row: asyncio.Future[object], statement: str) -> object:
        with self._tracer.start_as_current_span(
            statement, kind=SpanKind.CLIENT, attributes={"db.system.name": "postgresql"}
        ):
            return await super()._wait(row, statement)
