"""Whether this process can serve. The database is asked at most once a second, regardless of the number of probes."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, DatabaseUrlRefused, trouble_of, troubles
from wxauth.server.core.logs import get_logger
from wxauth.server.core.schema import current_revision, is_schema_usable
from wxauth.server.keys.keyring import KeyRing

MAX_AGE: Final = timedelta(seconds=1)
"""How long the database's last answer is reused."""

OK: Final = "ok"

log = get_logger()


async def is_migrated(database: Database) -> bool:
    """Whether the database answers and has a schema. If not, that and the remedy are logged at intervals.

    Raises: DatabaseUrlRefused.
    """
    try:
        if await current_revision(database) is not None:
            return True
    except DatabaseUrlRefused:
        raise
    except StorageUnavailable as exc:
        if troubles.is_due(monotonic()):
            log.warning("database_does_not_answer", reason=trouble_of(exc).en, consequence="not ready until it does")
        return False
    if troubles.is_due(monotonic()):
        log.warning(
            "schema_missing",
            what_to_do="run 'wxauth migrate'",
            consequence="not ready until it is there",
        )
    return False


class Readiness:
    """The answers of `/readyz`.

    Args:
        database: Checked for a connection and a usable schema.
        keys: Checked for a signing key.
        clock: The time.
    """

    def __init__(self, database: Database, keys: KeyRing, clock: Clock) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._check: asyncio.Task[Mapping[str, str]] | None = None
        self._checked_at: datetime | None = None
        self._is_leaving = False

    def leave(self) -> None:
        """From now on, report that this process is ending, so that it gets no new requests."""
        self._is_leaving = True

    async def checks(self) -> dict[str, str]:
        """The state of each part by name: `OK`, or what is wrong with it."""
        if self._is_leaving:
            return {"process": "is ending"}
        return {**await self._of_database(), "signing_key": OK if self._keys.is_ready else "not read yet"}

    async def _of_database(self) -> Mapping[str, str]:
        now = self._clock()
        if self._check is None or (self._check.done() and not self._is_fresh(now)):
            self._checked_at = now
            self._check = asyncio.create_task(self._check_database(), name="readiness")
        return await asyncio.shield(self._check)

    def _is_fresh(self, now: datetime) -> bool:
        return self._checked_at is not None and abs(now - self._checked_at) < MAX_AGE

    async def _check_database(self) -> Mapping[str, str]:
        try:
            is_usable = await is_schema_usable(self._database)
        except StorageUnavailable:
            return {"database": "does not answer", "schema": "unknown"}
        return {"database": OK, "schema": OK if is_usable else "behind: run 'wxauth migrate'"}
