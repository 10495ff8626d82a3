"""Requests and answers about consents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from wxauth.server.consents.rows import ConsentRow
from wxauth.server.web.bodies import ShownAppId, ShownIp
from wxauth.server.web.paging import NextCursor, OrEmpty, TimedPageQuery

MAX_CONSENTS: Final = 100
"""The largest page of consents, and the default."""


def _texts(value: object) -> object:
    # Refused here, because pydantic's own message would repeat a name that was sent.
    if not (isinstance(value, dict) and all(isinstance(version, str) for version in value.values())):
        raise ValueError("Must be an object of documents and versions, both text")
    return value


class ConsentsRequest(RootModel[Annotated[dict[str, str], BeforeValidator(_texts)]]):
    """The documents that the user agrees to, each with the version in force."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"privacy": "2026-05"}]}, hide_input_in_errors=True)


class ConsentAnswer(TypedDict):
    """A user's consent to a version of a document."""

    document: Annotated[str, Field(examples=["privacy"])]
    version: Annotated[str, Field(examples=["2026-05"])]
    given_at: datetime
    withdrawn_at: Annotated[datetime | None, Field(description="Null while it is valid.")]
    app_id: Annotated[ShownAppId | None, Field(description="The app in which it was given.")]
    ip: Annotated[ShownIp | None, Field(description="From where.")]


class ConsentsQuery(TimedPageQuery):
    """Which of one's consents to list."""

    limit: Annotated[int, Field(ge=1, le=MAX_CONSENTS), OrEmpty] = MAX_CONSENTS


class ConsentsAnswer(TypedDict):
    """Some consents of a user, the newest first."""

    items: list[ConsentAnswer]
    next_cursor: NextCursor


def consent_answers(consents: Sequence[ConsentRow]) -> list[ConsentAnswer]:
    """The answer's items for these rows."""
    return [
        {
            "document": consent.document,
            "version": consent.version,
            "given_at": consent.given_at,
            "withdrawn_at": consent.withdrawn_at,
            "app_id": consent.app_id,
            "ip": None if consent.ip is None else str(consent.ip),
        }
        for consent in consents
    ]
