"""The classification of database failures, the texts that explain outages to an operator, and the log of outages.

The module also contains the errors that the rest of wxauth catches.
"""

import socket
import ssl
from time import monotonic
from typing import Final

import asyncpg

from wxauth.core import libpq
from wxauth.core.logs import get_logger, message_of
from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.terminal import TextError

POOLER_REMEDY: Final = _(
    "add ?pgbouncer=true to WXAUTH_DATABASE_URL. From version 1.21, PgBouncer supports prepared "
    "statements if max_prepared_statements is 100. In this case, use ?pgbouncer=prepared"
)
"""The instruction for operators whose pooler refuses settings or loses prepared statements."""
NO_RESPONSE: Final = _("the database doesn't respond")
"""The detail of the error if there is no connection, or if PostgreSQL does not respond in time."""
TAKES_NO_WRITES: Final = _(
    "doesn't accept writes. Check the default_transaction_read_only setting for the database and the role"
)
"""The predicate about a database whose transactions are read-only, with the instruction for the operator."""

_UNAVAILABLE: Final = (
    OSError,  # including TimeoutError
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""The errors that mean that the database is unreachable, starting, stopping, out of resources or now a standby.

They include the errors in `_REFUSED`, and those for a statement that took too long, for example because it waited for a
lock.
"""
_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""The errors that mean that PostgreSQL refuses wxauth.

The password, role or database name is wrong, or `pg_hba.conf` does not allow the connection.
"""
CLASHED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)
"""The errors that mean that the transaction conflicted with another one, and that the server has rolled it back.

InvalidCachedStatementError means that a migration has changed a table since asyncpg prepared the statement. asyncpg has
dropped the prepared statement, and prepares the statement again at the next attempt.
"""
_UNFIT: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError)
"""The errors that mean that the schema is not migrated to this version, or that the role lacks privileges."""
STATEMENT_LOST: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""The errors that mean that a pooler has moved wxauth to another server connection.

That connection lacks the prepared statement, or has another one with the same name.
"""
_WRONG_URL: Final = (
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    ValueError,
    OverflowError,
)
"""The errors that mean that the URL has an unknown option, or an option with an impossible value."""
CONNECTION_LOST: Final = (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)
"""The errors that mean that the connection is lost.

InternalClientError means that the server has just ended the connection, and that asyncpg has not noticed this yet.
"""

# asyncpg and PgBouncer never translate their messages, so wxauth can recognize these words.
_NO_AUTHORITY_WORDS: Final = ("root certificate file", "cannot determine location of user PostgreSQL")
"""The beginnings of asyncpg's messages about a missing certificate authority."""
_TLS_REFUSED_WORDS: Final = "rejected SSL upgrade"
"""The words in asyncpg's message if the server refuses TLS."""
_SETTING_REFUSED_WORDS: Final = "unsupported startup parameter"
"""The beginning of PgBouncer's message about a setting that it refuses. PostgreSQL never uses these words."""
_CAUSES: Final = (
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
"""The texts that explain why there is no connection, by the class of the error. The first row that matches counts."""
_MAYBE_FROM_A_FILE: Final = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ssl.SSLError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""The errors that a file named in libpq's parameters may cause.

One of them is the refusal of the role: if the password file is missing, wxauth sends no password.
"""

log = get_logger()


class OutageLog:
    """The log of outages. It reports an outage at most once per interval, instead of once per request.

    At the end of an outage that it has reported, it logs how long the outage lasted.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        """The shortest time, in seconds, between two log lines that report an outage."""
        self._due_at = 0.0
        """The end of the present interval, in seconds of the monotonic clock."""
        self._since: float | None = None
        """The start of the present outage, in seconds of the monotonic clock; None if there is no outage."""
        self._is_logged = False
        """Whether `note` has written a line since the last outage ended.

        The line can be older than the present outage, because open connections may fail before a new one does.
        """

    def claim(self) -> bool:
        """Return whether a line may be written now. If so, start the next interval."""
        now = monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self._interval
        return True

    def note(self, exc: StorageUnavailable) -> None:
        """Log why the database cannot be used, if a line is due.

        The level is warning. If PostgreSQL refuses wxauth with one of the errors in `_REFUSED`, for example because of
        the password, the level is error, because such an outage lasts until the operator changes something.
        """
        if not self.claim():
            return
        self._is_logged = True
        # If no connection could be opened, the cause of `exc` is NotConnected, whose cause is the driver's error.
        driver_error = None if exc.__cause__ is None else exc.__cause__.__cause__
        write = log.error if isinstance(driver_error, _REFUSED) else log.warning
        is_read_only = isinstance(exc.__cause__, asyncpg.ReadOnlySQLTransactionError)
        event = "database_takes_no_writes" if is_read_only else "database_does_not_answer"
        write(event, reason=outage_text(exc), consequence="not ready until it does")

    def begin(self) -> None:
        """Note that no connection can be opened. This begins an outage, unless one has begun already."""
        if self._since is None:
            self._since = monotonic()

    def end(self, attempt_started_at: float) -> None:
        """Note that a connection has been opened, and log the end of the outage if a line about it was written.

        `attempt_started_at` is the start of the attempt, in seconds of the monotonic clock. An attempt that began
        before the outage does not show that the outage has ended.
        """
        if self._since is None or attempt_started_at <= self._since:
            return
        if self._is_logged:
            log.info("database_answers_again", seconds=round(monotonic() - self._since, 1))
        self._since, self._is_logged = None, False


outage_log: Final = OutageLog(10.0)
"""The log of outages of this process. It reports an outage at most every ten seconds."""


class NotConnected(TextError, OSError):
    """No connection could be opened. The text contains the host and port, and never the password.

    The error is an OSError, so `raise_if_unavailable` treats it as an outage.
    """


class DatabaseUrlRefused(StorageUnavailable):
    """The driver or PostgreSQL rejects an option of the URL. Retrying does not help."""


class ChangesClashed(StorageUnavailable):
    """The transaction conflicted with other changes, for example in a deadlock, and the server has rolled it back.

    Retrying is safe.
    """


class NothingCommitted(StorageUnavailable):
    """A transaction's connection was lost before its commit. Retrying is safe."""


CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, ChangesClashed)
"""The errors that mean that a concurrent transaction wrote first. A retry sees the changes of that transaction."""


