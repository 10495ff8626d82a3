"""The routes with which administrators manage apps, staff read the titles of apps, and users list their openids."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Final

from fastapi import Depends

from wxauth import errors
from wxauth.apps.managed_apps import NO_SUCH_APP, ManagedApps
from wxauth.apps.registry import Apps, KnownApp
from wxauth.apps.schemas import AppAnswer, AppChangeRequest, AppRequest, AppTitleAnswer, app_answer
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.apps import AppId
from wxauth.users.callers import AdministratorDep, CallerDep, FreshAdministratorDep, StaffDep
from wxauth.users.schemas import OwnIdentitiesAnswer, OwnIdentityAnswer
from wxauth.users.user_queries import IDENTITIES_OF_USER
from wxauth.web.dependencies import DatabaseDep, SettingsDep, provide
from wxauth.web.direct import Router
from wxauth.web.pages import Items, all_of
from wxauth.wechat.wechat_tokens import WeChatTokens
from wxauth_guard.errors import FieldError

AppsDep = Annotated[Apps, Depends(provide(Apps))]
ManagedAppsDep = Annotated[ManagedApps, Depends(provide(ManagedApps))]
router = Router("admin")
_REFUSED: Final = errors.AppRefused(
    "WeChat: the app secret is wrong",
    errcode=40125,  # WeChat's code for a wrong secret
    errors=[FieldError("app_secret", "WeChat rejects the value")],
)
_CHECK_FAILURES: Final = (_REFUSED, errors.WeChatRateLimited, errors.WeChatUnavailable, errors.WeChatBadResponse)


async def _answer_about(
    settings: SettingsDep, apps: AppsDep, wechat_tokens: Annotated[WeChatTokens, Depends(provide(WeChatTokens))]
) -> Callable[[KnownApp], AppAnswer]:
    return partial(app_answer, settings, apps, wechat_tokens)


AnswerAboutDep = Annotated[Callable[[KnownApp], AppAnswer], Depends(_answer_about)]


@router.get("/v1/admin/apps", summary=_("List the apps"))
async def list_apps(_administrator: AdministratorDep, apps: AppsDep, answer_about: AnswerAboutDep) -> Items[AppAnswer]:
    """Return the apps in the settings, then the added apps, the oldest first, without their secrets."""
    await apps.refresh()
    return all_of(answer_about(known) for known in apps.all())


@router.get("/v1/admin/app_titles", summary=_("List the titles of the apps"))
async def list_app_titles(_staff: StaffDep, apps: AppsDep) -> Items[AppTitleAnswer]:
    """Return the titles of the apps, in the order of `GET /v1/admin/apps`. Support staff may read them, too."""
    await apps.refresh()
    return all_of(AppTitleAnswer.model_validate(known.app, from_attributes=True) for known in apps.all())


@router.post("/v1/admin/apps", summary=_("Add an app"), failures=[*_CHECK_FAILURES, errors.AppTaken])
async def add_app(
    administrator: FreshAdministratorDep, managed: ManagedAppsDep, answer_about: AnswerAboutDep, body: AppRequest
) -> AppAnswer:
    """Add an app.

    Users can log in to it immediately in this process, and within seconds in every other process. With `check`, wxauth
    first checks the id and the secret with WeChat. If WeChat rejects them or does not respond, nothing is stored.
    """
    known = await managed.add(body.app, is_enabled=body.is_enabled, asks_wechat=body.asks_wechat, by=administrator)
    return answer_about(known)


@router.get("/v1/admin/apps/{app_id}", summary=_("Read an app"), failures=[NO_SUCH_APP])
async def read_app(
    _administrator: AdministratorDep, managed: ManagedAppsDep, answer_about: AnswerAboutDep, app_id: AppId
) -> AppAnswer:
    """Return an app, without its secrets."""
    return answer_about(await managed.read(app_id))


@router.patch(
    "/v1/admin/apps/{app_id}",
    summary=_("Change an app"),
    failures=[*_CHECK_FAILURES, NO_SUCH_APP, errors.AppInSettings],
)
async def change_app(
    administrator: FreshAdministratorDep,
    managed: ManagedAppsDep,
    answer_about: AnswerAboutDep,
    app_id: AppId,
    body: AppChangeRequest,
) -> AppAnswer:
    """Set the given fields, and leave the others unchanged.

    Changes take effect immediately in this process, and within seconds in every other process. With `check`, wxauth
    first checks a new secret with WeChat. Users cannot log in to a disabled app, but its open sessions continue, and
    wxauth still accepts WeChat's message push.
    """
    known = await managed.change(app_id, body.changes, asks_wechat=body.asks_wechat, by=administrator)
    return answer_about(known)


@router.delete("/v1/admin/apps/{app_id}", summary=_("Remove an app"), failures=[NO_SUCH_APP, errors.AppInSettings])
async def remove_app(administrator: FreshAdministratorDep, managed: ManagedAppsDep, app_id: AppId) -> None:
    """Remove an app and its secrets. Users can no longer log in to it, but its users and their sessions remain."""
    await managed.remove(app_id, by=administrator)


@router.get("/v1/me/identities", summary=_("List my identities"), tag="me")
async def list_my_identities(caller: CallerDep, apps: AppsDep, database: DatabaseDep) -> OwnIdentitiesAnswer:
    """Return the caller's openids in each app, the oldest first."""
    identities = await database.rows(IDENTITIES_OF_USER, user_id=caller.user.id)
    # `model_construct` does not validate the rows again.
    items = [OwnIdentityAnswer.model_construct(**vars(each), kind=apps.kind_of(each.app_id)) for each in identities]
    return OwnIdentitiesAnswer.model_construct(items=items)
