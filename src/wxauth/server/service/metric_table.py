"""The metrics, one row each: name, help text, labels, and the series that exist from the start.

Such a series is at 0 before anything is counted. Otherwise its first count would not be an increase, on which alerts
are based.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wxauth.errors import (
    InternalError,
    StorageUnavailable,
    WeChatBadResponse,
    WeChatTimeout,
    WeChatUnavailable,
    WxAuthError,
)
from wxauth.server.events.backchannel_logouts import LogoutOutcome
from wxauth.server.refusals.refusals import Dropped
from wxauth.server.service.statistics_rows import Statistics
from wxauth.server.users.merging import MergeSource
from wxauth.server.websites.doors import Door, DoorOutcome
from wxauth.server.websites.scan_rows import ScanOutcome
from wxauth.server.wechat.errcodes import CODE2SESSION

OUR_FAULTS: Final = (InternalError, StorageUnavailable)
_FAULTS_OF_WECHAT: Final = (WeChatUnavailable, WeChatTimeout, WeChatBadResponse)

_REQUEST_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WECHAT_BOUNDS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_HOOK_BOUNDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_DATABASE_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclass(frozen=True, slots=True, eq=False)
class CounterRow:
    """What is counted. Prometheus sees the name with `_total`."""

    name: str
    help: str
    labels: tuple[str, ...]
    expected: Iterable[str | tuple[str, ...]] = ()
    """The values of the labels of each series that exists from the start."""


@dataclass(frozen=True, slots=True, eq=False)
class HistogramRow:
    """What is timed, in seconds."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()


def _kinds_of(failure: type[WxAuthError]) -> Iterator[type[WxAuthError]]:
    for kind in failure.__subclasses__():
        yield kind
        yield from _kinds_of(kind)


REQUESTS: Final = CounterRow(
    "wxauth_requests",
    "Requests, by method, route template (none if no route matches) and status of the answer.",
    ("method", "route", "status"),
)
LOGINS: Final = CounterRow(
    "wxauth_logins",
    "Logins, by app and outcome: ok, new (a new user) or the code of the error; errcode is WeChat's.",
    ("app_id", "outcome", "errcode"),
)
OUTCOMES_OF_A_LOGIN: Final = ("ok", "new", *(fault.code for fault in (*OUR_FAULTS, *_FAULTS_OF_WECHAT)))
"""The expected outcomes for each app, once its id is known."""
REFRESHES: Final = CounterRow(
    "wxauth_refreshes",
    "Token refreshes, by outcome: ok or the code of the error.",
    ("outcome",),
    ("ok", *(fault.code for fault in OUR_FAULTS)),
)
REFUSALS: Final = CounterRow(
    "wxauth_requests_refused",
    "Requests answered with an error, by its code.",
    ("code",),
    sorted({kind.code for kind in _kinds_of(WxAuthError) if hasattr(kind, "code")}),
)
REFUSALS_DROPPED: Final = CounterRow(
    "wxauth_refusals_dropped",
    "Refused logins that are counted here and not stored for support staff, by reason.",
    ("outcome",),
    tuple(Dropped),
)
WECHAT_CALLS: Final = CounterRow(
    "wxauth_wechat_calls",
    "Calls of WeChat's API, by API and outcome: ok or the code of the error; errcode is WeChat's.",
    ("api", "outcome", "errcode"),
    tuple((CODE2SESSION, outcome, "") for outcome in ("ok", *(fault.code for fault in _FAULTS_OF_WECHAT))),
)
WECHAT_TOKEN_READS: Final = CounterRow(
    "wxauth_access_token_reads",
    "Requests of service clients for WeChat access tokens, by app and outcome: ok or the code of the error.",
    ("app_id", "outcome"),
)
SIGNATURES: Final = CounterRow(
    "wxauth_signatures",
    "Requests of service clients for signatures with a session_key, by app and outcome: ok or the code of the error.",
    ("app_id", "outcome"),
)
POLICY_CHECKS: Final = CounterRow(
    "wxauth_policy_checks",
    "Checks by RISK_POLICY, NICKNAME_CHECK and AVATAR_CHECK, by outcome: pass, flagged, blocked, or the reason for "
    "which there is none; errcode is WeChat's.",
    ("policy", "app_id", "outcome", "errcode"),
)
MERGES: Final = CounterRow("wxauth_merges", "Merges of two users, by cause.", ("by",), tuple(MergeSource))
SCANS: Final = CounterRow(
    "wxauth_scans",
    "Scans for logins to websites, by the stage that they reached; expired ones are counted an hour later.",
    ("outcome",),
    tuple(ScanOutcome),
)
DOORS: Final = CounterRow(
    "wxauth_doors",
    "Logins to websites, by method and outcome.",
    ("door", "outcome"),
    tuple((door, outcome) for door in Door for outcome in DoorOutcome),
)
CLIENT_REQUESTS: Final = CounterRow(
    "wxauth_client_requests",
    "Requests of clients, by client, operation (introspect, users, token, sign, sign_check, moderate) and outcome: ok "
    "or rate_limited.",
    ("client", "operation", "outcome"),
)
WEBHOOK_DELIVERIES: Final = CounterRow(
    "wxauth_webhook_deliveries",
    "Attempts to deliver an event, by webhook and outcome: delivered, retried (another attempt follows) or failed.",
    ("webhook", "outcome"),
)
BACKCHANNEL_LOGOUTS: Final = CounterRow(
    "wxauth_backchannel_logouts",
    "Attempts to send a logout token to a site, by outcome: delivered, retried (another attempt follows) or failed.",
    ("outcome",),
    tuple(LogoutOutcome),
)
COUNTERS: Final = (
    REQUESTS,
    LOGINS,
    REFRESHES,
    REFUSALS,
    REFUSALS_DROPPED,
    WECHAT_CALLS,
    WECHAT_TOKEN_READS,
    SIGNATURES,
    POLICY_CHECKS,
    MERGES,
    SCANS,
    DOORS,
    CLIENT_REQUESTS,
    WEBHOOK_DELIVERIES,
    BACKCHANNEL_LOGOUTS,
)

