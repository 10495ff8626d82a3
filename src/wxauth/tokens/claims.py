"""What an access token says (RFC 9068), and who it makes the caller."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import PlainSerializer

ALGORITHM: Final = "ES256"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - the media type of RFC 9068, section 2.1


class Claims(Mapping[str, Any]):
    """The claims of a token, read-only; a `MappingProxyType` could be neither copied nor written as JSON."""

    __slots__ = ("_claims",)

    def __init__(self, claims: dict[str, Any]) -> None:
        self._claims = claims

    def __getitem__(self, name: str) -> Any:
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __repr__(self) -> str:
        return repr(self._claims)


def _plain(claims: Mapping[str, Any]) -> dict[str, Any]:
    return dict(claims)


@dataclass(frozen=True, slots=True)
class Principal:
    """The user behind a checked access token."""

    id: UUID
    app_id: str
    """The mini-program, also where the token is a website's."""
    openid: str
    session_id: UUID
    roles: frozenset[str]
    claims: Annotated[Mapping[str, Any], PlainSerializer(_plain)] = field(hash=False)
    """All claims of the token, read-only."""
    external_id: str | None = None
    """Who the person was in the system that they were imported from."""
    scope: frozenset[str] = frozenset()
    """What a website's login was granted; empty for a login in the mini-program."""

    @property
    def scopes(self) -> frozenset[str] | None:
        """What a website's token is good for; None for a login in the mini-program, which is good for everything."""
        return self.scope if "app_id" in self.claims else None  # which only a website's has
