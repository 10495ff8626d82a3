"""Whether this process can serve. The database is asked at most once a second, regardless of the number of probes."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from wxauth.errors import StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, DatabaseUrlRefused, troubles
from wxauth.server.core.logs import get_logger
from wxauth.server.core.schema import current_revision, is_schema_usable
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.login.login_rows import rehearse_login

MAX_AGE: Final = timedelta(seconds=1)
"""How long the database's last answer is reused."""

REHEARSED_FOR: Final = timedelta(seconds=30)
"""How long a rehearsed login counts. One that failed is repeated with the next look at the database."""

OK: Final = "ok"
_REFUSED: Final = "refused by the database: see 'wxauth check'"

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
        troubles.note(exc)
        return False
    if troubles.is_due(monotonic()):
        log.warning(
            "schema_missing",
            what_to_do="run 'wxauth migrate'",
            consequence="not ready until it is there",
        )
    return False


def is_younger(at: datetime | None, age: timedelta, now: datetime) -> bool:
    """Whether this was less than so long ago, by a clock that may have been set back."""
    return at is not None and abs(now - at) < age


class Readiness:
    """The answers of `/readyz`.

    Args:
        database: Checked for a connection, a usable schema, and whether it takes a login, which is rolled back.
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
        self._login = OK
        self._rehearsal: asyncio.Task[None] | None = None
        self._rehearsed_at: datetime | None = None

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
        if self._check is None or (self._check.done() and not is_younger(self._checked_at, MAX_AGE, now)):
            self._checked_at = now
            self._check = asyncio.create_task(self._check_database(), name="readiness")
        return await asyncio.shield(self._check)

    async def _check_database(self) -> Mapping[str, str]:
        try:
            is_usable = await is_schema_usable(self._database)
        except StorageUnavailable:
            return {"database": "does not answer", "schema": "unknown"}
        if not is_usable:
            return {"database": OK, "schema": "behind: run 'wxauth migrate'"}
        return {"database": OK, "schema": OK, "login": await self._of_login()}

    async def _of_login(self) -> str:
        """Whether the database takes a login. Probes wait for the first rehearsal only: later ones may meet a lock."""
        now = self._clock()
        is_first = self._rehearsal is None
        is_running = self._rehearsal is not None and not self._rehearsal.done()
        if not is_running and not (self._login == OK and is_younger(self._rehearsed_at, REHEARSED_FOR, now)):
            self._rehearsed_at = now
            self._rehearsal = asyncio.create_task(self._rehearse(now), name="rehearsal")
            if is_first or self._login != OK:
                await self._rehearsal
        return self._login

    async def _rehearse(self, now: datetime) -> None:
        try:
            reason = await rehearse_login(self._database, now=now)
        except StorageUnavailable:  # it says nothing about the next login
            return
        if reason is not None and self._login == OK:
            log.error("login_refused_by_database", reason=reason, consequence="not ready until it is possible")
        self._login = OK if reason is None else _REFUSED
