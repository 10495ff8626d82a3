"""`/v1/me`: the account of the person who asks."""

from fastapi import APIRouter

from wxauth.routes.callers import CallerDep
from wxauth.routes.direct import DirectRoute
from wxauth.routes.failures import BEARER_SECURITY, GUARDED, failures
from wxauth.routes.schemas import EXAMPLE_USER, UserAnswer, user_answer

router = APIRouter(route_class=DirectRoute, tags=["me"])


@router.get(
    "/v1/me",
    operation_id="read_me",
    summary="Who am I",
    response_model=UserAnswer,
    responses={200: {"content": {"application/json": {"example": EXAMPLE_USER}}}, **failures(*GUARDED)},
    openapi_extra=BEARER_SECURITY,
)
async def read_me(caller: CallerDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(caller.user)
