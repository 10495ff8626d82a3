"""Outages of the database: errors, texts for operators, the log, and what the errors of the driver mean."""

import re
import socket
import ssl
from time import monotonic
from typing import Final

import asyncpg

from wxauth.core import libpq
from wxauth.core.logs import get_logger, message_of
from wxauth.errors import BUSY_TITLE, StorageUnavailable
from wxauth.i18n import Text, TextError, lazy_gettext as _

log = get_logger()


class NotConnected(TextError, OSError):
    """No connection could be opened. The text contains the host and port, and never the password.

    The error is an OSError, so `raise_if_unavailable` treats it as an outage.
    """

    def __init__(self, text: Text, *, names_file: bool = False) -> None:
        super().__init__(text)
        self.names_file = names_file  # such as a missing certificate


class ParameterRefused(TextError):
    """wxauth rejects a parameter of the connection. The text names the parameter or the environment variable."""


class DatabaseUrlRefused(StorageUnavailable):
    """wxauth, the driver or PostgreSQL rejects the URL or an environment variable. Retrying does not help."""


class DatabaseHeld(StorageUnavailable):
    """wxauth does not use the database yet, because it has not checked the stored data, or the check has failed."""


class ChangesClashed(StorageUnavailable):
    """The transaction conflicted with other changes, for example in a deadlock, and the server has rolled it back.

    Retrying is safe.
    """

    title = BUSY_TITLE


class NothingCommitted(StorageUnavailable):
    """A transaction's connection was lost before its commit. Retrying is safe."""


class ConnectionLost(Exception):
    """The connection was lost during a statement, which may have been executed."""


# A concurrent transaction wrote first, and a retry sees its changes.
CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, ChangesClashed)
# The password, role or database name is wrong, or `pg_hba.conf` does not allow the connection.
REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_UNAVAILABLE: Final = (
    OSError,  # including TimeoutError
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    *REFUSED,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,  # also if a statement ran for longer than `statement_timeout`
    asyncpg.ObjectNotInPrerequisiteStateError,  # also if it waited for a lock for longer than `lock_timeout`
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
CLASHED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)
"""The server has rolled the transaction back.

InvalidCachedStatementError means that a migration has changed a table since asyncpg prepared the statement. asyncpg has
dropped the prepared statement, and prepares the statement again at the next attempt.
"""
# The schema is not migrated, or wxauth's role lacks a right.
_UNFIT: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
# A pooler has moved wxauth to another server connection, which lacks the prepared statement, or has another one with
# the same name.
STATEMENT_LOST: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_WRONG_URL: Final = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.PostgresSyntaxError,
    ValueError,
    OverflowError,
)
# InternalClientError: the server has just ended the connection, and asyncpg has not noticed this yet.
CONNECTION_LOST: Final = (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)

NO_RESPONSE: Final = _("the database doesn't respond")
NOT_USABLE: Final = _("the database's URL or environment isn't usable")
POOLER_REMEDY: Final = _(
    "add ?pgbouncer=true to WXAUTH_DATABASE_URL. From version 1.21, PgBouncer supports prepared "
    "statements if max_prepared_statements is 100. In this case, use ?pgbouncer=prepared"
)  # the pooler refuses settings or loses prepared statements
GRANTS: Final = _("Run the GRANT statements in 'Privileges of wxauth's role' in docs/run/database.md")
TAKES_NO_WRITES: Final = _(
    "doesn't accept writes. Check the default_transaction_read_only setting for the database and the role"
)

