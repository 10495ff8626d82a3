"""`/v1/admin/users/{id}/session-keys`: whether WeChat still takes them, and having it replace them."""

from uuid import UUID

from fastapi import APIRouter

from wxauth.errors import PayloadTooLarge, UnknownApp
from wxauth.server.core.services import ServicesDep
from wxauth.server.login.bodies import (
    EXAMPLE_SESSION_KEYS,
    SessionKeyResetRequest,
    SessionKeysAnswer,
    session_keys_answer,
)
from wxauth.server.session_keys import session_keys
from wxauth.server.users.admin_routes import NO_SUCH_USER, WRONG_USER_ID
from wxauth.server.users.callers import AdministratorDep
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, answers
from wxauth.server.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)


@router.post(
    "/v1/admin/users/{user_id}/session-keys/check",
    summary="Does WeChat still take the session keys",
    responses=answers(EXAMPLE_SESSION_KEYS, WRONG_USER_ID, NO_SUCH_USER, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def check_session_keys(_: AdministratorDep, services: ServicesDep, user_id: UUID) -> SessionKeysAnswer:
    """Ask WeChat about the stored session_key of each identity of a user."""
    return session_keys_answer(await session_keys.check_keys(services, user_id))


@router.post(
    "/v1/admin/users/{user_id}/session-keys/reset",
    summary="Have WeChat replace the session keys",
    responses=answers(
        EXAMPLE_SESSION_KEYS, WRONG_USER_ID, NO_SUCH_USER, UnknownApp, PayloadTooLarge, *FOR_ADMINISTRATORS
    ),
    openapi_extra=BEARER_SECURITY,
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
