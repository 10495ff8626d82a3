"""`/v1/admin/apps`: administrators list, add, change and remove apps."""

from typing import Final

from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    FieldError,
    NotFound,
    Title,
    WeChatBadResponse,
    WeChatRateLimited,
    WeChatUnavailable,
)
from wxauth.server.apps import managing
from wxauth.server.apps.bodies import (
    AppAnswer,
    AppChangeRequest,
    AppRequest,
    AppsAnswer,
    app_answer,
)
from wxauth.server.apps.registry import Apps
from wxauth.server.core.setting_types import AppId
from wxauth.server.users.callers import AdministratorDep, FreshAdministratorDep
from wxauth.server.web.dependencies import ServicesDep
from wxauth.server.web.direct import Router
from wxauth.server.wechat.wechat_tokens import WeChatTokens

router = Router("admin")

NO_SUCH_APP: Final = NotFound(managing.NO_SUCH_APP)

_REFUSED: Final = AppRefused(
    "WeChat: the app secret is wrong", errcode=40125, errors=[FieldError("app_secret", "WeChat does not take it")]
)
_ASKING_WECHAT: Final = (_REFUSED, WeChatRateLimited, WeChatUnavailable, WeChatBadResponse)


@router.get("/v1/admin/apps", summary=Title("List the apps", "列出应用"))
async def list_apps(_: AdministratorDep, services: ServicesDep) -> AppsAnswer:
    """The apps in the settings, then the added ones, the oldest first. Without secrets."""
    await services[Apps].refresh()
    return {
        "items": [
            app_answer(services.settings, services[Apps], services[WeChatTokens], known)
            for known in services[Apps].all()
        ],
        "next_cursor": None,
    }


@router.post("/v1/admin/apps", summary=Title("Add an app", "添加应用"), failures=[*_ASKING_WECHAT, AppTaken])
async def add_app(administrator: FreshAdministratorDep, services: ServicesDep, body: AppRequest) -> AppAnswer:
    """Add an app.

    Users can log in to it at once in this process, and within seconds in every other one. Id and secret are checked at
    WeChat first (`check`). If WeChat rejects them or does not answer, nothing is stored.
    """
    known = await managing.add_app(
        services, body.app, title=body.title, is_enabled=body.is_enabled, is_checked=body.check_, by=administrator
    )
    return app_answer(services.settings, services[Apps], services[WeChatTokens], known)


@router.get("/v1/admin/apps/{app_id}", summary=Title("Read an app", "查看应用"), failures=[NO_SUCH_APP])
async def read_app(_: AdministratorDep, services: ServicesDep, app_id: AppId) -> AppAnswer:
    """An app, without its secrets."""
    return app_answer(
        services.settings, services[Apps], services[WeChatTokens], await managing.read_app(services, app_id)
    )


@router.patch(
    "/v1/admin/apps/{app_id}",
    summary=Title("Change an app", "修改应用"),
    failures=[*_ASKING_WECHAT, NO_SUCH_APP, AppInSettings],
)
async def change_app(
    administrator: FreshAdministratorDep, services: ServicesDep, app_id: AppId, body: AppChangeRequest
) -> AppAnswer:
    """Set the given fields; others are unchanged.

    Changes take effect at once in this process, and within seconds in every other one. A new secret is checked at
    WeChat first, as when an app is added. Nobody can log in to a disabled app; its open sessions continue, and WeChat's
    message push is still accepted.
    """
    known = await managing.change_stored_app(services, app_id, body.changes, is_checked=body.check_, by=administrator)
    return app_answer(services.settings, services[Apps], services[WeChatTokens], known)


@router.delete(
    "/v1/admin/apps/{app_id}", summary=Title("Remove an app", "移除应用"), failures=[NO_SUCH_APP, AppInSettings]
)
async def remove_app(administrator: FreshAdministratorDep, services: ServicesDep, app_id: AppId) -> None:
    """Remove an app and its secrets. Nobody can log in to it any more; its users and their sessions remain."""
    await managing.remove_app(services, app_id, by=administrator)
