"""What WeChat has signed and sent: with which message a signature came, and which messages have been carried out."""

from datetime import datetime
from typing import Final

from wxauth.core.database import Database, Transaction
from wxauth.wechat.push import Signature

# Of two at once the second waits here for the first one's end, and sees what came with it. The row that is there stays
# as it is; it is written again so that it is answered.
# $1 digest of app, timestamp and nonce  $2 digest of the message  $3 now
_CLAIM: Final = """
INSERT INTO push_nonces (digest, content, received_at) VALUES ($1, $2, $3)
ON CONFLICT (digest) DO UPDATE SET received_at = push_nonces.received_at
RETURNING content IS NOT DISTINCT FROM $2 AS is_its_own
"""
# Of two at once the second waits here for the first one's end. $1 digest  $2 app_id  $3 now
_REMEMBER: Final = """
INSERT INTO push_messages (digest, app_id, received_at) VALUES ($1, $2, $3)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
"""
# $1 received before  $2 how many
_SWEEP_NONCES: Final = """
DELETE FROM push_nonces WHERE digest IN (
    SELECT digest FROM push_nonces WHERE received_at < $1 ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_SWEEP_MESSAGES: Final = """
DELETE FROM push_messages WHERE digest IN (
    SELECT digest FROM push_messages WHERE received_at < $1 ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


async def claim(database: Database, signature: Signature, *, now: datetime) -> bool:
    """Whether this message is the one that the signature came with first. Raises: StorageUnavailable."""
    row = await database.fetchrow(_CLAIM, signature.digest, signature.content, now)
    is_its_own: bool = row["is_its_own"]
    return is_its_own


async def remember(transaction: Transaction, digest: bytes, *, app_id: str, now: datetime) -> bool:
    """Whether this is new, in the transaction of what it leads to."""
    return await transaction.fetchval(_REMEMBER, digest, app_id, now) is not None


async def sweep_nonces(database: Database, *, received_before: datetime, size: int) -> int:
    """Forget the oldest signatures; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP_NONCES, received_before, size)


async def sweep_messages(database: Database, *, received_before: datetime, size: int) -> int:
    """Forget the oldest messages; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.execute(_SWEEP_MESSAGES, received_before, size)
