"""Request and answer bodies for webhooks and deliveries."""

from datetime import datetime
from typing import Annotated, Final, NotRequired, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator
from typing_extensions import TypedDict

from wxauth.server.clients.models import CLIENT_NAME
from wxauth.server.core.addresses import MAX_URL
from wxauth.server.events.feed_routes import KnownType
from wxauth.server.events.models import Webhook
from wxauth.server.events.sending import Answer
from wxauth.server.events.webhook_rows import DeliveryState
from wxauth.server.events.webhooks import WithSecret
from wxauth.server.web.bodies import Time
from wxauth.server.web.paging import OrEmpty, PageQuery

_EXAMPLE_NAME: Final = "orders"
_EXAMPLE_URL: Final = "https://orders.example.com/webhooks/wxauth"

_Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]


class NewWebhook(BaseModel):
    """A webhook to add."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": _EXAMPLE_NAME, "url": _EXAMPLE_URL, "types": ["user.erased", "user.merged"]}]
        },
        hide_input_in_errors=True,
    )

    name: Annotated[str, StringConstraints(pattern=f"^{CLIENT_NAME}$")]
    url: _Url = Field(description="https, or http in a private network.")
    types: list[KnownType] | None = Field(default=None, description="Default: all types.")


class WebhookChange(BaseModel):
    """Changes of a webhook. An absent or null field is unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"is_enabled": True}]}, hide_input_in_errors=True)

    url: _Url | None = None
    types: list[KnownType] | None = Field(default=None, description="Empty: all.")
    is_enabled: StrictBool | None = Field(default=None, description="A webhook that answers 410 is disabled.")


class ReplayRequest(BaseModel):
    """What to deliver again: one event, or all events since a time."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"since": "2026-11-20T08:00:00Z"}]}, hide_input_in_errors=True
    )

    event_id: UUID | None = None
    since: Time | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.event_id is None) == (self.since is None):
            raise ValueError("Must have event_id or since")
        return self


class DeliveriesQuery(PageQuery):
    """Which deliveries to list."""

    state: Annotated[DeliveryState | None, OrEmpty] = None


class WebhookAnswer(TypedDict):
    """A webhook."""

    name: Annotated[str, Field(examples=[_EXAMPLE_NAME])]
    url: Annotated[str, Field(examples=[_EXAMPLE_URL])]
    types: Annotated[list[str], Field(description="Empty: all.", examples=[["user.erased", "user.merged"]])]
    is_enabled: bool
    created_at: datetime
    secret: NotRequired[Annotated[str, Field(description="Signs the webhook's messages. Shown only once.")]]


class TrialAnswer(TypedDict):
    """The outcome of a test message."""

    status: Annotated[int | None, Field(examples=[204])]
    milliseconds: NotRequired[Annotated[int, Field(examples=[12])]]
    error: NotRequired[str]


class ReplayedAnswer(TypedDict):
    """How many events are delivered again."""

    replayed: Annotated[int, Field(examples=[12])]


def webhook_answer(webhook: Webhook) -> WebhookAnswer:
    """A webhook, without its secret."""
    return {
        "name": webhook.name,
        "url": webhook.url,
        "types": webhook.types,
        "is_enabled": webhook.is_enabled,
        "created_at": webhook.created_at,
    }


def new_webhook_answer(new: WithSecret) -> WebhookAnswer:
    """A webhook with its new secret."""
    return {**webhook_answer(new.webhook), "secret": new.secret}


def trial_answer(answer: Answer) -> TrialAnswer:
    """The outcome of a test: a status, or the reason why there is none."""
    if answer.status is None:
        return {"status": None, "error": answer.error or "no answer"}
    return {"status": answer.status, "milliseconds": answer.milliseconds}
