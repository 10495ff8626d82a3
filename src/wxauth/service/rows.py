"""What operators ask of all that is stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from wxauth.core.database import Database

# Of the table of sessions at most 16 MiB are read: all of a small one; of a large one some pages, always the
# same, from which the whole is inferred to within some percent. An operator may have cut it into partitions.
_STATISTICS: Final = """
WITH stored AS (
    SELECT GREATEST(sum(pg_relation_size(COALESCE(inhrelid, 'sessions'::regclass))), 1) AS bytes
      FROM (SELECT) AS one LEFT JOIN pg_inherits ON inhparent = 'sessions'::regclass
), sample AS (SELECT LEAST(1.0, 16 * 1048576.0 / bytes) AS share FROM stored)
SELECT (SELECT (count(*) / (SELECT share FROM sample))::bigint
          FROM sessions TABLESAMPLE SYSTEM (100 * (SELECT share FROM sample)) REPEATABLE (0)
         WHERE revoked_at IS NULL AND expires_at > $1) AS open_sessions,
       (SELECT max(activates_at) FROM signing_keys WHERE activates_at <= $1) AS key_signs_since,
       (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
               SELECT at FROM deliveries d
                WHERE d.webhook_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
         WHERE w.is_enabled) AS webhooks_wait_since
"""


async def statistics(database: Database, *, now: datetime) -> Mapping[str, Any]:
    """`open_sessions`; `key_signs_since`, when the newest signing key began to sign; `webhooks_wait_since`.

    Raises: StorageUnavailable.
    """
    row: Mapping[str, Any] = await database.fetchrow(_STATISTICS, now)
    return row
