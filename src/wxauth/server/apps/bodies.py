"""Requests and answers about apps. No answer contains a secret."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints
from typing_extensions import TypedDict

from wxauth.server.apps.registry import Apps, AppSource, KnownApp
from wxauth.server.core.setting_types import AppKind, EmptyIsNone, SignUp, UnionidPolicy
from wxauth.server.core.settings import App, AppFields, Settings
from wxauth.server.web.bodies import EXAMPLE_APP_ID, TEXT, ShownAppId
from wxauth.server.wechat.wechat_tokens import WeChatTokens

MAX_TITLE: Final = 64


AppTitle = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE, pattern=TEXT)]


class _Administered(BaseModel):
    """What administrators set for an app besides the fields of `App`."""

    title: Annotated[AppTitle | None, EmptyIsNone] = Field(
        default=None, description="The name that administrators see."
    )
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


class WeChatTokenStateAnswer(TypedDict):
    """The answering process's state of an app's WeChat token."""

    expires_at: Annotated[
        datetime | None,
        Field(
            description="Null: this process has no token and will request one when needed.",
            examples=["2026-11-20T10:00:00Z"],
        ),
    ]
    error: Annotated[
        str | None, Field(description="Why it could not get another token recently: the code of a problem.")
    ]


class AppAnswer(TypedDict):
    """An app, without its secrets."""

    app_id: ShownAppId
    kind: AppKind
    unionid: Annotated[
        UnionidPolicy,
        Field(
            description="Whether a new user must have a unionid: as set, or the default for the kind.",
            examples=["optional"],
        ),
    ]
    title: Annotated[str | None, Field(examples=["小店"])]
    source: Annotated[
        AppSource, Field(description="An app in the settings can only be changed there.", examples=["database"])
    ]
    is_default: Annotated[bool, Field(description="Whether this is the app of a login that names none.")]
    is_enabled: bool
    sign_up: SignUp | None
    sign_up_roles: Annotated[list[str] | None, Field(examples=[None])]
    claims: Annotated[dict[str, Any] | None, Field(examples=[None])]
    max_sessions: Annotated[int | None, Field(examples=[None])]
    has_app_secret: bool
    has_push_token: bool
    has_push_aes_key: Annotated[bool, Field(examples=[False])]
    push_url: Annotated[
        str,
        Field(
            description="The URL for WeChat's message push settings.",
            examples=[f"https://auth.example.com/v1/wechat/push/{EXAMPLE_APP_ID}"],
        ),
    ]
    push_forward: Annotated[str | None, Field(examples=[None])]
    wechat_token: WeChatTokenStateAnswer
    created_at: Annotated[
        datetime | None, Field(description="Null for an app in the settings.", examples=["2026-11-20T08:00:00Z"])
    ]


def app_answer(settings: Settings, apps: Apps, wechat_tokens: WeChatTokens, known: KnownApp) -> AppAnswer:
    """The answer about an app."""
    app, state = known.app, wechat_tokens.state_of(known.app)
    return {
        "app_id": app.app_id,
        "kind": app.kind,
        "unionid": app.unionid_in_force,
        "title": known.title,
        "source": known.source,
        "is_default": known == apps.default,
        "is_enabled": known.is_enabled,
        "sign_up": app.sign_up,
        "sign_up_roles": None if app.sign_up_roles is None else list(app.sign_up_roles),
        "claims": app.claims,
        "max_sessions": app.max_sessions,
        "has_app_secret": True,
        "has_push_token": app.push_token is not None,
        "has_push_aes_key": app.push_aes_key is not None,
        "push_url": f"{settings.issuer}/v1/wechat/push/{app.app_id}",
        "push_forward": app.push_forward,
        "wechat_token": {"expires_at": state.ends_at, "error": state.failure},
        "created_at": known.created_at,
    }
