"""Which of WeChat's messages have been carried out, so that none is twice."""

from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Of two at once the second waits here for the first one's end.
_REMEMBER: Final = text("""
    INSERT INTO push_messages (digest, app_id, received_at) VALUES (:digest, :app_id, :now)
    ON CONFLICT (digest) DO NOTHING
    RETURNING digest
""")


async def remember(transaction: AsyncConnection, digest: bytes, *, app_id: str, now: datetime) -> bool:
    """Whether this is new, in the transaction of what it leads to."""
    values = {"digest": digest, "app_id": app_id, "now": now}
    return (await transaction.execute(_REMEMBER, values)).first() is not None
