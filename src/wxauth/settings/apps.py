"""The fields of a WeChat app, as they occur in `APPS`, in the database and in administrators' requests.

The logos of apps and sites are small pictures as `data:` URLs.
"""

import base64
import re
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.claims import Claims
from wxauth.settings.roles import MAX_ROLES, ROLE_PATTERN, STAFF_ROLES
from wxauth.settings.secrets import AppSecret, PushAesKey, PushToken
from wxauth.settings.types import Lower, OrNone, check_title, checked, json_like
from wxauth.settings.urls import HookUrl, HostName
from wxauth.texts import MAX_TITLE_LENGTH

PUSH_PATH: Final = "/v1/wechat/push/{app_id}"  # the operator enters the URL with this path in WeChat's console
# Housekeeping ends the oldest sessions of an identity above this number. Without this limit, repeated logins would fill
# the list of sessions.
MAX_OPEN_SESSIONS: Final = 100
MAX_LOGO_BYTES: Final = 32 * 1024
MAX_LOGO_SIDE: Final = 1024  # pixels: a phone decodes the whole picture


def picture_url(content: bytes) -> str:
    """Return a small picture as a `data:` URL."""
    # Few commands need this import, which takes a few hundredths of a second.
    from PIL import Image

    # Pillow raises errors of many classes for a damaged picture.
    with suppress(Exception), Image.open(BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
        if len(content) <= MAX_LOGO_BYTES and max(image.size) <= MAX_LOGO_SIDE and image.format:
            image.load()
            # MPO is Pillow's name for a JPEG that contains a second picture.
            kind = image.format.lower().replace("mpo", "jpeg")
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    raise WrongValue(_("must be a PNG, JPEG or WebP image of up to 32 KiB and 1024 × 1024 pixels"))


# The results are cached, because each process reads the apps every five seconds, and checking a logo takes 15 ms.
@lru_cache(maxsize=256)
def check_logo(url: str) -> str:
    """Check that a URL is one that `picture_url` returns, and return it."""
    with suppress(ValueError):
        if picture_url(base64.b64decode(url.partition(",")[2])) == url:
            return url
    raise WrongValue(
        _(
            "must be a base64 `data:` URL with the matching media type. The image must be a PNG, JPEG or "
            "WebP of up to 32 KiB and 1024 × 1024 pixels"
        )
    )


Logo = Annotated[str, AfterValidator(check_logo)]


def _check_sign_up_roles(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_ROLES or not all(re.fullmatch(ROLE_PATTERN, role) for role in value):
        raise WrongValue(_("must be up to {n} roles such as member or beta-tester, separated by commas", n=MAX_ROLES))
    if not STAFF_ROLES.isdisjoint(value):
        raise WrongValue(
            _(
                "must not contain {roles}, because new users must never get these roles",
                roles=" or ".join(sorted(STAFF_ROLES)),
            )
        )
    return tuple(dict.fromkeys(value))


APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
AppId = Annotated[str, StringConstraints(pattern=f"^{APP_ID.pattern}$")]
AppKind = Annotated[Literal["mini_program", "official_account", "website", "mobile_app"], Lower]
# The constraints state the limits of `check_title` for the OpenAPI document.
AppTitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE_LENGTH), checked(check_title)
]
UnionidPolicy = Annotated[Literal["required", "optional"], Lower]
SignUp = Annotated[Literal["open", "closed"], Lower]
MaxSessions = Annotated[int, Field(ge=1, le=MAX_OPEN_SESSIONS, strict=True)]
SignUpRoles = Annotated[tuple[str, ...], AfterValidator(_check_sign_up_roles)]
JsHosts = Annotated[tuple[HostName, ...], Field(max_length=100)]


