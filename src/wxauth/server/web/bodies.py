"""Types and examples that the bodies and parameters of all rooms share."""

import re
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""A pattern for text that is stored. It allows no control characters: PostgreSQL refuses a NUL."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")


def _written_out(value: object) -> object:
    # Pydantic would also accept a number, and guess whether it means seconds or milliseconds.
    if not isinstance(value, str) or not _DATE.match(value):
        raise ValueError("Must be a time with its offset, such as 2026-11-20T08:00:00+08:00")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("Must be a time in the years 1 to 9999 of UTC") from None


Time = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time with an offset, converted to UTC. A time whose UTC is beyond the years 1 to 9999 is refused."""


def _network(value: object) -> object:
    try:
        return ip_network(value.strip(), strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("Must be an address or a network, such as 203.0.113.0/24") from None


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string", "examples": ["203.0.113.0/24"]}),
]
"""A network in CIDR notation, or an address."""


def _null(value: object) -> None:
    if value is not None:
        raise ValueError("Must be null, or absent")


OnlyNull = Annotated[None, BeforeValidator(_null)]
"""A field that can only be cleared."""

EXAMPLE_APP_ID: Final = "wx1a2b3c4d5e6f7a8b"
EXAMPLE_USER_ID: Final = "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"
EXAMPLE_OPENID: Final = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
EXAMPLE_SESSION_ID: Final = "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2"
ShownAppId = Annotated[str, Field(examples=[EXAMPLE_APP_ID])]
ShownUserId = Annotated[UUID, Field(examples=[EXAMPLE_USER_ID])]
ShownOpenid = Annotated[str, Field(examples=[EXAMPLE_OPENID])]
ShownSessionId = Annotated[UUID, Field(examples=[EXAMPLE_SESSION_ID])]
ShownIp = Annotated[str, Field(examples=["203.0.113.7"])]
ShownNickname = Annotated[str | None, Field(examples=["小明"])]
ShownPictureUrl = Annotated[str | None, Field(examples=["https://example.com/avatars/1.png"])]
ShownEventId = Annotated[UUID, Field(examples=["01933c62-14e0-7b11-8f3a-5d2c7e9a4b60"])]
"""The fields of answers, with examples that always show the same people, apps and sessions."""
