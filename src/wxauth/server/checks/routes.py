"""`GET /v1/admin/check`, and the check of one app: `wxauth check` for administrators without a shell."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.problems import preferred_language
from wxauth.server.apps import managing
from wxauth.server.apps.routes import NO_SUCH_APP, WRONG_APP_ID
from wxauth.server.checks.doctor import examine, examine_app
from wxauth.server.checks.result import Level, Result
from wxauth.server.core.services import ServicesDep
from wxauth.server.core.setting_types import AppId
from wxauth.server.users.callers import AdministratorDep
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, answers
from wxauth.server.web.direct import DirectRoute, operation_id

router = APIRouter(route_class=DirectRoute, tags=["admin"], generate_unique_id_function=operation_id)

_EXAMPLE: Final[dict[str, Any]] = {
    "items": [
        {
            "name": "wechat wx1a2b3c4d5e6f7a8b",
            "ok": True,
            "level": "ok",
            "message": "answers, and takes the app's secret",
        }
    ],
    "next_cursor": None,
}


class ResultAnswer(TypedDict):
    """A line of the report."""

    name: str
    ok: Annotated[bool, Field(description="Whether it works, as far as is known.")]
    level: Annotated[Level, Field(description="A `note` is right if it is intended, and wrong if not.")]
    message: Annotated[str, Field(description="If something is wrong, it also says what to do.")]


class ReportAnswer(TypedDict):
    """The report: what was checked, and the results."""

    items: list[ResultAnswer]
    next_cursor: None


@router.get(
    "/v1/admin/check",
    summary="Say what is wrong, and what to do",
    responses=answers(_EXAMPLE, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def check_everything(_: AdministratorDep, services: ServicesDep, request: Request) -> ReportAnswer:
    """Run `wxauth check`: database, keys, issuer, clocks, and each app at WeChat. Changes nothing.

    The answer comes after the slowest of these has answered, at most half a minute.
    """
    return _report(await examine(services.settings), request)


@router.post(
    "/v1/admin/apps/{app_id}/check",
    summary="Say what is wrong with an app",
    responses=answers(_EXAMPLE, WRONG_APP_ID, NO_SUCH_APP, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def check_one_app(_: AdministratorDep, services: ServicesDep, app_id: AppId, request: Request) -> ReportAnswer:
    """Run `wxauth check` for one app: whether WeChat takes its secret and this server, and which APIs it may call."""
    known = await managing.read_app(services, app_id)
    apps = [it.app for it in services.apps.all()]
    return _report(await examine_app(services.settings, known.app, apps=apps), request)


def _report(results: list[Result], request: Request) -> ReportAnswer:
    language = preferred_language(request.headers)
    items: list[ResultAnswer] = [
        {"name": it.name, "ok": it.ok, "level": it.level, "message": it.said(language)} for it in results
    ]
    return {"items": items, "next_cursor": None}
