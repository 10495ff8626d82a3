"""The table and the statements with which wxauth detects replayed signatures and repeated withdrawals."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database
from wxauth.core.models import TIME
from wxauth.core.statements import Statement
from wxauth.core.upkeep import Sweep
from wxauth.errors import InvalidSignature
from wxauth.wechat.messages import PushSignature


class PushMessage(SQLModel, table=True):
    """A used signature, or a withdrawal that wxauth has handled.

    Both are stored as digests. The table contains nothing about users.
    """

    __tablename__ = "push_messages"

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """The SHA-256 that identifies the signature or the withdrawal.

    For a signature, it is made of the app_id and the text that WeChat has signed: the push_token, the timestamp and the
    nonce. For a withdrawal, it is made of the app_id and the fields that identify the withdrawal.
    """
    content: bytes | None = Field(sa_type=BYTEA)
    """The SHA-256 of the first message with this signature.

    It is null for a handshake (WeChat's verification of the push URL), and for a withdrawal that wxauth has handled.
    """
    kept_until: datetime = Field(sa_type=TIME)
    """The time after which the sweep deletes the row."""


WITHDRAWALS_KEPT: Final = timedelta(days=30)
"""The time for which a repeated withdrawal is recognized.

WeChat repeats a withdrawal within a few seconds. The time is much longer, because a repetition that is not recognized
would erase what the user has entered since. Withdrawals are few, so they take little space.
"""
SIGNATURES_KEPT: Final = timedelta(hours=2)
"""The time for which a used signature is recognized.

This time is longer than the validity of a signature, and longer than the time for which a withdrawal waits in
memory during a database outage (`KEPT_IN_MEMORY_SECONDS` in receiving.py).
"""

# If two messages have the same signature, the second statement waits until the first one has committed. PostgreSQL then
# compares the contents. DO UPDATE changes nothing here, but unlike DO NOTHING it makes the statement return the row.
_CLAIM: Final = Statement[bool]("""
INSERT INTO push_messages (digest, content, kept_until) VALUES (:digest, :content, :until)
ON CONFLICT (digest) DO UPDATE SET kept_until = push_messages.kept_until
RETURNING content IS NOT DISTINCT FROM :content AS is_same_message
""")
# This statement runs in the transaction that carries out the withdrawal. If WeChat delivers one withdrawal twice at the
# same time, the second statement waits until the first one has committed, and then returns no row.
REMEMBER_WITHDRAWAL: Final = Statement[bytes]("""
INSERT INTO push_messages (digest, kept_until) VALUES (:digest, :until)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
""")
sweep_messages: Final = Sweep.of("push_messages", key="digest", by="kept_until")


async def claim_signature(database: Database, signature: PushSignature, *, now: datetime) -> None:
    """Record that a signature belongs to its message or, if its `message_digest` is None, to a handshake.

    Raises: InvalidSignature, if the signature already belongs to something else.
    """
    until = now + SIGNATURES_KEPT
    if not await database.value(_CLAIM, digest=signature.digest, content=signature.message_digest, until=until):
        raise InvalidSignature(
            "this timestamp and nonce were already used for another message, or for the verification of the URL"
        )
