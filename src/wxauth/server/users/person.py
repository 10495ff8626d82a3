"""A user together with one identity."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """A user together with one of their identities."""

    user_id: UUID
    app_id: str
    openid: str
