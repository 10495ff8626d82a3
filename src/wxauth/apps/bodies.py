"""Apps as they come and go. A secret comes and never goes."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.apps.managing import KEY_WANTS_TOKEN
from wxauth.apps.registry import KnownApp, Source
from wxauth.core.services import Services
from wxauth.core.settings import AppId, AppSecret, OrNone, PushAesKey, PushToken, SignUp
from wxauth.web.bodies import TEXT

MAX_TITLE: Final = 64

EXAMPLE_APP: dict[str, Any] = {
    "app_id": "wx1a2b3c4d5e6f7a8b",
    "title": "小店",
    "source": "database",
    "is_default": True,
    "is_enabled": True,
    "sign_up": None,
    "has_app_secret": True,
    "has_push_token": True,
    "has_push_aes_key": False,
    "push_url": "https://auth.example.com/v1/wechat/push/wx1a2b3c4d5e6f7a8b",
    "wechat_token": {"expires_at": "2026-11-20T10:00:00Z", "error": None},
    "created_at": "2026-11-20T08:00:00Z",
}
EXAMPLE_APPS: dict[str, Any] = {"items": [EXAMPLE_APP], "next_cursor": None}


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("Cannot be taken away: leave it out, and it stays")
    return value


Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE, pattern=TEXT)]
NotNull = BeforeValidator(_not_null)


class AppRequest(BaseModel):
    """An app to add."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"app_id": EXAMPLE_APP["app_id"], "title": "小店", "app_secret": "…"}]},
        hide_input_in_errors=True,
    )

    app_id: AppId
    app_secret: AppSecret
    title: Annotated[Title | None, OrNone] = Field(default=None, description="What administrators call it.")
    push_token: Annotated[PushToken | None, OrNone] = Field(
        default=None, description="Token of WeChat's message push settings."
    )
    push_aes_key: Annotated[PushAesKey | None, OrNone] = Field(
        default=None, description="EncodingAESKey; with one, none but encrypted messages are taken."
    )
    sign_up: Annotated[SignUp | None, OrNone] = Field(
        default=None, description="Whether somebody unknown may come in; null where the app has no word of its own."
    )
    is_enabled: bool = Field(default=True, description="Whether people may log in to it.")
    check_: bool = Field(default=True, alias="check", description="Whether WeChat is asked first if it takes them.")

    @field_validator("push_aes_key")
    @classmethod
    def _no_key_without_token(cls, key: PushAesKey | None, info: ValidationInfo) -> PushAesKey | None:
        if key is not None and info.data.get("push_token") is None:
            raise ValueError(KEY_WANTS_TOKEN)
        return key


class AppChangeRequest(BaseModel):
    """What to change of an app: absent changes nothing, null or empty clears what may be empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"is_enabled": False}]}, hide_input_in_errors=True)

    app_secret: Annotated[AppSecret, NotNull] = Field(default=None, description="Counts at once.")  # type: ignore[assignment]  # absent
    title: Annotated[Title | None, OrNone] = None
    push_token: Annotated[PushToken | None, OrNone] = None
    push_aes_key: Annotated[PushAesKey | None, OrNone] = None
    sign_up: Annotated[SignUp | None, OrNone] = None
    is_enabled: Annotated[bool, NotNull] = Field(default=None, description="Its sessions go on.")  # type: ignore[assignment]  # absent
    check_: bool = Field(
        default=True, alias="check", description="Whether WeChat is asked first if it takes a new secret."
    )

    @property
    def changes(self) -> dict[str, Any]:
        """What was named, by its name."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"check_"}}


class WeChatTokenAnswer(TypedDict):
    """What the process that was asked knows of an app's WeChat token."""

    expires_at: Annotated[datetime | None, Field(description="Null where it has none: it asks when it needs one.")]
    error: Annotated[str | None, Field(description="Why it could not get another one lately: the code of a problem.")]


class AppAnswer(TypedDict):
    """An app, without its secrets."""

    app_id: str
    title: str | None
    source: Annotated[Source, Field(description="One of the settings' is changed there.")]
    is_default: Annotated[bool, Field(description="Whether it is meant where a login names none.")]
    is_enabled: bool
    sign_up: SignUp | None
    has_app_secret: bool
    has_push_token: bool
    has_push_aes_key: bool
    push_url: Annotated[str, Field(description="What WeChat's message push settings want as URL.")]
    wechat_token: WeChatTokenAnswer
    created_at: Annotated[datetime | None, Field(description="Null for one of the settings'.")]


class AppsAnswer(TypedDict):
    """All apps: the settings' ones, then the others in the order in which they were added."""

    items: list[AppAnswer]
    next_cursor: None


def app_answer(services: Services, known: KnownApp) -> AppAnswer:
    """An app as it is known here."""
    app, state = known.app, services.wechat_tokens.state_of(known.app)
    return {
        "app_id": app.app_id,
        "title": known.title,
        "source": known.source,
        "is_default": known == services.apps.default,
        "is_enabled": known.is_enabled,
        "sign_up": app.sign_up,
        "has_app_secret": True,
        "has_push_token": app.push_token is not None,
        "has_push_aes_key": app.push_aes_key is not None,
        "push_url": f"{services.settings.issuer}/v1/wechat/push/{app.app_id}",
        "wechat_token": {"expires_at": state.ends_at, "error": state.failure},
        "created_at": known.created_at,
    }
