"""`/v1/me`: the account of the person who asks."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection

from wxauth import accounts
from wxauth.routes.direct import DirectRoute
from wxauth.routes.failures import GUARDED, failures
from wxauth.routes.schemas import EXAMPLE_USER, UserAnswer, user_answer
from wxauth.services import ServicesDep
from wxauth.tokens.claims import Principal

router = APIRouter(route_class=DirectRoute, tags=["me"])


async def principal_of(connection: HTTPConnection) -> Principal:
    """The user behind the request's access token."""
    return await connection.app.state.services.guard(connection)  # type: ignore[no-any-return]  # state is untyped


PrincipalDep = Annotated[Principal, Depends(principal_of)]
"""The user behind the request's access token, by the same guard that siblings use."""


@router.get(
    "/v1/me",
    operation_id="read_me",
    summary="Who am I",
    response_model=UserAnswer,
    responses={200: {"content": {"application/json": {"example": EXAMPLE_USER}}}, **failures(*GUARDED)},
    openapi_extra={"security": [{"wxauth": []}]},
)
async def read_me(principal: PrincipalDep, services: ServicesDep) -> UserAnswer:
    """The user behind the access token, with the identity of the session it belongs to."""
    return user_answer(await accounts.read_me(services, principal))
