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
    """A used signature, or a withdrawal that was handled, as digests. It contains nothing about users."""

    __tablename__ = "push_messages"

    # The SHA-256 of the app_id, and of the text that WeChat has signed or the withdrawal's fields.
    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    # The SHA-256 of the first message with this signature. It is null for a handshake, and for a withdrawal.
    content: bytes | None = Field(sa_type=BYTEA)
    kept_until: datetime = Field(sa_type=TIME)


# WeChat repeats a withdrawal within seconds, but a repetition that is not recognized would erase what the user has
# entered since.
WITHDRAWALS_KEPT: Final = timedelta(days=30)
# A signature is valid for less time, and the retry of a failed withdrawal, which claims the withdrawal's signature
# again, waits in memory for less (`KEPT_IN_MEMORY_SECONDS` in `push/receiving.py`).
SIGNATURES_KEPT: Final = timedelta(hours=2)

# Of two messages with one signature, the second waits for the first to commit, and is compared. Unlike DO NOTHING, DO
# UPDATE returns the row.
_CLAIM: Final = Statement[bool]("""
INSERT INTO push_messages (digest, content, kept_until) VALUES (:digest, :content, :until)
ON CONFLICT (digest) DO UPDATE SET kept_until = push_messages.kept_until
RETURNING content IS NOT DISTINCT FROM :content AS is_same_message
""")
# The statement runs in the transaction of the withdrawal. A second delivery at the same time waits for it to commit,
# and gets no row.
REMEMBER_WITHDRAWAL: Final = Statement[bytes]("""
INSERT INTO push_messages (digest, kept_until) VALUES (:digest, :until)
ON CONFLICT (digest) DO NOTHING
RETURNING digest
""")
sweep_messages: Final = Sweep.of("push_messages", key="digest", by="kept_until")


async def claim_signature(database: Database, signature: PushSignature, *, now: datetime) -> None:
    """Record that a signature belongs to its message or, without `message_digest`, to a handshake.

    Raises: InvalidSignature, if the signature already belongs to something else.
    """
    until = now + SIGNATURES_KEPT
    if not await database.value(_CLAIM, digest=signature.digest, content=signature.message_digest, until=until):
        raise InvalidSignature(
            "this timestamp and nonce were already used for another message, or for the verification of the URL"
        )