# asyncpg and PgBouncer never translate their messages, so wxauth can recognize these words.
_NO_AUTHORITY_WORDS: Final = ("root certificate file", "cannot determine location of user PostgreSQL")
_TLS_REFUSED_WORDS: Final = "rejected SSL upgrade"
_SETTING_REFUSED_WORDS: Final = "unsupported startup parameter"  # of PgBouncer; PostgreSQL never uses them
# The message that contains these words shows a Python object instead of the possible values.
_WRONG_SESSION_WORDS: Final = "target_session_attrs is expected"
_DIRECT_TLS_WORDS: Final = "direct TLS"
# PostgreSQL may translate this message. Then the failure is NotConnected instead of DatabaseUrlRefused.
_NO_RIGHT_TO_SET_WORDS: Final = "permission denied to set parameter"
_QUOTED_NAME: Final = re.compile('"([a-z_.]+)"')
# The text of the first type that matches is used, after the host and port.
_PREDICATES: Final = (
    (asyncpg.InvalidPasswordError, _("rejects the password: {reason}")),
    (asyncpg.InvalidAuthorizationSpecificationError, _("rejects the role: {reason}")),
    (asyncpg.InvalidCatalogNameError, _("doesn't have this database: {reason}")),
    (asyncpg.PostgresError, _("isn't accepting connections: {reason}")),
    (socket.gaierror, _("can't be reached, because its host name doesn't resolve: {reason}")),
    (
        ssl.SSLCertVerificationError,
        _("has a certificate that isn't trusted: {reason} (check sslrootcert and SSL_CERT_FILE)"),
    ),
    (ssl.SSLError, _("fails the TLS handshake: {reason}")),
    (ConnectionRefusedError, _("refuses connections. Make sure that PostgreSQL listens on this address")),
    (TimeoutError, _("doesn't respond in time")),
    (asyncpg.TargetServerAttributeNotMatched, _("is a standby, or doesn't accept writes")),
    (FileNotFoundError, _("has no such socket: {reason}")),
    (BaseException, _("can't be reached: {reason}")),
)
# A file that asyncpg cannot use may cause these errors. For example, if the password file is missing, wxauth sends no
# password, and PostgreSQL refuses the role.
_MAYBE_FROM_A_FILE: Final = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ssl.SSLError,
    asyncpg.InvalidAuthorizationSpecificationError,
)


def _lasting_kind(driver_error: BaseException | None) -> type[BaseException] | None:
    """Return the type of an error that lasts until the operator changes something; None for other errors."""
    if driver_error is None:
        return None
    is_lasting = isinstance(driver_error, (*REFUSED, asyncpg.InsufficientPrivilegeError, ssl.SSLError)) or any(
        words in str(driver_error) for words in (_TLS_REFUSED_WORDS, _SETTING_REFUSED_WORDS)
    )
    return type(driver_error) if is_lasting else None


def is_right_missing(exc: StorageUnavailable) -> bool:
    """Return whether the cause is a right that wxauth's role lacks, for example on a table."""
    return isinstance(exc.__cause__, asyncpg.InsufficientPrivilegeError)


def is_refusal_of_parameter(exc: StorageUnavailable) -> bool:
    """Return whether the URL or the environment is wrong, although the database might be running."""
    cause = exc.__cause__
    if isinstance(cause, NotConnected):
        return cause.names_file or _lasting_kind(cause.__cause__) is not None
    return isinstance(exc, DatabaseUrlRefused)


def outage_text(exc: StorageUnavailable) -> Text:
    """Explain an outage to the operator, in one line that begins with what does not work."""
    cause = exc.__cause__
    if isinstance(cause, NotConnected):
        return cause.text
    if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        return _("{name}: {rule}", name=_("the database"), rule=TAKES_NO_WRITES)
    if ends_connection(cause):
        return _("the database ended the connection: {reason}", reason=reason_of(exc))
    return _("{name}: {rule}", name=exc.detail, rule=reason_of(exc))


def ends_connection(exc: BaseException | None) -> bool:
    """Return whether PostgreSQL has closed the connection with this error, or with the cause of this error."""
    cause = None if exc is None else _root_of(exc)
    return isinstance(cause, asyncpg.PostgresError) and cause.severity_en in ("FATAL", "PANIC")


def _root_of(exc: BaseException) -> BaseException:
    # The search ends at a TimeoutError, because its cause is only the CancelledError that ended the wait.
    while exc.__cause__ is not None and not isinstance(exc, TimeoutError | NotConnected | ParameterRefused):
        exc = exc.__cause__
    return exc


