"""Which of WeChat's messages have been carried out, so that none is twice."""

from datetime import datetime
from typing import Final

from wxauth.core.database import Transaction

# Of two at once the second waits here for the first one's end. $1 digest  $2 app_id  $3 now
_REMEMBER: Final = """
INSERT INTO push_messages (digest, app_id, received_at) VALUES ($1, $2, $3)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
"""


async def remember(transaction: Transaction, digest: bytes, *, app_id: str, now: datetime) -> bool:
    """Whether this is new, in the transaction of what it leads to."""
    return await transaction.fetchval(_REMEMBER, digest, app_id, now) is not None
