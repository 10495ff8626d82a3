"""`/v1/me/consents`: what the person who asks agrees to, and takes back."""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request

from wxauth.core.services import ServicesDep
from wxauth.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited
from wxauth.people import consents
from wxauth.people.callers import CallerDep, DeviceDep
from wxauth.people.consent_bodies import EXAMPLE_CONSENTS, ConsentsAnswer, ConsentsRequest, consents_answer
from wxauth.people.consent_rows import consents_of
from wxauth.web.answers import BEARER_SECURITY, GUARDED, answers, failures
from wxauth.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["me"], generate_unique_id_function=operation_id)

_NOT_IN_FORCE: Final = InvalidRequest.of("privacy", "Not the version that is in force")


@router.get(
    "/v1/me/consents",
    summary="What have I agreed to",
    responses=answers(EXAMPLE_CONSENTS, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def list_my_consents(caller: CallerDep, services: ServicesDep) -> ConsentsAnswer:
    """All that there ever was, the newest first; `withdrawn_at` where it was taken back."""
    return consents_answer(await consents_of(services.database, caller.user["id"]))


@router.post(
    "/v1/me/consents",
    summary="Agree",
    responses=answers(EXAMPLE_CONSENTS, _NOT_IN_FORCE, PayloadTooLarge, RateLimited, *GUARDED),
    openapi_extra=BEARER_SECURITY,
)
async def give_my_consents(
    caller: CallerDep, body: ConsentsRequest, services: ServicesDep, device: DeviceDep
) -> ConsentsAnswer:
    """Record that I agree to these documents, in the versions in force; the answer is all that I have agreed to.

    The same again is no second record. After 20 consents in an hour, the next is `rate_limited`.
    """
    consents.check_in_force(body.root, services.settings.consents)
    user = caller.user
    await consents.give_consents(
        services.database, user["id"], body.root, app_id=user["app_id"], ip=device.ip, now=services.clock()
    )
    return consents_answer(await consents_of(services.database, user["id"]))


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
