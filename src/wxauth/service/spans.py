"""OpenTelemetry traces with a span for each request and, within it, each call to WeChat and each use of the database.

If `WXAUTH_OTLP_URL` is set, parts that trace replace the plain parts. Otherwise this module is not imported. A span
contains names, such as the route's, ids and the outcome. It contains no requested path, query, statement or failure
message, because these might contain a code, a token or a user's text.

With OpenTelemetry's own packages (`opentelemetry-instrumentation-asgi`, `-asyncpg` and `-httpx`), a login took 2.27
times the CPU time of a login without traces, and with this module 1.55 times. For `GET /v1/me`, the factors were 3.6
and 2.4. Each factor is the median of six alternating rounds. The spans of the packages also contain statements, the
peer's address, the user agent, and the URL with the codes in its query. The packages can replace this module when they
can omit these values.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
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
from wxauth.core.connecting import Deadlines
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import trace_id
from wxauth.service.build import Tracing
from wxauth.settings.apps import App
from wxauth.web.edge import PROBLEM_KEY, STATUS_KEY
from wxauth.wechat.client import WeChat
from wxauth.wechat.errcodes import Api
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import REQUEST_ID_KEY

# Each unsent batch delays the end of the service by this time, but at most by the SDK's limit of 30 s.
EXPORT_TIMEOUT_SECONDS: Final = 5.0

# Machines request these every few seconds, which would hide all other spans.
_UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})
# The SDK reads the collector's certificate authority from these.
_CERTIFICATE_VARIABLES: Final = frozenset({"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"})
# The names of these modules' functions do not tell the purpose of a caller of the database.
_PASSED_OVER: Final = frozenset({__name__, "wxauth.core.statements", Database.__module__, "contextlib"})
_DATABASE: Final = {"db.system.name": "postgresql"}  # OpenTelemetry's conventions
_TRANSACTION: Final = {**_DATABASE, "db.operation.name": "transaction"}
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})  # W3C Trace Context


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

    def wechat(self, transport: httpx.AsyncBaseTransport, **options: Any) -> WeChat:
        """Return a WeChat client that opens a span for each call within a request."""
        return _TracedWeChat(transport, tracer=self._tracer, **options)

    async def aclose(self) -> None:
        """Send the remaining spans in a thread, because the SDK blocks while it waits for the collector."""
        await asyncio.to_thread(self._provider.shutdown)


def spans_to(url: str) -> Spans:
    """Return the factory whose parts send their spans to the collector at this URL (OTLP over HTTP).

    The SDK's `OTEL_` variables configure everything except the time limit of an export.
    """
    # The SDK does not read SSL_CERT_FILE. The SDK's variables for certificates take precedence over SSL_CERT_FILE.
    sdk_has_file = not _CERTIFICATE_VARIABLES.isdisjoint(os.environ)
    certificate_file = None if sdk_has_file else os.environ.get("SSL_CERT_FILE")
    exporter = OTLPSpanExporter(
        endpoint=f"{url}/v1/traces", timeout=EXPORT_TIMEOUT_SECONDS, certificate_file=certificate_file
    )
    return Spans(BatchSpanProcessor(exporter))


class _TracedApp:
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
                _describe_request(span, scope)


class _TracedDatabase(Database):
    def __init__(self, url: str, *, deadlines: Deadlines, tracer: Tracer) -> None:
        super().__init__(url, deadlines=deadlines)
        self._tracer = tracer

    async def _fetch(self, *statement: Any, **limits: Any) -> Any:  # runs a single statement
        with _span_within(self._tracer, _calling_function, _DATABASE):
            return await super()._fetch(*statement, **limits)

    async def _wait(self, row: asyncio.Future[object]) -> object:  # for a row that a batch of statements returns
        with _span_within(self._tracer, _calling_function, _DATABASE):
            return await super()._wait(row)

    @asynccontextmanager
    async def begin(self, *, replan: bool = False) -> AsyncIterator[Transaction]:
        with _span_within(self._tracer, _calling_function, _TRANSACTION):
            async with super().begin(replan=replan) as transaction:
                yield transaction


class _TracedWeChat(WeChat):
    def __init__(self, transport: httpx.AsyncBaseTransport, *, tracer: Tracer, **options: Any) -> None:
        super().__init__(transport, **options)
        self._tracer = tracer

    async def call(self, api: Api, app: App, query: str = "", **options: Any) -> Any:
        attributes = {"wxauth.app_id": app.app_id}
        with _span_within(self._tracer, lambda: f"WeChat {api}", attributes):
            return await super().call(api, app, query, **options)


def _describe_request(span: Span, scope: Scope) -> None:
    route = scope.get("route")
    status = scope.get(STATUS_KEY, 0)  # 0 if nothing was sent
    span.update_name(f"{scope['method']} {route.path}" if route else scope["method"])
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("wxauth.request_id", scope[REQUEST_ID_KEY])
    if route:
        span.set_attribute("http.route", route.path)
    problem: WxAuthError | None = scope.get(PROBLEM_KEY)
    if problem is not None:
        span.set_attribute("error.type", problem.code)
    if status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def _span_within(tracer: Tracer, name: Callable[[], str], attributes: Mapping[str, str]) -> Iterator[None]:
    if not get_current_span().is_recording():  # in a background task, which has no request
        yield
        return
    # `name` is a function, because finding the name takes some time.
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
    # Only the name of a public function tells the purpose of a query.
    frame = sys._getframe(1)
    while frame.f_back is not None:
        is_private = frame.f_code.co_name.startswith("_")
        if not is_private and frame.f_globals["__name__"] not in _PASSED_OVER:
            break
        frame = frame.f_back
    return frame.f_code.co_name
