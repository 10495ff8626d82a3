"""The table of WeChat's pushed messages: replayed signatures and repeated messages are recognised."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database, Sweep
from wxauth.core.models import TIME
from wxauth.core.statements import Statement
from wxauth.errors import InvalidSignature
from wxauth.wechat.received import PushSignature


class PushMessage(SQLModel, table=True):
    """A signature of WeChat's that has been used, or a message that has been carried out, by its digest.

    It stores nothing about the person.
    """

    __tablename__ = "push_messages"

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, timestamp and nonce; or of app_id and what identifies the message."""
    content: bytes | None = Field(sa_type=BYTEA)
    """Of a signature, SHA-256 of the message that had it first; null for the check of the URL, which has none."""
    kept_until: datetime = Field(sa_type=TIME)


MESSAGES_KEPT: Final = timedelta(days=30)
"""How long a repeated message from WeChat is recognised. WeChat repeats a message within seconds."""
SIGNATURES_KEPT: Final = timedelta(hours=2)
"""Longer than a signature is valid, and longer than a message waits in memory during a database outage."""

# Settles the race of two messages with one signature: the second waits until the first has committed, and its
# content is compared with the first one's. The row does not change: DO UPDATE is there because DO NOTHING returns none.
_CLAIM: Final = Statement[bool]("""
INSERT INTO push_messages (digest, content, kept_until) VALUES (:digest, :content, :until)
ON CONFLICT (digest) DO UPDATE SET kept_until = push_messages.kept_until
RETURNING content IS NOT DISTINCT FROM :content AS is_same_message
""")
# In the transaction that carries the message out. Settles the race of one message delivered twice at once: the second
# waits until the first has committed, and gets no row.
REMEMBER_MESSAGE: Final = Statement[bytes]("""
INSERT INTO push_messages (digest, kept_until) VALUES (:digest, :until)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
""")
sweep_messages: Final = Sweep.of("push_messages", key="digest", by="kept_until")


async def claim_signature(database: Database, signature: PushSignature, *, now: datetime) -> None:
    """Bind a signature to this message, across all replicas. Raises: InvalidSignature."""
    until = now + SIGNATURES_KEPT
    if not await database.value(_CLAIM, digest=signature.digest, content=signature.content, until=until):
        raise InvalidSignature("this timestamp and nonce were used for another message, or for the check of the URL")