REQUEST_SECONDS: Final = HistogramRow(
    "wxauth_request_seconds",
    "Duration of requests, from their head to the end of the answer, by method and route template.",
    _REQUEST_BOUNDS,
    ("method", "route"),
)
WECHAT_SECONDS: Final = HistogramRow(
    "wxauth_wechat_seconds", "Duration of code exchanges with WeChat, including retries.", _WECHAT_BOUNDS
)
DATABASE_SECONDS: Final = HistogramRow(
    "wxauth_database_seconds", "Duration of storing a login in the database.", _DATABASE_BOUNDS
)
SIGN_UP_HOOK_SECONDS: Final = HistogramRow(
    "wxauth_sign_up_hook_seconds",
    "Duration of asking SIGN_UP_HOOK_URL about a new user, by outcome: allowed, refused, failed, or not_asked because "
    "it has failed too often a moment ago.",
    _HOOK_BOUNDS,
    ("outcome",),
)
HISTOGRAMS: Final = (REQUEST_SECONDS, WECHAT_SECONDS, DATABASE_SECONDS, SIGN_UP_HOOK_SECONDS)

PUT_OFF: Final = ("wxauth_put_off", "Writes queued for retry while the database is unavailable, by kind.", ("what",))
BUILD: Final = ("wxauth_build", "The running version.")
CLOCK_AHEAD: Final = (
    "wxauth_clock_ahead_seconds",
    "By how much this machine's clock is ahead of the database's, which is used.",
)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What is read from the database: a column of the statistics."""

    name: str
    help: str
    column: str
    is_age: bool = False
    """Whether the value is the time that has passed since, in seconds; 0 if there is none."""
    is_optional: bool = False
    """Whether there is no value where nothing is stored."""

    def value(self, statistics: Statistics, now: datetime) -> float | None:
        """The value to report."""
        stored = getattr(statistics, self.column)
        if stored is None and self.is_optional:
            return None
        if not self.is_age:
            return float(stored)
        return 0.0 if stored is None else max(0.0, (now - stored).total_seconds())


STORED: Final = (
    StoredRow("wxauth_sessions", "Open sessions; an estimate if there are many.", "open_sessions"),
    StoredRow(
        "wxauth_webhook_oldest_pending_seconds",
        "Age of the oldest delivery that an enabled webhook has not accepted; 0 if none is pending.",
        "webhooks_wait_since",
        is_age=True,
    ),
    StoredRow("wxauth_erasures_waiting", "Erased users whose data is not completely removed yet.", "erasures"),
    StoredRow(
        "wxauth_sweep_overdue_seconds",
        "For how long the oldest daily sweep has been overdue; 0 if none is.",
        "sweep_due_at",
        is_age=True,
    ),
    StoredRow(
        "wxauth_signing_key_age_seconds",
        "Age of the current signing key.",
        "key_signs_since",
        is_age=True,
        is_optional=True,
    ),
)
