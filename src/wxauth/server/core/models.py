"""What all tables share, and the tables of no room: events, sweeps, attempts.

Constraints and triggers refuse invalid rows.
"""

from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import PlainSerializer
from sqlalchemy import DDL, CheckConstraint, DateTime, ForeignKeyConstraint, Index, MetaData, Text, text
from sqlalchemy.dialects.postgresql import BYTEA, INET, JSONB
from sqlalchemy.event import listen
from sqlmodel import Field, SQLModel

# Rows are made without validation (`model_of`), so the validators of most of their models would never be used: 1.3 MB.
SQLModel.model_config["defer_build"] = True

SCHEMA_NAMES = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
SQLModel.metadata.naming_convention = SCHEMA_NAMES

TIME = DateTime(timezone=True)
BY_ANOTHER = "(actor = user_id::text) IS NOT TRUE"
"""SQL: whether an event is by somebody else than the user concerned."""


def after_create(table: type[SQLModel], *statements: str) -> None:
    """Have statements run after the table's CREATE TABLE, such as triggers, which SQLAlchemy cannot express."""
    for statement in statements:
        listen(table.__table__, "after_create", DDL(statement.replace("%", "%%")))  # type: ignore[attr-defined, no-untyped-call]  # SQLModel adds the table


def of_identity() -> ForeignKeyConstraint:
    """The foreign key of a row that is an identity's: it goes with a merge, and is deleted with the identity."""
    key = ["app_id", "openid"]
    return ForeignKeyConstraint(key, [f"identities.{name}" for name in key], ondelete="CASCADE", onupdate="CASCADE")


def all_tables() -> MetaData:
    """The tables of all rooms, for migrations and checks. A table with few statements is declared beside them."""
    for path in Path(__file__).parents[1].glob("*/*s.py"):
        if path.stem == "models" or path.stem.endswith("rows"):
            import_module(f"wxauth.server.{path.parent.name}.{path.stem}")
    return SQLModel.metadata


def shown_address(ip: object | None) -> str | None:
    """An address as asyncpg reads it, as text."""
    return None if ip is None else str(ip)


Address = Annotated[object | None, PlainSerializer(shown_address, return_type=str | None)]
"""An address, as asyncpg reads it."""


class SharedEvent(SQLModel):
    """An event, without the address: what other services get."""

    id: UUID = Field(
        primary_key=True,
        description="UUIDv7; the `webhook-id` too.",
        schema_extra={"examples": ["01933c62-14e0-7b11-8f3a-5d2c7e9a4b60"]},
    )
    type: str = Field(sa_type=Text, schema_extra={"examples": ["session.ended"]})
    at: datetime = Field(sa_type=TIME)
    user_id: UUID | None = Field(
        description="To whom.", schema_extra={"examples": ["01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]}
    )
    """Not a foreign key: the event outlives the user."""
    app_id: str | None = Field(sa_type=Text, schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]})
    actor: str = Field(
        sa_type=Text,
        description="The id of the user or the name of the service client that did it, `operator` by command, "
        "`wechat` by push, or `system`.",
        schema_extra={"examples": ["system"]},
    )
    data: dict[str, Any] = Field(
        sa_type=JSONB,
        sa_column_kwargs={"server_default": text("'{}'")},
        description="Details that depend on the type; empty if the user was erased.",
        schema_extra={"examples": [{"session_ids": ["01933c5e-9a3d-7b1f-8c5e-1d2f3a4b5c6d"], "reason": "reused"}]},
    )


class EventFields(SharedEvent):
    """An event of the audit trail. Only an erased person's data and old addresses are removed from it."""

    ip: Address = Field(sa_type=INET, description="From where.", schema_extra={"examples": ["203.0.113.7"]})


class Event(EventFields, table=True):
    """An event of the audit trail."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("type ~ '^[a-z][a-z_.]{0,63}$'", name="type"),
        CheckConstraint("actor <> ''", name="actor"),
        CheckConstraint("jsonb_typeof(data) = 'object'", name="data"),
        Index(None, "user_id", "id"),
        Index(None, "type", "id"),
        Index(None, "actor", "id", postgresql_where=text("ip IS NOT NULL")),
        # What somebody did to others. Most events are of people about themselves, and are found by `user_id`.
        Index(None, "actor", "type", "id", postgresql_where=text(BY_ANOTHER)),
    )


# Each event about a user sorts after the user's newest one, by id and by time. The transaction that records it has
# locked the user, so this is the order of the commits, even if the clocks of two replicas differ or one is set back.
# A plan made while the table was small, or analyzed while it held one user, would read all of it for each event: 30,000
# events took over two minutes. Without sequential scans, only the index on these two columns fits a comparison of rows.
# With `user_id = …`, any order by the user is dropped, and the planner may read the primary key backwards.
after_create(
    Event,
    """
        CREATE FUNCTION put_after_newest() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
        DECLARE
            newest record;
            milliseconds bigint;
        BEGIN
            SELECT id, at INTO newest FROM events
             WHERE (user_id, id) >= (NEW.user_id, '00000000-0000-0000-0000-000000000000')
               AND (user_id, id) <= (NEW.user_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
             ORDER BY user_id DESC, id DESC LIMIT 1;
            IF newest.id >= NEW.id OR newest.at > NEW.at THEN
                milliseconds := ('x' || left(replace(newest.id::text, '-', ''), 12))::bit(48)::bigint + 1;
                NEW.id := (lpad(to_hex(milliseconds), 12, '0') || right(replace(NEW.id::text, '-', ''), 20))::uuid;
                NEW.at := greatest(NEW.at, newest.at + interval '1 millisecond');
            END IF;
            RETURN NEW;
        END
        $$
    """,
    """
        CREATE TRIGGER events_put_after_newest BEFORE INSERT ON events
            FOR EACH ROW EXECUTE FUNCTION put_after_newest()
    """,
)


# Refuses changes and deletions of events, except to remove an erased person's data, to truncate old addresses, and to
# delete old events.
after_create(
    Event,
    """
        CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW.ip IS NULL AND NEW.data IN ('{}', OLD.data)
               AND (NEW.id, NEW.type, NEW.at, NEW.actor, NEW.user_id, NEW.app_id)
                   IS NOT DISTINCT FROM (OLD.id, OLD.type, OLD.at, OLD.actor, OLD.user_id, OLD.app_id) THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'events are append-only';
        END
        $$
    """,
    """
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW WHEN (current_setting('wxauth.sweeping', true) IS DISTINCT FROM 'on')
            EXECUTE FUNCTION events_are_append_only()
    """,
)


class Sweep(SQLModel, table=True):
    """The progress of a sweep. Any worker may continue it."""

    __tablename__ = "sweeps"

    name: str = Field(sa_type=Text, primary_key=True)
    after: UUID
    """The id of the last row that was checked."""
    due_at: datetime = Field(sa_type=TIME)
    """When the next page is due; after the last page, when the next sweep begins."""


class AttemptCount(SQLModel, table=True):
    """A person's attempts of one kind within a window of at most an hour, such as calls that use up WeChat's quota."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("octet_length(key) = 32", name="key"),
        CheckConstraint("number >= 0", name="number"),
        Index(None, "since"),
    )

    key: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the kind and the person's identity or unionid. An erasure does not delete it, to keep the count."""
    since: datetime = Field(sa_type=TIME)
    """When the window began."""
    number: int
