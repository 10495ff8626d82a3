"""`/v1/admin/users/{id}/session-keys`: administrators check and reset a user's session_keys."""

from uuid import UUID

from wxauth.errors import Title, UnknownApp, WrongAppKind
from wxauth.server.login.bodies import (
    SessionKeyResetRequest,
    SessionKeysAnswer,
    session_keys_answer,
)
from wxauth.server.session_keys.dependencies import SessionKeysDep
from wxauth.server.users.admin_routes import NO_SUCH_USER
from wxauth.server.users.callers import AdministratorDep
from wxauth.server.web.direct import Router

router = Router("admin")


@router.post(
    "/v1/admin/users/{user_id}/session-keys/check",
    summary=Title("Check a user's session keys", "检查用户的 session_key 是否仍有效"),
    failures=[NO_SUCH_USER],
)
async def check_session_keys(_: AdministratorDep, session_keys: SessionKeysDep, user_id: UUID) -> SessionKeysAnswer:
    """Check at WeChat whether the stored session_key of each identity of a user is valid."""
    return session_keys_answer(await session_keys.check(user_id))


@router.post(
    "/v1/admin/users/{user_id}/session-keys/reset",
    summary=Title("Reset a user's session keys", "重置用户的 session_key"),
    failures=[NO_SUCH_USER, UnknownApp, WrongAppKind],
)
async def reset_session_keys(
    administrator: AdministratorDep,
    session_keys: SessionKeysDep,
    user_id: UUID,
    body: SessionKeyResetRequest | None = None,
) -> SessionKeysAnswer:
    """Have WeChat replace the session_key of each identity of a user, or of one app's, and store the new one.

    The old key stops working at once: data encrypted with it can no longer be decrypted. `valid` is true if a new key
    is stored, false if WeChat no longer knew the old one; then nothing has changed.
    """
    app_id = None if body is None else body.app_id
    return session_keys_answer(await session_keys.reset(user_id, app_id=app_id, by=administrator))
