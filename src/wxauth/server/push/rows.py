"""WeChat's signatures, each with the one message it came with, and the messages that have been carried out."""

from datetime import datetime
from typing import Final

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.wechat.push import Signature

# Settles the race of two messages with one signature: the second waits for the first one's end, and is compared with
# the first one's content. The stored row stays as it is: DO UPDATE is there because DO NOTHING would return no row.
_CLAIM: Final = Statement[bool]("""
INSERT INTO push_nonces (digest, content, received_at) VALUES (:digest, :content, :now)
ON CONFLICT (digest) DO UPDATE SET received_at = push_nonces.received_at
RETURNING content IS NOT DISTINCT FROM :content AS is_its_own
""")
# Settles the race of one message that comes twice at once: the second waits for the first one's end.
_REMEMBER: Final = Statement[bytes]("""
INSERT INTO push_messages (digest, app_id, received_at) VALUES (:digest, :app_id, :now)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
""")
_SWEEP_NONCES: Final = Statement[Nothing]("""
DELETE FROM push_nonces WHERE digest IN (
    SELECT digest FROM push_nonces WHERE received_at < :received_before ORDER BY received_at
        LIMIT :size FOR UPDATE SKIP LOCKED)
""")
_SWEEP_MESSAGES: Final = Statement[Nothing]("""
DELETE FROM push_messages WHERE digest IN (
    SELECT digest FROM push_messages WHERE received_at < :received_before ORDER BY received_at
        LIMIT :size FOR UPDATE SKIP LOCKED)
""")


async def claim(database: Database, signature: Signature, *, now: datetime) -> bool:
    """Whether this signature comes for the first time, or with the same message again. Raises: StorageUnavailable."""
    return bool(await database.value(_CLAIM, digest=signature.digest, content=signature.content, now=now))


async def remember(transaction: Transaction, digest: bytes, *, app_id: str, now: datetime) -> bool:
    """Remember a message, in the transaction that carries it out; whether it is new."""
    return await transaction.value(_REMEMBER, digest=digest, app_id=app_id, now=now) is not None


async def sweep_nonces(database: Database, *, received_before: datetime, size: int) -> int:
    """Delete signatures received before a time, the oldest first; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.run(_SWEEP_NONCES, received_before=received_before, size=size)


async def sweep_messages(database: Database, *, received_before: datetime, size: int) -> int:
    """Delete messages received before a time, the oldest first; how many. Raises: StorageUnavailable."""
    async with database.begin() as transaction:
        return await transaction.run(_SWEEP_MESSAGES, received_before=received_before, size=size)
