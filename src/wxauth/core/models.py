"""The column types that several tables share, the table of events, and a function that returns all tables.

The models define only the columns. The defaults, constraints, indexes and triggers of the tables are defined in the
revisions (`alembic/`).
"""

from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pydantic
from pydantic import PlainSerializer
from sqlalchemy import DateTime, MetaData, Text
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlmodel import Field, SQLModel

# `statements.model_of` creates rows without validation. Building validators that are never used would waste 1.3 MB.
SQLModel.model_config["defer_build"] = True

TIME = DateTime(timezone=True)


def all_tables() -> MetaData:
    """Import the modules that declare tables, and return the tables of all packages.

    A table that few statements use is declared next to these statements, in a module of queries.
    """
    root = Path(__file__).parents[1]
    for path in root.rglob("*.py"):
        if path.stem == "models" or path.stem.endswith("queries"):
            import_module(".".join(("wxauth", *path.relative_to(root).with_suffix("").parts)))
    return SQLModel.metadata


def shown_address(ip: object | None) -> str | None:
    """Return an IP address from asyncpg as text; None if there is no address."""
    return None if ip is None else str(ip)


Address = Annotated[
    object | None, PlainSerializer(shown_address, return_type=str | None), pydantic.Field(examples=["203.0.113.7"])
]  # as asyncpg returns it; in JSON, a string


class SharedEvent(SQLModel):
    """An event without the IP address, as other services receive it."""

    id: UUID = Field(
        primary_key=True,
        description="The id, a UUIDv7. It is also the `webhook-id` of deliveries.",
        schema_extra={"examples": ["01933c62-14e0-7b11-8f3a-5d2c7e9a4b60"]},
    )
    type: str = Field(sa_type=Text, schema_extra={"examples": ["session.ended"]})
    at: datetime = Field(sa_type=TIME)
    user_id: UUID | None = Field(
        description="The user whom the event is about. Null if it is about no user.",
        schema_extra={"examples": ["01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]},
    )  # not a foreign key, because the event outlives the user
    app_id: str | None = Field(
        sa_type=Text,
        description="The app that the event is about. Null if it is about no single app.",
        schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]},
    )
    actor: str = Field(
        sa_type=Text,
        description="The actor: the id of a user, the name of a service client (`client:NAME` if the client moderates "
        "users), `operator` for a command, `wechat` for a message that WeChat pushed, or `system`.",
        schema_extra={"examples": ["system"]},
    )
    data: dict[str, Any] = Field(
        sa_type=JSONB,
        description="Details that depend on the type. After the user is erased, only the details that other services "
        "receive remain.",
        schema_extra={"examples": [{"session_ids": ["01933c5e-9a3d-7b1f-8c5e-1d2f3a4b5c6d"], "reason": "reused"}]},
    )


class EventFields(SharedEvent):
    """The fields of an event in the audit trail.

    wxauth removes the personal data of erased users. It truncates IP addresses after `ADDRESSES_KEPT_DAYS`, and deletes
    most types of events after `EVENTS_KEPT_DAYS`. By default, wxauth keeps addresses and events without a limit.
    """

    ip: Address = Field(sa_type=INET, description="The IP address of the actor.")


class Event(EventFields, table=True):
    __tablename__ = "events"
