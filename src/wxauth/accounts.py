"""Who calls, and what users do to their own account."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from wxauth.errors import InsufficientRole, InvalidToken
from wxauth.services import Services
from wxauth.store.sessions import user_in_session
from wxauth.tokens.claims import Principal


@dataclass(frozen=True, slots=True)
class Caller:
    """A user in one of their sessions, both as they are now."""

    session_id: UUID
    user: Mapping[str, Any]
    """The user, with the app_id and openid of the session."""

    def require_role(self, role: str) -> None:
        """Let pass who has the role now, whatever the token says. Raises: InsufficientRole."""
        if role not in self.user["roles"]:
            raise InsufficientRole(f"this needs the role {role}")


async def caller(services: Services, principal: Principal) -> Caller:
    """The user behind a checked token.

    Raises: InvalidToken, where the session is revoked or the user banned or erased since it was signed;
        StorageUnavailable.
    """
    user = await user_in_session(services.database, session_id=principal.session_id, user_id=principal.id)
    if user is None:
        raise InvalidToken("the session has ended")
    return Caller(principal.session_id, user)
