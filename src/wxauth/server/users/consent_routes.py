"""`/v1/me/consents`: what the person who asks agrees to, and takes back."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request

from wxauth.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited
from wxauth.server.consents import consents
from wxauth.server.consents.bodies import (
    EXAMPLE_CONSENTS,
    ConsentsAnswer,
    ConsentsQuery,
    ConsentsRequest,
    consent_answers,
)
from wxauth.server.consents.rows import holding_consents, newest_consents
from wxauth.server.core.services import ServicesDep
from wxauth.server.users.callers import CallerDep, DeviceDep
from wxauth.server.web.answers import BEARER_SECURITY, GUARDED, answers, failures
from wxauth.server.web.direct import DirectRoute, operation_id
from wxauth.server.web.paging import not_stored, timed_cursor

_NOT_IN_FORCE: Final = InvalidRequest.of("privacy", "Not the version that is in force")
_WRONG_PARAMETER: Final = InvalidRequest.of("limit", "Input should be less than or equal to 100")

lists = APIRouter(tags=["me"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)
router = APIRouter(route_class=DirectRoute, tags=["me"], generate_unique_id_function=operation_id)


@lists.get(
    "/v1/me/consents",
    summary="What have I agreed to",
    responses=answers(EXAMPLE_CONSENTS, _WRONG_PARAMETER, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def list_my_consents(
    caller: CallerDep, services: ServicesDep, query: Annotated[ConsentsQuery, Query()]
) -> ConsentsAnswer:
    """All that there ever was, the newest first; `withdrawn_at` where it was taken back."""
    found = await newest_consents(services.database, caller.user["id"], limit=query.limit + 1, after=query.after)
    consents = found[: query.limit]
    last = consents[-1] if len(found) > len(consents) else None
    return {
        "items": consent_answers(consents),
        "next_cursor": None if last is None else timed_cursor(last["given_at"], last["id"]),
    }


@router.post(
    "/v1/me/consents",
    summary="Agree",
    responses=answers(EXAMPLE_CONSENTS, _NOT_IN_FORCE, PayloadTooLarge, RateLimited, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def give_my_consents(
    caller: CallerDep, body: ConsentsRequest, services: ServicesDep, device: DeviceDep
) -> ConsentsAnswer:
    """Record that I agree to these documents, in the versions in force. The same again is no second record.

    The answer is what I agree to of all that is in force. After 20 consents in an hour, the next is `rate_limited`.
    """
    in_force = services.settings.consents
    consents.check_in_force(body.root, in_force)
    user = caller.user
    await consents.give_consents(
        services.database, user["id"], body.root, app_id=user["app_id"], ip=device.ip, now=services.clock()
    )
    holding = await holding_consents(services.database, user["id"], in_force)
    return {"items": consent_answers(holding), "next_cursor": None}


@router.delete(
    "/v1/me/consents/{document}",  # noqa: FAST003 - any text will do, and FastAPI would document a 422
    summary="Agree no longer",
    status_code=204,
    responses=failures(NotFound("this document has not been agreed to"), *GUARDED),
    openapi_extra={
        **BEARER_SECURITY,
        "parameters": [{"name": "document", "in": "path", "required": True, "schema": {"type": "string"}}],
    },
)
async def withdraw_my_consent(caller: CallerDep, request: Request, services: ServicesDep, device: DeviceDep) -> None:
    """Record that I take back what I agreed to. It stays in the list, with the time."""
    user, document = caller.user, request.path_params["document"]
    await consents.withdraw(
        services.database, user["id"], document, app_id=user["app_id"], ip=device.ip, now=services.clock()
    )
