"""The statistics for the metrics."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from wxauth.server.core.database import Database
from wxauth.server.numbers.rows import OPEN_SESSIONS

_STATISTICS: Final = f"""
SELECT ({OPEN_SESSIONS}) AS open_sessions,
       (SELECT max(activates_at) FROM signing_keys WHERE activates_at <= $1) AS key_signs_since,
       (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
               SELECT at FROM deliveries d
                WHERE d.webhook_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
         WHERE w.is_enabled) AS webhooks_wait_since,
       (SELECT count(*) FROM erasures) AS erasures
"""  # noqa: S608 - put together from constants


async def statistics(database: Database, *, now: datetime) -> Mapping[str, Any]:
    """`open_sessions`; `key_signs_since`, when the newest signing key began to sign; `webhooks_wait_since`; `erasures`.

    Raises: StorageUnavailable.
    """
    row: Mapping[str, Any] = await database.fetchrow(_STATISTICS, now)
    return row
