"""A person: a user with one of their identities."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """A user, by one of their identities."""

    user_id: UUID
    app_id: str
    openid: str
