"""OpenTelemetry traces with a span for each request and, within it, each call to WeChat and each use of the database.

If `WXAUTH_OTLP_URL` is set, parts that trace replace the plain parts. Otherwise this module is not imported. A span
contains names, such as the route's, ids and the outcome. It contains no requested path, query, statement or failure
message, because these might contain a code, a token or a user's text.

OpenTelemetry's own packages `opentelemetry-instrumentation-asgi`, `-asyncpg` and `-httpx` are slower. With these
packages, a login took 2.27 times the CPU time of a login without traces. With this module, it took 1.55 times that CPU
time. For `GET /v1/me`, the factors were 3.6 and 2.4. Each factor is the median of six alternating rounds. The spans of
the packages also contain statements, the peer's address, the user agent, and the URL with the codes in its query. The
packages can replace this module when they can omit these values.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth import __version__
from wxauth.core.batching import Batches
from wxauth.core.database import Database, Transaction
from wxauth.core.deadlines import Deadlines
from wxauth.core.logs import trace_id
from wxauth.core.retrying import retrying
from wxauth.service.tracing import Tracing
from wxauth.settings.apps import App
from wxauth.web.edge import FIRST_FAULT, PROBLEM_KEY, STATUS_KEY
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import Api
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import REQUEST_ID_KEY

EXPORT_TIMEOUT_SECONDS: Final = 5.0
"""The time, in seconds, that a collector may take to accept one batch of spans.

