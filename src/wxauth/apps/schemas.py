"""The bodies of requests and responses about apps, for staff and commands."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, StrictBool

from wxauth.apps.registry import Apps, AppSource, KnownApp
from wxauth.settings.apps import PUSH_PATH, App, AppFields, AppKind, SignUp, UnionidPolicy
from wxauth.settings.settings import Settings
from wxauth.web.schemas import EXAMPLE_APP_ID, Changes, ShownAppId, body_like
from wxauth.wechat.wechat_tokens import WeChatTokens


class _FieldsBesideApp(BaseModel):
    is_enabled: StrictBool = Field(
        default=True, description="Whether users can log in to the app. Existing sessions of a disabled app continue."
    )
    asks_wechat: StrictBool = Field(
        default=True, alias="check", description="Whether the AppID and AppSecret are first verified with WeChat."
    )


class AppRequest(App, _FieldsBesideApp):
    """An app to add."""

    # `AppFields` forbids unknown fields, for the setting `APPS`. Requests ignore unknown fields.
    model_config = body_like({"app_id": EXAMPLE_APP_ID, "title": "小店", "app_secret": "…"}, extra="ignore")

    @property
    def app(self) -> App:
        return App(**{name: getattr(self, name) for name in App.model_fields})


class AppChangeRequest(Changes, AppFields, _FieldsBesideApp):
    """The changes to an app. An absent field changes nothing; null or an empty value clears an optional field."""

    model_config = body_like({"is_enabled": False}, extra="ignore")  # for the reason, see `AppRequest`

    @property
    def changes(self) -> dict[str, Any]:
        names = self.model_fields_set - {"asks_wechat"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}


# A change may leave out any field, including the required fields of an app. The class is changed afterwards, because a
# new default in the class itself would have to repeat the field's type and description. `AppFields` and `App` keep
# their defaults, because pydantic copies the fields of a parent class into each subclass.
for _name in AppFields.model_fields:
    AppChangeRequest.model_fields[_name].default = None  # never read: `changes` looks only at the fields that were sent
AppChangeRequest.model_rebuild(force=True)


class WeChatTokenStateAnswer(BaseModel):
    """The state of an app's WeChat token in the process that responds."""

    expires_at: datetime | None = Field(
        description="When the token expires. Null: this process has no token and will request one when needed.",
        examples=["2026-11-20T10:00:00Z"],
    )
    error: str | None = Field(
        description="The error code of this process's last request for a token. Null: it succeeded, or there was none."
    )


class AppTitleAnswer(BaseModel):
    """The fields of an app that support staff may read."""

    app_id: ShownAppId
    kind: AppKind
    title: str | None = Field(examples=["小店"])


class AppAnswer(AppTitleAnswer):
    """An app, without its secrets."""

    unionid: UnionidPolicy = Field(
        description="Whether a new user must have a unionid: as set, or the default for the kind.",
        examples=["optional"],
    )
    logo: str | None = Field(description="A `data:` URL.", examples=[None])
    source: AppSource = Field(description="An app in the settings can only be changed there.", examples=["database"])
    is_default: bool = Field(description="Whether a login without an app_id uses this app.")
    is_enabled: bool = Field(description="Whether users can log in to the app.")
    sign_up: SignUp | None
    sign_up_roles: list[str] | None = Field(examples=[None])
    claims: dict[str, Any] | None = Field(examples=[None])
    js_hosts: list[str] | None = Field(examples=[None])
    max_sessions: int | None = Field(examples=[None])
    has_app_secret: bool
    has_push_token: bool
    has_push_aes_key: bool = Field(examples=[False])
    push_url: str = Field(
        description="The URL for WeChat's message push settings.",
        examples=[f"https://auth.example.com{PUSH_PATH.format(app_id=EXAMPLE_APP_ID)}"],
    )
    push_forward: str | None = Field(examples=[None])
    wechat_token: WeChatTokenStateAnswer
    created_at: datetime | None = Field(
        description="When the app was added. Null for an app in the settings.", examples=["2026-11-20T08:00:00Z"]
    )


def app_answer(settings: Settings, apps: Apps, wechat_tokens: WeChatTokens, known: KnownApp) -> AppAnswer:
    app = known.app
    token = wechat_tokens.state_of(app)
    values = dict(app) | {name: getattr(known, name) for name in ("source", "is_enabled", "created_at")}
    for name, value in app:
        # A response says whether a secret is set, for example in `has_app_secret`. It does not contain the secret,
        # because `AppAnswer` has no field for it.
        if f"has_{name}" in AppAnswer.model_fields:
            values[f"has_{name}"] = value is not None
    values |= {
        "unionid": app.unionid_in_force,
        "is_default": known == apps.default,
        "push_url": f"{settings.issuer}{PUSH_PATH.format(app_id=app.app_id)}",
        "wechat_token": WeChatTokenStateAnswer(expires_at=token.expires_at, error=token.failure_code),
    }
    return AppAnswer.model_validate(values)