class AppFields(BaseModel):
    """The fields of an app apart from its id."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: AppKind = Field(
        default="mini_program",
        description="The kind of app in WeChat. Default: mini_program. You can't change the kind later.",
    )
    title: OrNone[AppTitle] = Field(
        default=None, description="The name that is shown to administrators and on the login pages."
    )
    logo: OrNone[Logo] = Field(
        default=None,
        description="The app's picture on the login pages, as a `data:` URL of a PNG, JPEG or WebP of up to 32 KiB and "
        "1024 × 1024 pixels.",
    )
    unionid: OrNone[UnionidPolicy] = Field(
        default=None,
        description="Whether new users must have a unionid. Null: `optional` for a `mini_program`, `required` for "
        "other kinds.",
    )
    app_secret: AppSecret = Field(description="The AppSecret from WeChat's console.")
    push_token: OrNone[PushToken] = Field(
        default=None,
        description="The Token from WeChat's message push settings. Without the Token, wxauth doesn't accept messages.",
    )
    push_aes_key: OrNone[PushAesKey] = Field(
        default=None, description="The EncodingAESKey. If set, wxauth accepts only encrypted messages."
    )
    push_forward: OrNone[HookUrl] = Field(
        default=None,
        description="The URL that wxauth forwards messages to, without changing the messages. The URL must use "
        "`https`, or `http` in a private network. Null: messages that don't concern wxauth are ignored.",
        examples=["https://shop.example.com/wechat"],
    )
    sign_up: OrNone[SignUp] = Field(
        default=None, description="Whether new users may sign up. Null: as in `WXAUTH_SIGN_UP`."
    )
    sign_up_roles: OrNone[SignUpRoles] = Field(
        default=None,
        description="The roles of new users. Null: the roles in `WXAUTH_SIGN_UP_ROLES`.",
        examples=[["member"]],
    )
    claims: OrNone[Claims] = Field(
        default=None,
        description="The claims that are added to the access tokens of this app's logins instead of the claims in "
        "`WXAUTH_CLAIMS`. `{}` adds no claims. Null: as in `WXAUTH_CLAIMS`.",
        examples=[{"role": "authenticated"}],
    )
    js_hosts: OrNone[JsHosts] = Field(
        default=None,
        description="The hosts whose pages can use the JS-SDK, as entered in WeChat's console. Only for an "
        "`official_account`. Null: none.",
        examples=[["shop.example.com"]],
    )
    max_sessions: OrNone[MaxSessions] = Field(
        default=None,
        description="The maximum number of a user's sessions in this app. When a user exceeds this number, the oldest "
        f"session ends at once. Null: the {MAX_OPEN_SESSIONS} newest sessions are kept.",
        examples=[1],
    )


class App(AppFields):
    """An app registered with WeChat: a mini-program or mini-game, a service account, a website app or a mobile app."""

    app_id: AppId

    @field_validator("push_aes_key", "push_forward")
    @classmethod
    def _nothing_without_token(cls, value: object, info: ValidationInfo) -> object:
        # If the token is invalid, `info.data` does not contain it, and the token has already been reported.
        has_no_token = "push_token" in info.data and info.data["push_token"] is None
        if value is not None and has_no_token:
            raise WrongValue(_("must be set together with {name}", name="push_token"))
        return value

    @property
    def is_mini_program(self) -> bool:
        """Whether the app is a mini-program or a mini-game."""
        return self.kind == "mini_program"

    @property
    def has_wechat_token(self) -> bool:
        """Whether WeChat issues access tokens to this kind of app. wxauth calls WeChat's API with these tokens."""
        return self.kind in ("mini_program", "official_account")

    @property
    def unionid_in_force(self) -> UnionidPolicy:
        """The rule for new users without a unionid: the app's own rule, or the default for the app's kind."""
        return self.unionid or ("optional" if self.is_mini_program else "required")

    @property
    def secrets(self) -> dict[str, str]:
        """The values of the secret fields, in plain text."""
        return {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}

    @property
    def plain_fields(self) -> dict[str, object]:
        """The values of the fields that are neither None nor secret, without the id."""
        return {
            name: value
            for name, value in self
            if value is not None and not isinstance(value, SecretStr) and name != "app_id"
        }


AppList = Annotated[tuple[App, ...], json_like('[{"app_id": "wx…", "app_secret": "…"}]')]