def reason_of(exc: BaseException) -> str:
    """Return the reason for a failure of the database, without secrets."""
    cause = _root_of(exc)
    if isinstance(cause, NotConnected | ParameterRefused):
        return cause.text
    if isinstance(cause, asyncpg.ClientConfigurationError) and str(cause).startswith(_NO_AUTHORITY_WORDS):
        return _(
            "sslmode=verify-ca and verify-full require a certificate authority: specify its file with "
            "sslrootcert or SSL_CERT_FILE"
        )
    if isinstance(cause, asyncpg.ClientConfigurationError) and str(cause).startswith(_WRONG_SESSION_WORDS):
        return _('invalid value for parameter "{name}"', name="target_session_attrs")
    # The message also quotes the value, so `message_of` would hide all of it.
    if isinstance(cause, asyncpg.InvalidParameterValueError) and (found := _QUOTED_NAME.search(str(cause))):
        return _('invalid value for parameter "{name}"', name=found[1])
    # The messages of other errors may contain any part of the URL, including the password.
    is_safe = isinstance(cause, asyncpg.ClientConfigurationError) or getattr(cause, "sqlstate", None) is not None
    return message_of(cause).partition("\n")[0] if is_safe else type(cause).__name__


def _not_connected(exc: BaseException, dsn: str) -> NotConnected:
    host, port = libpq.host_and_port(dsn)
    place = f"[{host}]:{port}" if ":" in host else f"{host or 'the default socket'}:{port}"
    unusable = libpq.unusable_file(dsn) if isinstance(exc, _MAYBE_FROM_A_FILE) else None
    if unusable is None:
        return NotConnected(_("{name}: {rule}", name=place, rule=_predicate_about(exc)))
    rule = _("can't read {file}: {reason}", file=unusable.path, reason=unusable.reason)
    return NotConnected(_("{name}: {rule}", name=place, rule=rule), names_file=True)


def _predicate_about(exc: BaseException) -> Text:
    reason = _driver_reason(exc)
    if isinstance(exc, PermissionError) and exc.filename:
        return _("can't read {file}: {reason}", file=exc.filename, reason=reason)
    if reason.startswith(_SETTING_REFUSED_WORDS):
        return _("is a connection pooler ({reason}): {remedy}", reason=reason, remedy=POOLER_REMEDY)
    if isinstance(exc, ConnectionError) and _TLS_REFUSED_WORDS in str(exc):
        return _("doesn't support TLS, although sslmode requires it")
    predicate = next(text for kind, text in _PREDICATES if isinstance(exc, kind))
    return Text(predicate, reason=reason)


def _driver_reason(exc: BaseException) -> str:
    if isinstance(exc, asyncpg.PostgresError):
        return message_of(exc).partition("\n")[0]
    reasons = (getattr(exc, name, None) for name in ("verify_message", "reason", "strerror"))
    return next(filter(None, reasons), type(exc).__name__)


