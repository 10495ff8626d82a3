"""The time limits of database access."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time limits of database access, in seconds."""

    total: float = 8.0
    """The time limit for a whole statement or transaction, including the wait for a connection.

    The server also closes a connection whose transaction has been idle for this time.
    """
    statement: float = 4.0
    """The time after which the server cancels a statement, so that its transaction releases its locks.

    It is shorter than `silence`, so that the server's error arrives before wxauth closes the connection.
    """
    silence: float = 4.5
    """The time limit for the server's response to a statement. After that, wxauth closes the connection."""
    lock: float = 2.0
    """The time limit for waiting for a lock.

    wxauth usually holds its own locks only for milliseconds, so a long wait is probably for another program's lock.
    Such a wait must end soon, because the waiting request occupies a connection that other requests need.
    """
    connect: float = 3.0
    """The time limit for opening a connection to one address of the database."""
    connect_to_any: float = 6.0
    """The time limit for trying all addresses of the database.

    Each address gets an equal part of this time, but at most `connect`.
    """
    batch_wait: float = 0.002
    """The time after which a running statement no longer delays the next batch (see `core.batching`)."""

    @property
    def server_limits(self) -> dict[str, int]:
        """The limits that the server enforces: the names of PostgreSQL's settings, and their values in milliseconds.

        Behind a pooler, they apply only in transactions, because the pooler does not keep the settings of a session.
        """
        seconds_by_name = {
            "statement_timeout": self.statement,
            "lock_timeout": self.lock,
            "idle_in_transaction_session_timeout": self.total,
        }
        return {name: round(seconds * 1000) for name, seconds in seconds_by_name.items()}


DEADLINES: Final = Deadlines()
"""The time limits of the service and of its commands. Tests use other limits."""
