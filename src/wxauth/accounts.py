"""What users do to their own account."""

from collections.abc import Mapping
from typing import Any

from wxauth.errors import InvalidToken
from wxauth.services import Services
from wxauth.store.sessions import user_in_session
from wxauth.tokens.claims import Principal


async def read_me(services: Services, principal: Principal) -> Mapping[str, Any]:
    """The user behind a token, with the identity of its session.

    Raises: InvalidToken, where the session is revoked or the user banned or erased since it was signed;
        StorageUnavailable.
    """
    user: Mapping[str, Any] | None = await user_in_session(
        services.database, session_id=principal.session_id, user_id=principal.id
    )
    if user is None:
        raise InvalidToken("the session has ended")
    return user
