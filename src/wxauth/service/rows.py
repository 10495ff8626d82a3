"""What operators ask of all that is stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from wxauth.core.database import Database
from wxauth.people.number_rows import OPEN_SESSIONS

_STATISTICS: Final = f"""
SELECT ({OPEN_SESSIONS}) AS open_sessions,
       (SELECT max(activates_at) FROM signing_keys WHERE activates_at <= $1) AS key_signs_since
"""  # noqa: S608 - put together from constants


async def statistics(database: Database, *, now: datetime) -> Mapping[str, Any]:
    """`open_sessions`, and `key_signs_since`, when the newest signing key began to sign.

    Raises: StorageUnavailable.
    """
    row: Mapping[str, Any] = await database.fetchrow(_STATISTICS, now)
    return row
