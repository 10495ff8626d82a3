"""The stored tickets of WeChat's JS-SDK: all replicas share those, and one at a time fetches."""

from datetime import datetime
from typing import Final

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME
from wxauth.server.core.statements import Nothing, Statement


class SealedTicket(SQLModel):
    """The ticket of an app with which pages in WeChat are signed. It lives for two hours, so it is never resealed."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    ticket: bytes | None = Field(sa_type=BYTEA, repr=False)
    """Sealed; null until one has been fetched."""
    ends_at: datetime = Field(sa_type=TIME)
    renews_at: datetime = Field(sa_type=TIME)
    """From when the next one is fetched."""


class JsTicket(SealedTicket, table=True):
    """A ticket, and who may fetch the next one."""

    __tablename__ = "js_tickets"

    leased_until: datetime = Field(sa_type=TIME)
    """Until then nobody else fetches."""


FIND_TICKET: Final = Statement[SealedTicket](
    "SELECT app_id, ticket, ends_at, renews_at FROM js_tickets WHERE app_id = :app_id"
)
# Decides the race of several replicas: one gets the lease, because it is time, or because this unusable ticket, or
# none, is still stored; the others find what it stores. A lease of a wrong clock ends later than one from now can.
LEASE_TICKET: Final = Statement[str]("""
INSERT INTO js_tickets AS t (app_id, ends_at, renews_at, leased_until) VALUES (:app_id, :now, :now, :until)
ON CONFLICT (app_id) DO UPDATE SET leased_until = :until
 WHERE NOT (t.leased_until > :now AND t.leased_until < :until::timestamptz + interval '10 seconds')
   AND (t.renews_at <= :now OR t.ticket IS NOT DISTINCT FROM :unusable)
RETURNING app_id
""")
STORE_TICKET: Final = Statement[Nothing]("""
UPDATE js_tickets SET ticket = :ticket, ends_at = :ends_at, renews_at = :renews_at, leased_until = :now
 WHERE app_id = :app_id
""")
# After a failure, no other process asks WeChat before `until`.
RELEASE_TICKET: Final = Statement[Nothing]("UPDATE js_tickets SET leased_until = :until WHERE app_id = :app_id")
