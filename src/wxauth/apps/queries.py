"""The tables and statements for the apps added at run time, and for the JS-SDK tickets that all replicas share."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.upkeep import Reseal


class SealedApp(SQLModel):
    """An app that was added at run time, with its secrets encrypted."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    is_enabled: bool
    created_at: datetime = Field(sa_type=TIME)
    fields: dict[str, Any] = Field(sa_type=JSONB)
    """The fields of `App` that are set, without the id and the secrets."""
    secrets: bytes = Field(sa_type=BYTEA, repr=False)  # by name, as one encrypted JSON object


class StoredApp(SealedApp, table=True):
    __tablename__ = "apps"


_COLUMNS: Final = ", ".join(columns_of(SealedApp))

STORED_APPS: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps ORDER BY created_at, app_id")
LOCK_APP: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps WHERE app_id = :app_id FOR UPDATE")
# Of several requests that add an id at once, only one gets a row back.
ADD_APP: Final = Statement[str](f"""
INSERT INTO apps ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in columns_of(SealedApp))})
ON CONFLICT DO NOTHING
RETURNING app_id
""")
CHANGE_APP: Final = Statement[Nothing]("""
UPDATE apps SET is_enabled = :is_enabled, fields = :fields, secrets = :secrets WHERE app_id = :app_id
""")
DELETE_APP: Final = Statement[str]("DELETE FROM apps WHERE app_id = :app_id RETURNING app_id")

# An app whose secrets an administrator has just replaced remains.
DELETE_APP_WITH_SECRETS: Final = Statement[str]("""
DELETE FROM apps WHERE app_id = :app_id AND secrets = :secrets RETURNING app_id
""")

reseal_app: Final = Reseal.of("apps", "secrets", key="app_id")
# `client_id` in a token is an app's id or a site's name, and services could not tell which. A client with a title is a
# site. A removed one counts until its row is deleted.
IS_NAME_OF_SITE: Final = Statement[bool]("SELECT EXISTS (SELECT FROM clients WHERE name = :name AND title IS NOT NULL)")


class SealedTicket(SQLModel):
    """The ticket of an app. It expires after two hours, so it is not encrypted again with a new secret key."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    ticket: bytes | None = Field(sa_type=BYTEA, repr=False)  # encrypted; null until the first one is fetched
    ends_at: datetime = Field(sa_type=TIME)
    renews_at: datetime = Field(sa_type=TIME)
    """From then on, a process may fetch the next ticket."""


class JsTicket(SealedTicket, table=True):
    """The table of the tickets, each with the lease of the process that may fetch the next ticket."""

    __tablename__ = "js_tickets"

    leased_until: datetime = Field(sa_type=TIME)
    """Until then, only the process with the lease may fetch a ticket or, after a failure, none may."""


FIND_TICKET: Final = Statement[SealedTicket](
    "SELECT app_id, ticket, ends_at, renews_at FROM js_tickets WHERE app_id = :app_id"
)
# Of the processes of all replicas, only one gets a row back. This process fetches a ticket, which the others then use.
LEASE_TICKET: Final = Statement[str]("""
INSERT INTO js_tickets AS t (app_id, ends_at, renews_at, leased_until) VALUES (:app_id, :now, :now, :until)
ON CONFLICT (app_id) DO UPDATE SET leased_until = :until
 -- a lease that ends later, but for small differences between the clocks, is of a replica with a wrong clock
 WHERE NOT (t.leased_until > :now AND t.leased_until < :until::timestamptz + interval '10 seconds')
   -- :unusable is the stored ticket if it cannot be used; null matches a row without a ticket
   AND (t.renews_at <= :now OR t.ticket IS NOT DISTINCT FROM :unusable)
RETURNING app_id
""")

# The statement also ends the lease. If the lease had ended before, another process might be fetching a ticket, too. The
# ticket that is stored last remains.
STORE_TICKET: Final = Statement[Nothing]("""
UPDATE js_tickets SET ticket = :ticket, ends_at = :ends_at, renews_at = :renews_at, leased_until = :now
 WHERE app_id = :app_id
""")
# After a failure, no process requests a ticket before this end of the lease.
PAUSE_TICKET: Final = Statement[Nothing]("UPDATE js_tickets SET leased_until = :until WHERE app_id = :app_id")
