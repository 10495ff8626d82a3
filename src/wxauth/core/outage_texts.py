"""The texts that explain to an operator why the database cannot be used."""

import socket
import ssl
from typing import Final

import asyncpg

from wxauth.core import libpq
from wxauth.core.database_errors import NotConnected
from wxauth.core.logs import message_of
from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _

POOLER_REMEDY: Final = _(
    "add ?pgbouncer=true to WXAUTH_DATABASE_URL. From version 1.21, PgBouncer supports prepared "
    "statements if max_prepared_statements is 100. In this case, use ?pgbouncer=prepared"
)
"""The instruction for operators whose pooler refuses settings or loses prepared statements."""
TAKES_NO_WRITES: Final = _(
    "doesn't accept writes. Check the default_transaction_read_only setting for the database and the role"
)
"""The predicate about a database whose transactions are read-only, with the instruction for the operator."""

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


def outage_text(exc: StorageUnavailable) -> Text:
    """Return one line that explains an outage to the operator.

    The line begins with the host and port, with "the database", or with the detail of the error.
    """
    cause = exc.__cause__
    if isinstance(cause, NotConnected):
        return cause.text
    if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        return _("{name}: {rule}", name=_("the database"), rule=TAKES_NO_WRITES)
    return _("{name}: {rule}", name=exc.detail, rule=reason_of(exc))


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
        return _(
            "sslmode=verify-ca and verify-full require a certificate authority: specify its file with "
            "sslrootcert or SSL_CERT_FILE"
        )
    # The messages of other errors may contain any part of the URL, including the password.
    is_safe = isinstance(cause, asyncpg.ClientConfigurationError) or getattr(cause, "sqlstate", None) is not None
    return message_of(cause).partition("\n")[0] if is_safe else type(cause).__name__


def why_not_connected(exc: BaseException, dsn: str, address: str | None) -> Text:
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
