"""What goes stays for six months, and whoever uses it is told: the operator once a day, the client in each answer."""

from datetime import date
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends
from starlette.requests import Request

from tests.world import Stage
from wxauth.errors import Title
from wxauth.server.core.setting_types import Deprecation, OrNone
from wxauth.server.core.settings import Settings
from wxauth.server.service.app import create_api, surround
from wxauth.server.web.dependencies import ServicesDep, deprecated, note_deprecated
from wxauth.server.web.direct import Router

ROUTE = Deprecation(name="GET /v1/old", instead="GET /v1/new", since=date(2026, 12, 1), until=date(2027, 6, 1))
FIELD = Deprecation(name="old in GET /v1/new", instead="new", since=date(2026, 12, 1), until=date(2027, 6, 1))
SETTING = Deprecation(name="WXAUTH_OLD", instead="WXAUTH_NEW", since=date(2026, 12, 1), until=date(2027, 6, 1))
HEADERS = {"deprecation": "@1796083200", "sunset": "Tue, 01 Jun 2027 00:00:00 GMT"}
OK: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {}}}}}

router = Router("made up")


@router.get("/v1/old", summary=Title("Old", "旧"), operation_id="old", deprecated=True, responses=OK)
async def old(_: Annotated[None, Depends(deprecated(ROUTE))]) -> dict[str, str]:
    return {}


@router.get("/v1/new", summary=Title("New", "新"), operation_id="new", responses=OK)
async def new(request: Request, services: ServicesDep) -> dict[str, str]:
    if "old" in request.query_params:
        note_deprecated(request, services, FIELD)
    return {}


@pytest.mark.slow
async def test_whoever_uses_an_operation_or_a_field_that_goes_is_told(stage: Stage) -> None:
    api = create_api(stage.services)
    api.router.routes[:0] = router.routes
    transport = httpx.ASGITransport(surround(api, stage.services))
    async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
        for path in ("/v1/old", "/v1/old", "/v1/new?old=1"):
            assert HEADERS.items() <= dict((await client.get(path)).headers).items()
        assert HEADERS.keys().isdisjoint((await client.get("/v1/new")).headers)
        stage.clock.advance(days=1)
        await client.get("/v1/old")
    told = [line["used"] for line in stage.logged("deprecated")]
    assert told == ["GET /v1/old", "old in GET /v1/new", "GET /v1/old"], "each once a day"
    documented: dict[str, Any] = api.openapi()["paths"]
    assert documented["/v1/old"]["get"]["deprecated"]


@pytest.mark.no_database
def test_an_operator_who_sets_what_goes_is_told() -> None:
    class Later(Settings):
        old: Annotated[OrNone[str], SETTING] = None

    assert Later.model_construct(old="x").deprecated == [SETTING]
    assert Later.model_construct().deprecated == []


@pytest.mark.no_database
def test_nothing_goes_before_six_months_are_over() -> None:
    with pytest.raises(ValueError, match="WXAUTH_OLD: must stay for 180 days"):
        Deprecation(name="WXAUTH_OLD", instead="WXAUTH_NEW", since=date(2026, 12, 1), until=date(2027, 5, 1))
