"""The claims of an access token (RFC 9068), and the `Principal` that is created from the claims."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Optional
from uuid import UUID

ALGORITHM: Final = "ES256"  # RFC 7518, section 3.4
# The media type of access tokens is this type after `application/` (RFC 9068, section 2.1).
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - not a password


def is_document_url(client_id: str) -> bool:
    """Return whether a client_id is the URL of the document that describes an unregistered client."""
    return client_id.startswith("https://")


class Claims(Mapping[str, Any]):
    """The claims of a token, read-only.

    A `MappingProxyType` would also be read-only, but could not be copied, which `dataclasses.asdict` requires.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: dict[str, Any]) -> None:
        self._claims = claims

    def __getitem__(self, name: str) -> Any:
        value = self._claims[name]
        # All callers with the same token share its claims.
        return deepcopy(value) if isinstance(value, (dict, list)) else value

    def __contains__(self, name: object) -> bool:
        return name in self._claims  # without the copy that `Mapping` would make

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __repr__(self) -> str:
        return repr(self._claims)


def _as_dict(claims: Mapping[str, Any]) -> dict[str, Any]:
    # Pydantic cannot call `dict` itself. Its oldest supported version reads the serializer's signature, and `dict` has
    # none.
    return dict(claims)


class _WrittenAsDict:
    """An annotation with which Pydantic writes the claims as a dict, so that a FastAPI route can return a user."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import PlainSerializer

        return PlainSerializer(_as_dict).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True)
class Principal:
    """The user behind a checked access token."""

    id: UUID
    app_id: str
    """The app_id of the WeChat app to which the openid belongs. A website's token contains it, too.

    In the token of an unregistered client, `app_id` and `openid` are empty.
    """
    openid: str
    session_id: UUID
    roles: frozenset[str]
    claims: Annotated[Mapping[str, Any], _WrittenAsDict()] = field(hash=False)  # a Mapping cannot be hashed
    """All claims of the token, read-only."""
    external_id: Optional[str] = None  # Pydantic evaluates this type, even in Python 3.9
    """The user's id in the system that the operator used before wxauth; None if the token contains no such id."""
    scope: frozenset[str] = frozenset()
    """The scopes granted to a website or another client; empty for a login in a mini-program or mobile app."""
    is_current: Optional[bool] = None
    """Whether wxauth has confirmed the session and the roles. None if the guard doesn't ask (`guard.current` asks)."""

    @property
    def is_authenticated(self) -> bool:
        """Always True. Django REST framework and other libraries check this property."""
        return True