class ConnectionLost(Exception):
    """The connection was lost during a statement, which may have been executed."""


def raise_if_unavailable(exc: BaseException, *, is_closed: bool = False) -> None:
    """Raise StorageUnavailable if the database's state has caused this failure. Otherwise do nothing.

    `is_closed` says whether the connection is closed. If it is, asyncpg raises the same type of error as if the
    caller had misused the connection.

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
            log.error(
                "database_unfit", reason=reason_of(exc), what_to_change="run 'wxauth migrate'; see 'wxauth check'"
            )
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


def reason_of(exc: BaseException) -> str:
    """Return the reason for a failure of the database, without secrets.

    The reason says why there is no connection, or it is the first line of PostgreSQL's message, or of asyncpg's message
    about an option of the URL. For other errors, the reason is the name of the error's type.
    """
    cause: BaseException = exc
    # The search ends at a TimeoutError, because its cause is only the CancelledError that ended the wait.
    while cause.__cause__ is not None and not isinstance(cause, TimeoutError | NotConnected):
        cause = cause.__cause__
    if isinstance(cause, NotConnected):
        return cause.text
    if isinstance(cause, asyncpg.ClientConfigurationError) and str(cause).startswith(_NO_AUTHORITY_WORDS):
        return (
            "sslmode=verify-ca and verify-full require a certificate authority: specify its file with "
            "sslrootcert or SSL_CERT_FILE"
        )
    # The messages of other errors may contain any part of the URL, including the password.
    is_safe = isinstance(cause, asyncpg.ClientConfigurationError) or getattr(cause, "sqlstate", None) is not None
    return message_of(cause).partition("\n")[0] if is_safe else type(cause).__name__


def outage_text(exc: StorageUnavailable) -> Text:
    """Return one line that explains an outage to the operator."""
    cause = exc.__cause__
    if isinstance(cause, NotConnected):
        return cause.text
    if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        return TAKES_NO_WRITES
    return _("{name}: {rule}", name=exc.detail, rule=reason_of(exc))


def raise_if_not_connected(exc: Exception, dsn: str, address: str | None = None) -> None:
    """Raise an error that explains why no connection could be opened. If the failure has another meaning, do nothing.

    `address` is the address that was tried, if the host has several addresses.

    Raises: NotConnected; DatabaseUrlRefused, if the URL itself is wrong.
    """
    # The error for an invalid certificate is both an OSError and a ValueError.
    if isinstance(exc, _WRONG_URL) and not isinstance(exc, OSError):
        raise DatabaseUrlRefused("the database's URL isn't usable") from exc
    if isinstance(exc, _UNAVAILABLE):
        raise NotConnected(_why_not(exc, dsn, address)) from exc


def _why_not(exc: BaseException, dsn: str, address: str | None) -> Text:
    """Return a text that contains the host and port, and explains why there is no connection."""
    host, port = libpq.host_and_port(dsn)
    place = f"[{host}]:{port}" if ":" in host else f"{host or 'the default socket'}:{port}"
    if address is not None:
        place += f" ({address})"
    return _("{name}: {rule}", name=place, rule=_predicate_about(exc, dsn))


def _predicate_about(exc: BaseException, dsn: str) -> Text:
    """Return a predicate that explains why there is no connection, such as "doesn't respond in time"."""
    reason = _driver_reason(exc)
    unusable = libpq.unusable_file(dsn) if isinstance(exc, _MAYBE_FROM_A_FILE) else None
    if unusable is not None:
        return _("can't read {file}: {reason}", file=unusable.path, reason=unusable.reason)
    if isinstance(exc, PermissionError) and exc.filename:
        return _("can't read {file}: {reason}", file=exc.filename, reason=reason)
    if reason.startswith(_SETTING_REFUSED_WORDS):
        return _("is a connection pooler ({reason}): {remedy}", reason=reason, remedy=POOLER_REMEDY)
    if isinstance(exc, ConnectionError) and _TLS_REFUSED_WORDS in str(exc):
        return _("doesn't support TLS, although sslmode requires it")
    why = next(text for kind, text in _CAUSES if isinstance(exc, kind))
    return Text(why, reason=reason)


def _driver_reason(exc: BaseException) -> str:
    """Return the first line of PostgreSQL's message, or the reason that a TLS or network error contains.

    If there is none, return the name of the error's type.
    """
    if isinstance(exc, asyncpg.PostgresError):
        return message_of(exc).partition("\n")[0]
    reasons = (getattr(exc, name, None) for name in ("verify_message", "reason", "strerror"))
    return next(filter(None, reasons), type(exc).__name__)
