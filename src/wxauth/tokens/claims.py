"""What an access token says (RFC 9068), and who it makes the caller."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

ALGORITHM: Final = "ES256"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - the media type of RFC 9068, section 2.1


@dataclass(frozen=True, slots=True)
class Principal:
    """The user behind a checked access token."""

    id: UUID
    app_id: str
    openid: str
    session_id: UUID
    roles: frozenset[str]
    claims: Mapping[str, Any]
    """All claims of the token, read-only."""
