"""The stored tickets of WeChat's JS-SDK: all replicas share those, and one at a time fetches."""

from datetime import datetime
from typing import Final

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.models import TIME
from wxauth.server.core.statements import Nothing, Statement


class JsTicket(SQLModel, table=True):
    """The ticket of an app with which pages in WeChat are signed. It lives for two hours, so it is never resealed."""

    __tablename__ = "js_tickets"

    app_id: str = Field(sa_type=Text, primary_key=True)
    ticket: bytes | None = Field(sa_type=BYTEA, repr=False)
    """Sealed; null until one has been fetched."""
    ends_at: datetime = Field(sa_type=TIME)
    renews_at: datetime = Field(sa_type=TIME)
    """From when the next one is fetched."""
    leased_until: datetime = Field(sa_type=TIME)
    """Until then nobody else fetches."""


class SealedTicket(SQLModel):
    """A stored ticket."""

    ticket: bytes | None
    ends_at: datetime
    renews_at: datetime


_FIND: Final = Statement[SealedTicket]("SELECT ticket, ends_at, renews_at FROM js_tickets WHERE app_id = :app_id")
# Decides the race of several replicas: one gets the lease, the others find what it stores.
_LEASE: Final = Statement[str]("""
INSERT INTO js_tickets AS t (app_id, ends_at, renews_at, leased_until) VALUES (:app_id, :now, :now, :until)
ON CONFLICT (app_id) DO UPDATE SET leased_until = :until
 WHERE t.leased_until <= :now AND (t.renews_at <= :now OR t.ticket = :unusable)
RETURNING app_id
""")
_STORE: Final = Statement[Nothing]("""
UPDATE js_tickets SET ticket = :ticket, ends_at = :ends_at, renews_at = :renews_at, leased_until = :now
 WHERE app_id = :app_id
""")
_RELEASE: Final = Statement[Nothing]("UPDATE js_tickets SET leased_until = :now WHERE app_id = :app_id")


async def find_ticket(database: Database, app_id: str) -> SealedTicket | None:
    """The ticket of an app; None if none has been asked for."""
    return await database.row(_FIND, app_id=app_id)


async def lease_ticket(
    database: Database, app_id: str, *, unusable: bytes | None, until: datetime, now: datetime
) -> bool:
    """Whether this process is to fetch the ticket: because it is time, or because this unusable one is still stored."""
    leased = await database.value(_LEASE, app_id=app_id, unusable=unusable, until=until, now=now)
    return leased is not None


async def store_ticket(
    database: Database, app_id: str, ticket: bytes, *, ends_at: datetime, renews_at: datetime, now: datetime
) -> None:
    """Store a ticket, and give the lease back."""
    await database.run(_STORE, app_id=app_id, ticket=ticket, ends_at=ends_at, renews_at=renews_at, now=now)


async def release_ticket(database: Database, app_id: str, *, now: datetime) -> None:
    """Give the lease back, because WeChat has given no ticket."""
    await database.run(_RELEASE, app_id=app_id, now=now)
