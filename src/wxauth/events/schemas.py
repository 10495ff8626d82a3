"""The bodies of requests and responses about webhooks, and the types of events that siblings (other services) get."""

from typing import Annotated, Any, Final, NotRequired, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StringConstraints, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from wxauth.clients.models import CLIENT_NAME_PATTERN
from wxauth.core.trail import SENT_TO_SIBLINGS, EventType
from wxauth.events.models import DeliveryState, WebhookAnswer
from wxauth.events.sending import SendOutcome
from wxauth.settings.urls import MAX_URL
from wxauth.web.pages import PageQuery
from wxauth.web.schemas import Changes, OrEmpty, Time, body_like

_EXAMPLE_NAME: Final = "orders"
_EXAMPLE_URL: Final = "https://orders.example.com/webhooks/wxauth"

WebhookName = Annotated[str, StringConstraints(pattern=f"^{CLIENT_NAME_PATTERN}$")]
_Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]


def _check_sibling_event_type(value: Any) -> Any:
    if not isinstance(value, str) or value not in SENT_TO_SIBLINGS:
        raise ValueError(f"Must be one of {', '.join(SENT_TO_SIBLINGS)}")
    return value


# A BeforeValidator, because pydantic's own error would name all types of events.
SiblingEventType = Annotated[
    EventType, BeforeValidator(_check_sibling_event_type), WithJsonSchema({"enum": list(SENT_TO_SIBLINGS)})
]


class NewWebhook(BaseModel):
    """A webhook to add."""

    model_config = body_like({"name": _EXAMPLE_NAME, "url": _EXAMPLE_URL, "types": ["user.erased", "user.merged"]})

    name: WebhookName
    url: _Url = Field(description="An https URL, or an http URL on a private network.")
    types: list[SiblingEventType] | None = Field(
        default=None,
        description="The types of events to send. Default: all types.",
    )


class NewWebhookAnswer(WebhookAnswer):
    """A webhook with its new secret, which is shown only once."""

    secret: str = Field(repr=False, description="Signs the webhook's messages. Shown only once.", examples=["whsec_…"])


class WebhookChange(Changes):
    """The changes to a webhook. A field that is absent or null stays unchanged."""

    model_config = body_like({"is_enabled": True})

    url: _Url | None = Field(default=None, description="The new URL.")
    types: list[SiblingEventType] | None = Field(
        default=None, description="The types of events to send from now on. If the list is empty, all types are sent."
    )
    is_enabled: StrictBool | None = Field(
        default=None,
        description="Whether events are sent. When you enable a webhook, wxauth sends the deliveries that were pending "
        "when it was disabled. A response with status 410 disables the webhook.",
    )


class ReplayRequest(BaseModel):
    """The events to deliver again, either one event, or all events since a time."""

    model_config = body_like({"since": "2026-11-20T08:00:00Z"})

    event_id: UUID | None = Field(default=None, description="Send only this event.")
    since: Time | None = Field(default=None, description="Send all events since this time.")

    @model_validator(mode="after")
    def _check_event_or_time(self) -> Self:
        if (self.event_id is None) == (self.since is None):
            raise ValueError("Must have either event_id or since")
        return self


class DeliveriesQuery(PageQuery):
    """The parameters that select deliveries."""

    state: Annotated[DeliveryState | None, OrEmpty] = Field(
        default=None, description="List only deliveries in this state."
    )


class TrialAnswer(TypedDict):
    """The outcome of a test message. `milliseconds` is present only with a status, and `error` only without one."""

    status: Annotated[int | None, Field(examples=[204])]
    milliseconds: NotRequired[Annotated[int, Field(examples=[12])]]
    error: NotRequired[str]


class ReplayedAnswer(BaseModel):
    """The number of events that were queued for delivery."""

    replayed: int = Field(examples=[12])


def trial_answer(outcome: SendOutcome) -> TrialAnswer:
    if outcome.error is not None:
        return {"status": None, "error": outcome.error}
    return {"status": outcome.status, "milliseconds": outcome.milliseconds}
