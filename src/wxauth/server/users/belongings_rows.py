"""The number and the consents that a user gets or loses with identities, and the events that say so."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.trail import Actor, EventType, record_event


class Belongings(SQLModel):
    """What a user has that can move to another one, besides identities and profile."""

    phone: str | None
    consents: dict[str, str] | None
    """The present ones, document → version."""


_READ: Final = Statement[Belongings]("SELECT phone, consents FROM users WHERE id = :user_id")


async def belongings_of(transaction: Transaction, user_id: UUID) -> Belongings:
    """The belongings of a locked user."""
    found = await transaction.row(_READ, user_id=user_id)
    assert found is not None
    return found


async def record_moved(
    transaction: Transaction, user_id: UUID, before: Belongings, *, by: Actor, now: datetime
) -> None:
    """Record what a locked user has got or lost since `before`."""
    after = await belongings_of(transaction, user_id)
    if after.phone != before.phone:
        kind = EventType.PHONE_REMOVED if after.phone is None else EventType.PHONE_BOUND
        await record_event(transaction, kind, by=by, at=now, user_id=user_id)
    held, holding = before.consents or {}, after.consents or {}
    for document, version in sorted({**held, **holding}.items()):
        if held.get(document) != holding.get(document):
            kind = EventType.CONSENT_GIVEN if document in holding else EventType.CONSENT_WITHDRAWN
            consent = {"document": document, "version": version}
            await record_event(transaction, kind, by=by, at=now, user_id=user_id, data=consent)
