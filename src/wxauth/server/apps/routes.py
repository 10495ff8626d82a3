"""Apps: administrators list, add, change and remove them, and people list those in which they are known."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from wxauth.errors import (
    AppInSettings,
    AppRefused,
    AppTaken,
    FieldError,
    Title,
    WeChatBadResponse,
    WeChatRateLimited,
    WeChatUnavailable,
)
from wxauth.server.apps.registry import NO_SUCH_APP, Apps, AppsDep, AppSource, KnownApp, ManagedAppsDep
from wxauth.server.core.setting_types import AppId, AppKind, SignUp, UnionidPolicy
from wxauth.server.core.settings import App, AppFields, Settings
from wxauth.server.users.bodies import OwnIdentitiesAnswer, OwnIdentityAnswer
from wxauth.server.users.callers import AdministratorDep, CallerDep, FreshAdministratorDep
from wxauth.server.users.user_rows import identities_of
from wxauth.server.web.bodies import EXAMPLE_APP_ID, Items, ShownAppId, all_of
from wxauth.server.web.dependencies import DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router
from wxauth.server.wechat.wechat_tokens import WeChatTokens


class _Administered(BaseModel):
    """What administrators set for an app besides the fields of `App`."""

    is_enabled: StrictBool = Field(default=True, description="Whether people may log in to it. Open sessions continue.")
    check_: StrictBool = Field(
        default=True, alias="check", description="Whether id and secret are checked at WeChat first."
    )


class AppRequest(App, _Administered):
    """An app to add."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"app_id": EXAMPLE_APP_ID, "title": "小店", "app_secret": "…"}]},
    )

    @property
    def app(self) -> App:
        """The request's fields of `App`."""
        return App(**{name: getattr(self, name) for name in App.model_fields})


class AppChangeRequest(AppFields, _Administered):
    """Changes of an app. An absent field changes nothing; null or empty clears a field that may be empty."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"is_enabled": False}]})

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that the request gives, by name."""
        given = self.model_fields_set - {"check_"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}


for _name in AppFields.model_fields:
    AppChangeRequest.model_fields[_name].default = None  # absent: see `changes`
AppChangeRequest.model_rebuild(force=True)


class WeChatTokenStateAnswer(BaseModel):
    """The answering process's state of an app's WeChat token."""

    expires_at: datetime | None = Field(
        description="Null: this process has no token and will request one when needed.",
        examples=["2026-11-20T10:00:00Z"],
    )
    error: str | None = Field(description="Why it could not get another token recently: the code of a problem.")


class AppAnswer(BaseModel):
    """An app, without its secrets."""

    app_id: ShownAppId
    kind: AppKind
    unionid: UnionidPolicy = Field(
        description="Whether a new user must have a unionid: as set, or the default for the kind.",
        examples=["optional"],
    )
    title: str | None = Field(examples=["小店"])
    logo: str | None = Field(description="A `data:` URL.", examples=[None])
    source: AppSource = Field(description="An app in the settings can only be changed there.", examples=["database"])
    is_default: bool = Field(description="Whether this is the app of a login that names none.")
    is_enabled: bool
    sign_up: SignUp | None
    sign_up_roles: list[str] | None = Field(examples=[None])
    claims: dict[str, Any] | None = Field(examples=[None])
    max_sessions: int | None = Field(examples=[None])
    has_app_secret: bool
    has_push_token: bool
    has_push_aes_key: bool = Field(examples=[False])
    push_url: str = Field(
        description="The URL for WeChat's message push settings.",
        examples=[f"https://auth.example.com/v1/wechat/push/{EXAMPLE_APP_ID}"],
    )
    push_forward: str | None = Field(examples=[None])
    wechat_token: WeChatTokenStateAnswer
    created_at: datetime | None = Field(
        description="Null for an app in the settings.", examples=["2026-11-20T08:00:00Z"]
    )


def app_answer(settings: Settings, apps: Apps, wechat_tokens: WeChatTokens, known: KnownApp) -> AppAnswer:
    """The answer about an app."""
    app, state = known.app, wechat_tokens.state_of(known.app)
    values = dict(app) | {name: getattr(known, name) for name in ("source", "is_enabled", "created_at")}
    values |= {f"has_{name}": value is not None for name, value in app if f"has_{name}" in AppAnswer.model_fields}
    values |= {
        "unionid": app.unionid_in_force,
        "is_default": known == apps.default,
        "push_url": f"{settings.issuer}/v1/wechat/push/{app.app_id}",
        "wechat_token": WeChatTokenStateAnswer(expires_at=state.ends_at, error=state.failure),
    }
    return AppAnswer.model_validate(values)


