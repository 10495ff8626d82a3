"""`GET /v1/me/export`: a person's own data, to take along."""

from typing import Any, Final

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.responses import Response

from wxauth.core.services import ServicesDep
from wxauth.errors import RateLimited
from wxauth.moving.own_data import EXAMPLE_OWN_DATA, export_mine
from wxauth.people.callers import CallerDep, DeviceDep
from wxauth.web.answers import BEARER_SECURITY, GUARDED, failures
from wxauth.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["me"], generate_unique_id_function=operation_id)

_HEADERS: Final = {"Content-Disposition": 'attachment; filename="wxauth-export.json"', "Cache-Control": "no-store"}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "All that is stored of the person",
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in _HEADERS.items()},
        "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE_OWN_DATA}},
    },
    **failures(RateLimited, *GUARDED),
}


@router.get(
    "/v1/me/export",
    operation_id="export_me",
    summary="Take my data along",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=BEARER_SECURITY,
)
async def export_me(caller: CallerDep, services: ServicesDep, device: DeviceDep) -> Response:
    """All that is stored of me, as one document: user, identities, sessions, consents, events, picture.

    It holds no secret, and nothing of anybody else's: what an administrator did is by `administrator`. Once a minute.
    """
    document = await export_mine(services, caller, ip=device.ip)
    return Response(to_json(document), media_type="application/json", headers=_HEADERS)
