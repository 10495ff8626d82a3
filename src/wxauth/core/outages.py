"""The classification of the driver's errors, for example into outages, conflicts and wrong URLs."""

from typing import Final

import asyncpg

from wxauth.core.database_errors import ChangesClashed, ConnectionLost, DatabaseUrlRefused, NotConnected
from wxauth.core.logs import get_logger
from wxauth.core.outage_log import outage_log
from wxauth.core.outage_texts import reason_of, why_not_connected
from wxauth.errors import StorageUnavailable
from wxauth.i18n import lazy_gettext as _

NO_RESPONSE: Final = _("the database doesn't respond")
"""The detail of the error if there is no connection, or if PostgreSQL does not respond in time."""
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

They include the errors that mean that PostgreSQL refuses wxauth, and the errors of a statement that took too long, for
example because it waited for a lock.
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

log = get_logger()


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


def raise_if_not_connected(exc: Exception, dsn: str, address: str | None = None) -> None:
    """Raise an error that explains why no connection could be opened. If the failure has another meaning, do nothing.

    `address` is the address that was tried, if the host has several addresses.

    Raises: NotConnected; DatabaseUrlRefused, if the URL itself is wrong.
    """
    # The error for an invalid certificate is both an OSError and a ValueError.
    if isinstance(exc, _WRONG_URL) and not isinstance(exc, OSError):
        raise DatabaseUrlRefused("the database's URL isn't usable") from exc
    if isinstance(exc, _UNAVAILABLE):
        raise NotConnected(why_not_connected(exc, dsn, address)) from exc