class OutageLog:
    """Reports an outage at most once per interval, instead of once per request, and then how long it lasted."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        # The keys are kinds of refusals, so that a refusal is logged at once after another outage.
        self._due_at: dict[type[BaseException] | None, float] = {}
        self._since: float | None = None  # in seconds of the monotonic clock
        # The line can be older than the present outage, because open connections may fail before a new one does.
        self._is_logged = False

    def claim(self, refusal: type[BaseException] | None = None) -> bool:
        """Return whether a line may be written now. If so, start the next interval."""
        now = monotonic()
        if now < self._due_at.get(refusal, 0.0):
            return False
        self._due_at[refusal] = now + self._interval_seconds
        return True

    def note(self, exc: StorageUnavailable) -> None:
        """Log why the database cannot be used, if a line is due."""
        if isinstance(exc, DatabaseHeld):  # the database may respond, and the reason has been logged
            return
        # If no connection could be opened, the cause of `exc` is NotConnected, whose cause is the driver's error.
        driver_error = None if exc.__cause__ is None else exc.__cause__.__cause__
        if not self.claim(_lasting_kind(driver_error)):
            return
        self._is_logged = True
        write = log.error if isinstance(driver_error, REFUSED) else log.warning
        is_read_only = isinstance(exc.__cause__, asyncpg.ReadOnlySQLTransactionError)
        event = "database_takes_no_writes" if is_read_only else "database_does_not_answer"
        write(event, reason=outage_text(exc), consequence="not ready until it does")

    def begin(self) -> None:
        """Note that no connection can be opened."""
        if self._since is None:
            self._since = monotonic()

    def end(self, attempt_started_at: float) -> None:
        """Note that a connection has been opened.

        An attempt that began before the outage does not show that the outage has ended.
        """
        if self._since is None or attempt_started_at <= self._since:
            return
        if self._is_logged:
            log.info("database_answers_again", seconds=round(monotonic() - self._since, 1))
        self._since, self._is_logged = None, False


outage_log: Final = OutageLog(interval_seconds=10.0)


def raise_if_unavailable(exc: BaseException, *, is_closed: bool = False) -> None:
    """Raise StorageUnavailable if the database's state has caused this failure. Otherwise do nothing.

    If the schema does not fit, or a right is missing, this is also logged, at most once per interval of `outage_log`.
    `is_closed` says whether the connection is closed. If it is, asyncpg raises the same type of error as if the caller
    had misused the connection.

    Raises: StorageUnavailable, or its subclass ChangesClashed if changes conflicted.
    """
    if is_closed and isinstance(exc, asyncpg.InterfaceError):
        raise StorageUnavailable(NO_RESPONSE) from exc
    if isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
        raise StorageUnavailable(_("the database doesn't accept writes")) from exc
    if isinstance(exc, (*_UNAVAILABLE, ConnectionLost)):
        raise StorageUnavailable(NO_RESPONSE) from exc
    if isinstance(exc, CLASHED):
        raise ChangesClashed("another request changed the same data at this moment") from exc
    if isinstance(exc, _UNFIT):
        if outage_log.claim():
            lacks_right = isinstance(exc, asyncpg.InsufficientPrivilegeError)
            to_do = GRANTS if lacks_right else "run 'wxauth migrate'; see 'wxauth check'"
            log.error("database_unfit", reason=reason_of(exc), what_to_change=to_do)
        raise StorageUnavailable("the database doesn't match this version: run 'wxauth check'") from exc
    if isinstance(exc, STATEMENT_LOST):
        raise StorageUnavailable(
            "the pooler in front of the database loses prepared statements: run 'wxauth check'"
        ) from exc


def is_refusal(exc: BaseException) -> bool:
    """Return whether the database refused a statement for a permanent reason, so that a retry would fail as well."""
    while isinstance(exc, StorageUnavailable) and exc.__cause__ is not None:
        exc = exc.__cause__
    temporary = (*_UNAVAILABLE, *CLASHED, *STATEMENT_LOST, ConnectionLost)
    return isinstance(exc, asyncpg.PostgresError) and not isinstance(exc, temporary)


def raise_if_not_connected(exc: Exception, dsn: str) -> None:
    """Raise an error that explains why no connection could be opened. If the failure has another meaning, do nothing.

    Raises: NotConnected; DatabaseUrlRefused, if the URL itself or an environment variable is wrong.
    """
    # The error for an invalid certificate is both an OSError and a ValueError.
    is_wrong_url = isinstance(exc, _WRONG_URL) and not isinstance(exc, OSError)
    lacks_right = isinstance(exc, asyncpg.InsufficientPrivilegeError)
    if is_wrong_url or (lacks_right and str(exc).startswith(_NO_RIGHT_TO_SET_WORDS)):
        variable = None if isinstance(exc, asyncpg.PostgresError) else libpq.wrong_variable(dsn)
        if variable is not None:
            text = _('invalid value for environment variable "{name}"', name=variable)
            raise DatabaseUrlRefused(NOT_USABLE) from ParameterRefused(text)
        if _DIRECT_TLS_WORDS in str(exc) and "sslnegotiation=" not in dsn:
            text = Text("{message} (PGSSLNEGOTIATION)", message=str(exc))
            raise DatabaseUrlRefused(NOT_USABLE) from ParameterRefused(text)
        raise DatabaseUrlRefused(NOT_USABLE) from exc
    if lacks_right or isinstance(exc, _UNAVAILABLE):  # for example the right to connect
        raise _not_connected(exc, dsn) from exc
