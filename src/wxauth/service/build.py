"""The function that creates the parts of the service, with the parts' time limits and the order in which they close."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar

import httpx
from starlette.types import ASGIApp

from wxauth.apps import registry
from wxauth.apps.js_tickets import JsTickets
from wxauth.apps.registry import Apps
from wxauth.clients.documents import (
    ASSERTIONS_PER_CLIENT,
    NEW_DOCUMENTS_PER_ADDRESS,
    NEW_DOCUMENTS_PER_PROCESS,
    ClientDocuments,
)
from wxauth.console.sessions import ConsoleTokens
from wxauth.core.background import FAREWELL_SECONDS, RETRY_PAUSE_SECONDS, Background, Retries
from wxauth.core.clock import Clock, DatabaseClock
from wxauth.core.connecting import DEADLINES, Deadlines
from wxauth.core.database import Database
from wxauth.core.logs import get_logger, message_of
from wxauth.core.sealing import Sealer
from wxauth.core.services import Parts, Services
from wxauth.events import logout_tokens, webhook_deliveries
from wxauth.events.logout_tokens import BackchannelLogouts
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.housekeeping.housekeeping import sweep_names
from wxauth.i18n import lazy_gettext as _
from wxauth.keys.access_tokens import AccessTokens, ResourceVerifier
from wxauth.keys.keyring import KeyRing
from wxauth.limits import concurrency
from wxauth.limits.concurrency import Concurrency
from wxauth.limits.rate_limits import RateLimiter
from wxauth.login.count_queries import LoginCounts
from wxauth.login.proofs import LoginLimiter
from wxauth.login.refusals import Refusals
from wxauth.outbound.receivers import receiver_transport_for
from wxauth.outbound.urls import NameResolver
from wxauth.phones import phones
from wxauth.phones.phones import Phones
from wxauth.pictures.avatars import Avatars
from wxauth.push import receiving
from wxauth.push.receiving import PushedMessages
from wxauth.service.metrics import PrometheusMetrics
from wxauth.service.probes import PROXY_NOTICE_SECONDS, Readiness
from wxauth.sessions.refresh_tokens import RefreshTokens
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth.sites.asking import ScanLimits
from wxauth.sites.secrets import UserCodes
from wxauth.users.last_seen_queries import LastSeen
from wxauth.users.staff_read_queries import StaffReads
from wxauth.wechat import client
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.client import WeChat, transport_for
from wxauth.wechat.wechat_tokens import WeChatTokens
from wxauth_guard.verifier import Verifier


class Tracing:
    """The factory of the parts that a trace covers. If traces are enabled, its subclass `spans.Spans` replaces it."""

    def app(self, app: ASGIApp) -> ASGIApp:
        return app

    def database(self, url: str, *, deadlines: Deadlines) -> Database:
        return Database(url, deadlines=deadlines)

    def transport(self, transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return transport

    async def aclose(self) -> None:
        """Send the spans that have not been sent yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The time limits and pauses of the parts, in seconds. Tests shorten the times that they wait for."""

    database: Deadlines = DEADLINES
    apps_refresh: float = registry.REFRESH_PAUSE_SECONDS
    backchannel_logouts: float = logout_tokens.LOGOUT_TIMEOUT_SECONDS
    background_farewell: float = FAREWELL_SECONDS
    phones_farewell: float = phones.FAREWELL_SECONDS
    # After each of these pauses, the process checks whether another process has stored the response.
    phones_of_others: Sequence[float] = phones.PAUSES_FOR_OTHERS_SECONDS
    proxy_notice: float | None = PROXY_NOTICE_SECONDS  # None if the process waits for no proxy
    retries: float = RETRY_PAUSE_SECONDS
    pushed_messages: float = receiving.STORAGE_TIMEOUT_SECONDS
    concurrency: float = concurrency.PATIENCE_SECONDS
    webhooks: float = webhook_deliveries.RECEIVER_TIMEOUT_SECONDS
    wechat_busy: Sequence[float] = client.BUSY_PAUSES_SECONDS  # before each retry of a request


TIMEOUTS: Final = Timeouts()

# The limiters are closed after these groups, and then the database and the traces, because some parts store data when
# they are closed.
_CLOSING_ORDER: Final = (
    (Avatars,),  # it discards its unfinished work at once, because all requests have ended
    # All but `ClientDocuments` wait some seconds for their unfinished work. They wait at the same time, so that a stop
    # takes no longer than the slowest part.
    (Background, Phones, Deliveries, ClientDocuments),
    (Retries,),  # after the parts above, which might have added retries
    (WeChatTokens, JsTickets),  # before the connections that their requests use
    (WeChat, WeChatApi, httpx.AsyncBaseTransport),  # after all parts that use these connections
    (LoginCounts, Refusals, StaffReads, LastSeen),  # at the same time, because each of them also waits some seconds
)

log = get_logger()
Limiter = TypeVar("Limiter", bound=RateLimiter)


def build_services(
    settings: Settings,
    *,
    clock: Clock | None = None,
    wechat_transport: httpx.AsyncBaseTransport | None = None,
    timeouts: Timeouts = TIMEOUTS,
    database: Database | None = None,
    errcode_hints: Mapping[int, str] = MappingProxyType({}),
    unknown_app_hint: str = "",
    tracing: Tracing | None = None,
) -> Services:
    """Create the parts without opening a connection.

    This function creates only parts that need values from it, and parts whose classes are not decorated with `part`.
    `Parts` creates the others when they are first requested. By default, the clock shows the database's time. The error
    details for developers get additional hints: `errcode_hints` by WeChat's errcode, and `unknown_app_hint`.

    Raises: InvalidSettings, if the settings enable traces and the packages for them are not installed.
    """
    clock = clock or DatabaseClock()
    tracing = tracing or make_tracing(settings)
    database = database or tracing.database(settings.database_url.get_secret_value(), deadlines=timeouts.database)
    parts = Parts({Settings: settings, Clock: clock, Database: database, Tracing: tracing})
    parts[Sealer] = Sealer(settings.secret_keys)
    limiters = _Limiters(settings, clock)
    # The order matters. If a part is requested before `make` has created it, the part is created with default
    # arguments, and `make` then fails. Therefore, no step requests a part that a later step makes.
    parts.make(Apps, refresh_pause=timeouts.apps_refresh, hint=unknown_app_hint)
    _add_wechat(parts, settings, wechat_transport, timeouts, errcode_hints)
    _add_tokens(parts, settings)
    parts[LoginLimiter] = limiters.make(LoginLimiter, settings.login_rate_limit, "login")
    parts.make(ScanLimits, make_limiter=partial(limiters.make, RateLimiter))
    parts.make(Concurrency, patience=timeouts.concurrency)
    parts.make(PrometheusMetrics, sweeps=sweep_names(settings))
    parts.make(Readiness, notice_seconds=timeouts.proxy_notice)
    parts.make(StaffReads, is_on=settings.staff_reads)
    parts.make(Background, farewell_seconds=timeouts.background_farewell)
    parts.make(Retries, pause=timeouts.retries)
    _add_outbound(parts, limiters, timeouts)
    parts.make(Phones, pauses_for_others_seconds=timeouts.phones_of_others, farewell_seconds=timeouts.phones_farewell)
    parts.make(PushedMessages, patience=timeouts.pushed_messages)
    closing = [[parts[kind] for kind in kinds] for kinds in _CLOSING_ORDER]
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        parts=parts,
        closing=[*closing, limiters.made, [database], [tracing]],
    )


@dataclass(frozen=True, slots=True)
class _Limiters:
    """The factory of the limiters. If the settings name a Redis, all processes share the counts there."""

    settings: Settings
    clock: Clock
    made: list[RateLimiter] = field(default_factory=list)  # to be closed

    def make(self, kind: Callable[..., Limiter], rate: str, what: str) -> Limiter:
        redis_url = None if self.settings.redis_url is None else self.settings.redis_url.get_secret_value()
        exempt = self.settings.rate_limit_exempt
        limiter = kind(rate, what=what, redis_url=redis_url, exempt=exempt, clock=self.clock)
        self.made.append(limiter)
        return limiter


def _add_wechat(
    parts: Parts,
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None,
    timeouts: Timeouts,
    errcode_hints: Mapping[int, str],
) -> None:
    tracing: Tracing = parts[Tracing]

    def make_wechat() -> WeChat:
        return WeChat(
            tracing.transport(transport or transport_for(settings)),
            settings=settings,
            busy_pauses=timeouts.wechat_busy,
            hints=errcode_hints,
        )

    parts[WeChat] = make_wechat()
    # The other APIs have their own client, so that one that does not respond can't use up the connections of logins.
    parts.make(WeChatApi, wechat=make_wechat())


def _add_tokens(parts: Parts, settings: Settings) -> None:
    parts.make(AccessTokens)
    parts.make(Verifier, issuer=settings.issuer, audience=settings.audience, keys=parts[KeyRing])
    parts.make(ResourceVerifier)
    for kind in (RefreshTokens, ConsoleTokens, UserCodes):
        parts.make(kind, secret_keys=settings.secret_keys)


def _add_outbound(parts: Parts, limiters: _Limiters, timeouts: Timeouts) -> None:
    parts.make(NameResolver)
    parts[httpx.AsyncBaseTransport] = receiver_transport_for(parts[Settings], parts[NameResolver])
    logouts = parts.make(BackchannelLogouts, patience=timeouts.backchannel_logouts)
    parts.make(Deliveries, logouts=logouts, patience=timeouts.webhooks)
    clock = parts[Clock]
    parts.make(
        ClientDocuments,
        # With `wide_factor=1`, all addresses of an IPv6 /48 share the limit of one address, so that no single /48 can
        # use up `new_documents_per_process`.
        new_documents_per_address=limiters.make(
            partial(RateLimiter, wide_factor=1), NEW_DOCUMENTS_PER_ADDRESS, "client-document"
        ),
        # These two limits apply to each process separately, so they do not use Redis.
        new_documents_per_process=RateLimiter(NEW_DOCUMENTS_PER_PROCESS, what="client-document", clock=clock),
        assertions_per_client=RateLimiter(ASSERTIONS_PER_CLIENT, what="client-assertion", clock=clock),
    )


def make_tracing(settings: Settings) -> Tracing:
    """Return the factory of parts with spans, if the settings enable traces.

    If OpenTelemetry refuses one of its environment variables, log the reason, and create no spans.
    """
    if settings.otlp_url is None:
        return Tracing()
    try:
        # The import takes half a second, so it happens only if traces are enabled.
        from wxauth.service.spans import spans_to
    except ModuleNotFoundError as exc:
        raise InvalidSettings(
            [
                _(
                    "WXAUTH_OTLP_URL: requires {name}, which isn't installed. Run pip install ./clients/python "
                    "'.[otel]' in a clone of wxauth",
                    name=exc.name,
                )
            ]
        ) from None
    except Exception as exc:  # OpenTelemetry reads some of its variables when it is imported
        return _tracing_without_spans(exc)
    try:
        return spans_to(settings.otlp_url)
    except Exception as exc:  # also a missing module, because a variable of OpenTelemetry can name one
        return _tracing_without_spans(exc)


def _tracing_without_spans(exc: Exception) -> Tracing:
    # Another program might have set one of OpenTelemetry's many variables.
    variables = sorted(name for name in os.environ if name.startswith("OTEL_"))
    log.error("traces_not_sent", reason=message_of(exc), what_to_change=", ".join(variables))
    return Tracing()
