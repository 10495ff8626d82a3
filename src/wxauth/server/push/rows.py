"""Statements that recognise replayed signatures and repeated messages."""

from datetime import datetime
from typing import Final

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.wechat.push import PushSignature

# Settles the race of two messages with one signature: the second waits until the first has committed, and its
# content is compared with the first one's. The row does not change: DO UPDATE is there because DO NOTHING returns none.
_CLAIM: Final = Statement[bool]("""
INSERT INTO push_nonces (digest, content, received_at) VALUES (:digest, :content, :now)
ON CONFLICT (digest) DO UPDATE SET received_at = push_nonces.received_at
RETURNING content IS NOT DISTINCT FROM :content AS is_same_message
""")
# Settles the race of one message delivered twice at once: the second waits until the first has committed.
_REMEMBER: Final = Statement[bytes]("""
INSERT INTO push_messages (digest, app_id, received_at) VALUES (:digest, :app_id, :now)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
""")
_SWEEP_NONCES: Final = Statement[Nothing]("""
DELETE FROM push_nonces WHERE digest = ANY (ARRAY(
    SELECT digest FROM push_nonces WHERE received_at < :received_before ORDER BY received_at
     LIMIT :size FOR UPDATE SKIP LOCKED))
""")
_SWEEP_MESSAGES: Final = Statement[Nothing]("""
DELETE FROM push_messages WHERE digest = ANY (ARRAY(
    SELECT digest FROM push_messages WHERE received_at < :received_before ORDER BY received_at
     LIMIT :size FOR UPDATE SKIP LOCKED))
""")


async def claim_signature(database: Database, signature: PushSignature, *, now: datetime) -> bool:
    """Bind a signature to this message. False if it came with another message before. Raises: StorageUnavailable."""
    return bool(await database.value(_CLAIM, digest=signature.digest, content=signature.content, now=now))


async def remember_message(transaction: Transaction, digest: bytes, *, app_id: str, now: datetime) -> bool:
    """Remember a message, in the transaction that carries it out, and return whether it is new."""
    return await transaction.value(_REMEMBER, digest=digest, app_id=app_id, now=now) is not None


async def sweep_nonces(database: Database, *, received_before: datetime, size: int) -> int:
    """Delete up to `size` signatures received before a time, oldest first, and return how many.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        return await transaction.run(_SWEEP_NONCES, received_before=received_before, size=size)


async def sweep_messages(database: Database, *, received_before: datetime, size: int) -> int:
    """Delete up to `size` messages received before a time, oldest first, and return how many.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        return await transaction.run(_SWEEP_MESSAGES, received_before=received_before, size=size)
