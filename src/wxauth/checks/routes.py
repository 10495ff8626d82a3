"""The routes of `wxauth check`, for administrators without a shell."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from wxauth.apps.managed_apps import NO_SUCH_APP
from wxauth.apps.routes import AppsDep, ManagedAppsDep
from wxauth.checks.result import CheckLevel, CheckResult
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.apps import AppId
from wxauth.users.callers import AdministratorDep
from wxauth.web.dependencies import SettingsDep
from wxauth.web.direct import Router
from wxauth.web.pages import Items, all_of
from wxauth_guard.problems import preferred_language

router = Router("admin")


class CheckResultAnswer(TypedDict):
    """One line of the report."""

    name: Annotated[str, Field(description="The name of the check.", examples=["wechat wx1a2b3c4d5e6f7a8b"])]
    ok: Annotated[bool, Field(description="Whether the check passed. A `note` counts as passed.")]
    level: Annotated[CheckLevel, Field(description="A `note` is fine if you intend this state.", examples=["ok"])]
    message: Annotated[
        str,
        Field(
            description="If a check fails, the message also says what to do.",
            examples=["responds, and accepts the app's secret"],
        ),
    ]


@router.get("/v1/admin/check", summary=_("Run the health checks"))
async def check_everything(
    _administrator: AdministratorDep, settings: SettingsDep, request: Request
) -> Items[CheckResultAnswer]:
    """Run the checks of `wxauth check`, apart from the check of the settings.

    They cover the database, the keys, the issuer, the resources, the clocks, the sign-up hook, each enabled app with
    WeChat, and its `push_forward`. They change no settings, users or sessions, and take at most 50 seconds.
    """
    # The module is imported here, because it takes 3 MB of memory, and most processes never run the checks.
    from wxauth.checks.runner import check_with

    return _report(await check_with(settings), request)


@router.post("/v1/admin/apps/{app_id}/check", summary=_("Check the configuration of an app"), failures=[NO_SUCH_APP])
async def check_one_app(
    _administrator: AdministratorDep,
    settings: SettingsDep,
    apps: AppsDep,
    managed: ManagedAppsDep,
    app_id: AppId,
    request: Request,
) -> Items[CheckResultAnswer]:
    """Run the checks of `wxauth check` for one app.

    They cover whether WeChat accepts the app's secret and this server's IP address, how the message push is set up,
    whether the URL in `push_forward` passes WeChat's verification and, for service accounts and website apps, the
    callback domain.
    """
    from wxauth.checks.runner import check_app_and_forward  # imported here for the same reason as `check_with`

    known = await managed.read(app_id)
    return _report(await check_app_and_forward(settings, known.app, apps=[each.app for each in apps.all()]), request)


def _report(results: list[CheckResult], request: Request) -> Items[CheckResultAnswer]:
    language = preferred_language(request.headers)
    items: list[CheckResultAnswer] = [
        {
            "name": result.name,
            "ok": result.is_ok,
            "level": result.level,
            "message": result.text.translated(language),
        }
        for result in results
    ]
    return all_of(items)