A collector that does not respond delays the end of the service by this time for each batch that has not been sent yet,
but at most by the SDK's limit of 30 seconds.
"""

_UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""The paths without spans. Machines request them every few seconds, so their spans would hide all other spans."""
_CERTIFICATE_VARIABLES: Final = frozenset({"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"})
"""The environment variables from which the SDK reads the collector's certificate authority."""
_PASSED_OVER: Final = frozenset({__name__, Batches.__module__, Database.__module__, retrying.__module__, "contextlib"})
"""The modules between a caller and the database.

`_calling_function` ignores them, because the names of their functions do not tell the caller's purpose.
"""
_DATABASE: Final = {"db.system.name": "postgresql"}
"""The attributes of a statement's span, according to OpenTelemetry's conventions."""
_TRANSACTION: Final = {**_DATABASE, "db.operation.name": "transaction"}
"""The attributes of a transaction's span."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
"""The request headers that contain the trace of the caller (W3C Trace Context)."""


class Spans(Tracing):
    """A factory of parts that create spans. `processor` receives the finished spans."""

    def __init__(self, processor: SpanProcessor) -> None:
        defaults = Resource.create({SERVICE_NAME: "wxauth", SERVICE_VERSION: __version__})
        # OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME take precedence over wxauth's values.
        resource = defaults.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("wxauth", __version__)

    def app(self, app: ASGIApp) -> ASGIApp:
        """Return the app, wrapped in a middleware that opens a span for each request."""
        return _TracedApp(app, self._tracer)

    def database(self, url: str, *, deadlines: Deadlines) -> Database:
        """Return a `Database` that opens a span each time a request uses it."""
        return _TracedDatabase(url, deadlines=deadlines, tracer=self._tracer)

    def wechat(self, client: httpx.AsyncClient, **options: Any) -> WeChat:
        """Return a WeChat client that opens a span for each call within a request. `options` are passed to `WeChat`."""
        return _TracedWeChat(client, tracer=self._tracer, **options)

    async def aclose(self) -> None:
        """Send the remaining spans in a thread, because the SDK blocks the thread while it waits for the collector."""
        await asyncio.to_thread(self._provider.shutdown)


def spans_to(url: str) -> Spans:
    """Return the factory whose parts send their spans to the collector at this URL (OTLP over HTTP).

    The time limit of an export is `EXPORT_TIMEOUT_SECONDS`. The SDK's `OTEL_` variables configure everything else.
    """
    # The SDK does not read SSL_CERT_FILE. The SDK's variables for certificates take precedence over SSL_CERT_FILE.
    sdk_has_file = not _CERTIFICATE_VARIABLES.isdisjoint(os.environ)
    certificate_file = None if sdk_has_file else os.environ.get("SSL_CERT_FILE")
    exporter = OTLPSpanExporter(
        endpoint=f"{url}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS, certificate_file=certificate_file
    )
    return Spans(BatchSpanProcessor(exporter))


class _TracedApp:
    """The middleware that opens a span for each request, except requests to `_UNTRACED` paths."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) in _UNTRACED:
            await self._app(scope, receive, send)
            return
        trace_headers = {
            name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE_HEADERS
        }
        with self._tracer.start_as_current_span(
            "request",
            context=_PROPAGATOR.extract(trace_headers),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            token = trace_id.set(format_trace_id(span.get_span_context().trace_id))
            try:
                await self._app(scope, receive, send)
            finally:
                trace_id.reset(token)
                _describe_request(span, scope, scope.get(STATUS_KEY, 0))


class _TracedDatabase(Database):
    """A database that opens a span for each transaction, and for each statement outside of a transaction, of a request.

    `_fetch` runs a single statement, and `_wait` waits for a row that a batch of statements returns.
    """

    def __init__(self, url: str, *, deadlines: Deadlines, tracer: Tracer) -> None:
        super().__init__(url, deadlines=deadlines)
        self._tracer = tracer

    async def _fetch(self, *statement: Any, **limits: Any) -> Any:
        with _span_within(self._tracer, _calling_function, _DATABASE):
            return await super()._fetch(*statement, **limits)

    async def _wait(self, row: asyncio.Future[object]) -> object:
        with _span_within(self._tracer, _calling_function, _DATABASE):
            return await super()._wait(row)

    @asynccontextmanager
    async def begin(self, *, replan: bool = False) -> AsyncIterator[Transaction]:
        with _span_within(self._tracer, _calling_function, _TRANSACTION):
            async with super().begin(replan=replan) as transaction:
                yield transaction


class _TracedWeChat(WeChat):
    """A WeChat client that opens a span for each call within a request."""

    def __init__(self, client: httpx.AsyncClient, *, tracer: Tracer, **options: Any) -> None:
        super().__init__(client, **options)
        self._tracer = tracer

    async def call(self, api: Api, app: App, query: str = "", **options: Any) -> Any:
        attributes = {"wxauth.app_id": app.app_id}
        with _span_within(self._tracer, lambda: f"WeChat {api}", attributes):
            return await super().call(api, app, query, **options)


def _describe_request(span: Span, scope: Scope, status: int) -> None:
    """Add the route and the outcome of a request to its span. `status` is 0 if there was no response."""
    route = scope.get("route")
    span.update_name(f"{scope['method']} {route.path}" if route else scope["method"])
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("wxauth.request_id", scope[REQUEST_ID_KEY])
    if route:
        span.set_attribute("http.route", route.path)
    problem: WxAuthError | None = scope.get(PROBLEM_KEY)
    if problem is not None:
        span.set_attribute("error.type", problem.code)
    if status == 0 or status >= FIRST_FAULT:
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def _span_within(tracer: Tracer, name: Callable[[], str], attributes: Mapping[str, str]) -> Iterator[None]:
    """Open a span with these attributes within the span of a request.

    Open no span in a background task, which has no request. `name` is called only for a span, because finding the name
    takes some time.
    """
    if not get_current_span().is_recording():
        yield
        return
    with tracer.start_as_current_span(
        name(), kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except BaseException as exc:
            span.set_attribute("error.type", exc.code if isinstance(exc, WxAuthError) else type(exc).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise


def _calling_function() -> str:
    """Return the name of the public function that uses the database, because this name tells the purpose of the use."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        is_private = frame.f_code.co_name.startswith("_")
        if not is_private and frame.f_globals["__name__"] not in _PASSED_OVER:
            break
        frame = frame.f_back
    return frame.f_code.co_name
