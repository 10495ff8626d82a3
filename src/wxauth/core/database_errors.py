"""The errors that wxauth raises because of the database, in addition to StorageUnavailable."""

from typing import Final

import asyncpg

from wxauth.errors import StorageUnavailable
from wxauth.terminal import TextError


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


class ConnectionLost(Exception):
    """The connection was lost during a statement, which may have been executed."""


CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, ChangesClashed)
"""The errors that mean that a concurrent transaction wrote first. A retry sees the changes of that transaction."""
