"""The tables of the feed, of webhooks, and of deliveries to webhooks and to sites.

`WebhookAnswer` and `DeliveryRow`, two of the base classes, contain the fields that administrators see.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class UnplacedEvent(SQLModel, table=True):
    """An event for other services that has no place in the feed yet."""

    __tablename__ = "events_unplaced"

    # A number is drawn under the lock of the event's user, so a user's numbers are in the order of their commits.
    number: int = Field(sa_type=BigInteger)
    event_id: UUID = Field(primary_key=True)


class FeedPlace(SQLModel, table=True):
    __tablename__ = "feed"

    position: int = Field(sa_type=BigInteger, primary_key=True)
    event_id: UUID
    type: str = Field(sa_type=Text)


class SweptPlace(SQLModel, table=True):
    """The highest place of a deleted event. Before the first deletion, there is no row."""

    __tablename__ = "feed_swept"

    is_only: bool = Field(primary_key=True)  # always true, so that there is at most one row
    position: int = Field(sa_type=BigInteger)
    event_id: UUID


class WebhookAnswer(SQLModel):
    """A webhook (a URL at which a service receives events), with the fields that administrators see."""

    name: str = Field(sa_type=Text, schema_extra={"examples": ["orders"]})
    url: str = Field(sa_type=Text, schema_extra={"examples": ["https://orders.example.com/webhooks/wxauth"]})
    types: list[str] = Field(
        sa_type=ARRAY(Text),
        description="The types of events that are sent. If the list is empty, all types are sent.",
        schema_extra={"examples": [["user.erased", "user.merged"]]},
    )
    is_enabled: bool
    created_at: datetime = Field(sa_type=TIME)


class Webhook(WebhookAnswer):
    id: UUID = Field(primary_key=True)  # a later webhook with the same name has another id
    secret: bytes = Field(sa_type=BYTEA, repr=False)
    former_secret: bytes | None = Field(sa_type=BYTEA, repr=False)  # also signs until `former_secret_until`
    former_secret_until: datetime | None = Field(sa_type=TIME)

    @property
    def shown(self) -> WebhookAnswer:
        return WebhookAnswer(**self.model_dump(include=set(WebhookAnswer.model_fields)))


class StoredWebhook(Webhook, table=True):
    """A webhook as it is stored, with the time of its last accepted delivery, which administrators do not see."""

    __tablename__ = "webhooks"

    delivered_at: datetime | None = Field(sa_type=TIME)  # up to a minute too early, because it is stored once a minute


class DeliveryState(StrEnum):
    """The state of a delivery: not finished yet, accepted by the receiver, or given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryRow(SQLModel):
    """A delivery, with the fields that a list of deliveries shows."""

    # Each time that wxauth queues the event, the delivery gets a new UUIDv7. For a site, `id` and `event_id` are both
    # the id of the ended session.
    id: UUID = Field(schema_extra={"examples": ["01933c62-1a07-7c55-9d3e-0b6f2a8c4e71"]})
    event_id: UUID = Field(
        primary_key=True,
        description="The `webhook-id` of all attempts.",
        schema_extra={"examples": ["01933c62-14e0-7b11-8f3a-5d2c7e9a4b60"]},
    )
    type: str = Field(sa_type=Text, schema_extra={"examples": ["user.merged"]})  # `logout` for a site
    # The values of DeliveryState, as a literal, because the OpenAPI document then shows them in this schema.
    state: Literal["pending", "delivered", "failed"] = Field(sa_type=Text)
    attempts: int = Field(schema_extra={"examples": [1]})
    status: int | None = Field(
        description="The status that the last finished attempt returned. Null if there was no response.",
        schema_extra={"examples": [500]},
    )
    error: str | None = Field(
        sa_type=Text,
        description="The reason why the last attempt got no response, or why nothing was sent. Otherwise null.",
    )
    next_at: datetime | None = Field(
        sa_type=TIME,
        description="The earliest time of the next attempt. Null if the delivery is finished.",
        schema_extra={"examples": ["2026-11-20T10:00:05Z"]},
    )
    at: datetime = Field(sa_type=TIME, description="When wxauth queued the delivery, or last queued it again.")


class Delivery(DeliveryRow, table=True):
    """A delivery of an event to a webhook, or of a logout token to a site.

    A trigger adds a delivery to a site when a session ends. Until the delivery is deleted after its last attempt, it
    names the user of the site's id_token, even after a merge or an erasure. Without foreign keys, removing a webhook
    with a million deliveries is quick, and ending a session locks no client.
    """

    __tablename__ = "deliveries"

    receiver_id: UUID = Field(primary_key=True)  # a webhook, or a site in the table `clients`
    user_id: UUID | None  # None if the event was deleted while it was being queued
    is_leased: bool  # until `next_at`
    priority: int = Field(sa_type=SmallInteger)  # a `Priority` (see `webhook_queries`)
