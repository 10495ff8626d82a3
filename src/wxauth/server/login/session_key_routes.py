"""`/v1/admin/users/{id}/session-keys`: whether WeChat still takes them, and having it replace them."""

from uuid import UUID

from wxauth.errors import Title, UnknownApp, WrongAppKind
from wxauth.server.core.services import ServicesDep
from wxauth.server.login.bodies import (
    SessionKeyResetRequest,
    SessionKeysAnswer,
    session_keys_answer,
)
from wxauth.server.session_keys import session_keys
from wxauth.server.users.admin_routes import NO_SUCH_USER
from wxauth.server.users.callers import AdministratorDep
from wxauth.server.web.direct import Router

router = Router("admin")


@router.post(
    "/v1/admin/users/{user_id}/session-keys/check",
    summary=Title("Check a user's session keys", "检查用户的 session_key 是否仍有效"),
    failures=[NO_SUCH_USER],
)
async def check_session_keys(_: AdministratorDep, services: ServicesDep, user_id: UUID) -> SessionKeysAnswer:
    """Ask WeChat about the stored session_key of each identity of a user."""
    return session_keys_answer(await session_keys.check_keys(services, user_id))


@router.post(
    "/v1/admin/users/{user_id}/session-keys/reset",
    summary=Title("Reset a user's session keys", "重置用户的 session_key"),
    failures=[NO_SUCH_USER, UnknownApp, WrongAppKind],
)
async def reset_session_keys(
    administrator: AdministratorDep,
    services: ServicesDep,
    user_id: UUID,
    body: SessionKeyResetRequest | None = None,
) -> SessionKeysAnswer:
    """Have WeChat give each identity of a user, or that in one app, a new session_key, and store it.

    The old key dies at once: what was encrypted with it does not open any more. `valid` is true where a new one is
    stored, false where WeChat no longer knows the old one, and then nothing has changed.
    """
    app_id = None if body is None else body.app_id
    return session_keys_answer(await session_keys.reset_keys(services, user_id, app_id=app_id, by=administrator))
