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
    """An app that was added at run time, with its secrets encrypted. Apps in the settings are not stored."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    is_enabled: bool
    created_at: datetime = Field(sa_type=TIME)
    fields: dict[str, Any] = Field(sa_type=JSONB)
    """The fields of `App` that are set, by name, without the id and the secrets."""
    secrets: bytes = Field(sa_type=BYTEA, repr=False)
    """The secrets by name, as one encrypted JSON object."""


class StoredApp(SealedApp, table=True):
    """The table of the apps that were added at run time."""

    __tablename__ = "apps"


_COLUMNS: Final = ", ".join(columns_of(SealedApp))
# This statement returns the apps in the order in which they were added.
STORED_APPS: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps ORDER BY created_at, app_id")
LOCK_APP: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps WHERE app_id = :app_id FOR UPDATE")
# If several requests add the same id simultaneously, only one of them gets a row back. The others add nothing.
ADD_APP: Final = Statement[str](f"""
INSERT INTO apps ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in columns_of(SealedApp))})
ON CONFLICT DO NOTHING
RETURNING app_id
""")
CHANGE_APP: Final = Statement[Nothing]("""
UPDATE apps SET is_enabled = :is_enabled, fields = :fields, secrets = :secrets WHERE app_id = :app_id
""")
DELETE_APP: Final = Statement[str]("DELETE FROM apps WHERE app_id = :app_id RETURNING app_id")
# The statement deletes the app only if its secrets are still the ones that the caller has read.
DELETE_APP_WITH_SECRETS: Final = Statement[str]("""
DELETE FROM apps WHERE app_id = :app_id AND secrets = :secrets RETURNING app_id
""")
# `wxauth secret reseal` calls this object to store the secrets that it has encrypted again.
reseal_app: Final = Reseal.of("apps", "secrets", key="app_id")
# An app must not have the name of a site, because the claim `client_id` of a token contains either the app's id or the
# site's name, and services could not tell which. A client is a site if it has a title. A removed site also counts
# until its row is deleted.
IS_NAME_OF_SITE: Final = Statement[bool]("SELECT EXISTS (SELECT FROM clients WHERE name = :name AND title IS NOT NULL)")


class SealedTicket(SQLModel):
    """The encrypted JS-SDK ticket of an app. The signatures for the app's pages in WeChat are made with the ticket.

    If the operator changes the secret key, the stored tickets are not encrypted again, because a ticket expires after
    two hours.
    """

    app_id: str = Field(sa_type=Text, primary_key=True)
    ticket: bytes | None = Field(sa_type=BYTEA, repr=False)
    """The encrypted ticket; null until the first ticket has been fetched."""
    ends_at: datetime = Field(sa_type=TIME)
    """The time at which the ticket expires."""
    renews_at: datetime = Field(sa_type=TIME)
    """The time from which a process may fetch the next ticket."""


class JsTicket(SealedTicket, table=True):
    """The table of the tickets, each with the lease of the process that may fetch the next ticket."""

    __tablename__ = "js_tickets"

    leased_until: datetime = Field(sa_type=TIME)
    """The time until which only the process with the lease may fetch a ticket.

    After a failure, no process may fetch a ticket until this time.
    """


FIND_TICKET: Final = Statement[SealedTicket](
    "SELECT app_id, ticket, ends_at, renews_at FROM js_tickets WHERE app_id = :app_id"
)
# This statement decides which process of all replicas fetches a ticket. A process gets the lease if no other process
# holds it. In addition, one of three conditions must hold: no ticket is stored, the stored ticket is due for renewal,
# or the stored ticket is still the one that the process cannot use. The other processes use the ticket that this
# process stores. A lease does not count if it ends more than 10 seconds later than a new lease would end, because a
# replica with a wrong clock has taken it. The 10 seconds allow for small differences between the replicas' clocks.
LEASE_TICKET: Final = Statement[str]("""
INSERT INTO js_tickets AS t (app_id, ends_at, renews_at, leased_until) VALUES (:app_id, :now, :now, :until)
ON CONFLICT (app_id) DO UPDATE SET leased_until = :until
 WHERE NOT (t.leased_until > :now AND t.leased_until < :until::timestamptz + interval '10 seconds')
   AND (t.renews_at <= :now OR t.ticket IS NOT DISTINCT FROM :unusable)
RETURNING app_id
""")
# This statement also ends the lease.
STORE_TICKET: Final = Statement[Nothing]("""
UPDATE js_tickets SET ticket = :ticket, ends_at = :ends_at, renews_at = :renews_at, leased_until = :now
 WHERE app_id = :app_id
""")
# After a failure, this statement sets the end of the lease to `until`, so that no process requests a ticket from WeChat
# before this time.
PAUSE_TICKET: Final = Statement[Nothing]("UPDATE js_tickets SET leased_until = :until WHERE app_id = :app_id")