router = Router("admin")


async def _answer_about(
    settings: SettingsDep, apps: AppsDep, wechat_tokens: Annotated[WeChatTokens, Depends(provide(WeChatTokens))]
) -> Callable[[KnownApp], AppAnswer]:
    return partial(app_answer, settings, apps, wechat_tokens)


AnswerAboutDep = Annotated[Callable[[KnownApp], AppAnswer], Depends(_answer_about)]

_REFUSED: Final = AppRefused(
    "WeChat: the app secret is wrong", errcode=40125, errors=[FieldError("app_secret", "WeChat does not take it")]
)
_ASKING_WECHAT: Final = (_REFUSED, WeChatRateLimited, WeChatUnavailable, WeChatBadResponse)


@router.get("/v1/admin/apps", summary=Title("List the apps", "列出应用"))
async def list_apps(_: AdministratorDep, apps: AppsDep, answer_about: AnswerAboutDep) -> Items[AppAnswer]:
    """The apps in the settings, then the added ones, the oldest first. Without secrets."""
    await apps.refresh()
    return all_of(answer_about(known) for known in apps.all())


@router.post("/v1/admin/apps", summary=Title("Add an app", "添加应用"), failures=[*_ASKING_WECHAT, AppTaken])
async def add_app(
    administrator: FreshAdministratorDep, managed: ManagedAppsDep, answer_about: AnswerAboutDep, body: AppRequest
) -> AppAnswer:
    """Add an app.

    Users can log in to it at once in this process, and within seconds in every other one. Id and secret are checked at
    WeChat first (`check`). If WeChat rejects them or does not answer, nothing is stored.
    """
    known = await managed.add(body.app, is_enabled=body.is_enabled, is_checked=body.check_, by=administrator)
    return answer_about(known)


@router.get("/v1/admin/apps/{app_id}", summary=Title("Read an app", "查看应用"), failures=[NO_SUCH_APP])
async def read_app(
    _: AdministratorDep, managed: ManagedAppsDep, answer_about: AnswerAboutDep, app_id: AppId
) -> AppAnswer:
    """An app, without its secrets."""
    return answer_about(await managed.read(app_id))


@router.patch(
    "/v1/admin/apps/{app_id}",
    summary=Title("Change an app", "修改应用"),
    failures=[*_ASKING_WECHAT, NO_SUCH_APP, AppInSettings],
)
async def change_app(
    administrator: FreshAdministratorDep,
    managed: ManagedAppsDep,
    answer_about: AnswerAboutDep,
    app_id: AppId,
    body: AppChangeRequest,
) -> AppAnswer:
    """Set the given fields; others are unchanged.

    Changes take effect at once in this process, and within seconds in every other one. A new secret is checked at
    WeChat first, as when an app is added. Nobody can log in to a disabled app; its open sessions continue, and WeChat's
    message push is still accepted.
    """
    known = await managed.change(app_id, body.changes, is_checked=body.check_, by=administrator)
    return answer_about(known)


@router.delete(
    "/v1/admin/apps/{app_id}", summary=Title("Remove an app", "移除应用"), failures=[NO_SUCH_APP, AppInSettings]
)
async def remove_app(administrator: FreshAdministratorDep, managed: ManagedAppsDep, app_id: AppId) -> None:
    """Remove an app and its secrets. Nobody can log in to it any more; its users and their sessions remain."""
    await managed.remove(app_id, by=administrator)


@router.get("/v1/me/identities", summary=Title("List my identities", "查看我的微信身份"), tag="me")
async def list_my_identities(caller: CallerDep, apps: AppsDep, database: DatabaseDep) -> OwnIdentitiesAnswer:
    """The caller's openids in each app, the oldest first."""
    identities = await identities_of(database, caller.user.id)
    items: list[OwnIdentityAnswer] = [
        {**identity.model_dump(), "kind": apps.kind_of(identity.app_id)}  # type: ignore[typeddict-item]  # as declared
        for identity in identities
    ]
    return OwnIdentitiesAnswer.model_construct(items=items)
