"""Bodies in and out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

# Text to be stored: no control characters (Postgres would refuse a NUL).
_TEXT = r"^[^\x00-\x1f\x7f]*$"
# An absolute https URL without user information, as it was written; or nothing.
_HTTPS_URL = r"^((?i:https)://[^\s/?#@\\\x00-\x20\x7f]+([/?#][^\s\\\x00-\x20\x7f]*)?)?$"

Nickname = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64, pattern=_TEXT)]
AvatarUrl = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2048, pattern=_HTTPS_URL)]

EXAMPLE_USER: dict[str, Any] = {
    "id": "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17",
    "app_id": "wx1a2b3c4d5e6f7a8b",
    "openid": "oGZUI0egBJY1zhBYw2KhdUfwVJJE",
    "unionid": "oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E",
    "nickname": "小明",
    "avatar_url": "https://example.com/avatars/1.png",
    "phone": "+8613800138000",
    "roles": [],
    "status": "active",
    "created_at": "2026-11-20T08:00:00Z",
    "last_login_at": "2026-11-20T08:00:00Z",
}
EXAMPLE_TOKENS: dict[str, Any] = {
    "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9...",
    "token_type": "Bearer",
    "expires_in": 900,
    "refresh_token": "wxr_...",
    "refresh_expires_in": 2592000,
    "session_id": "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2",
    "is_new_user": True,
    "user": EXAMPLE_USER,
}


class LoginRequest(BaseModel):
    """A `wx.login` code, and what the person gave of their profile."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "0a1B2c3D4e5F6g7H8i9J", "nickname": "小明"}]},
        hide_input_in_errors=True,
    )

    code: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        validation_alias=AliasChoices("code", "jsCode", "js_code"),
        description="What `wx.login` gave. Also accepted as `jsCode`, `js_code`. Works once, for five minutes.",
    )
    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="The mini-program. Also accepted as `appId`, `appid`. The first configured app, unless given.",
    )
    nickname: Nickname | None = Field(
        default=None,
        validation_alias=AliasChoices("nickname", "nickName", "userName"),
        description="Also accepted as `nickName`, `userName`. Absent, null or empty changes nothing.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("avatar_url", "avatarUrl"),
        description="An https URL. Also accepted as `avatarUrl`. Absent, null or empty changes nothing.",
    )


class RefreshRequest(BaseModel):
    """The refresh token that the last login or refresh gave."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str


class LogoutRequest(BaseModel):
    """The refresh token of the session to end; the bearer's own session, unless given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str | None = None


class UserAnswer(TypedDict):
    """A user, with the identity of the session that asks."""

    id: Annotated[UUID, Field(description="UUIDv7; what a sibling keys its own data by.")]
    app_id: str
    openid: str
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    phone: Annotated[str | None, Field(description="E.164.")]
    roles: list[str]
    status: Literal["active", "disabled"]
    created_at: datetime
    last_login_at: datetime


def user_answer(user: Mapping[str, Any]) -> UserAnswer:
    """A user as it was read, with the app_id and openid of the session that asks."""
    return {
        "id": user["id"],
        "app_id": user["app_id"],
        "openid": user["openid"],
        "unionid": user["unionid"],
        "nickname": user["nickname"],
        "avatar_url": user["avatar_url"],
        "phone": user["phone"],
        "roles": user["roles"],
        "status": user["status"],
        "created_at": user["created_at"],
        "last_login_at": user["last_login_at"],
    }


class TokenAnswer(TypedDict):
    """A pair of tokens, and whose they are."""

    access_token: Annotated[str, Field(description="A JWT (RFC 9068), ES256.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds the access token lives.")]
    refresh_token: str
    refresh_expires_in: Annotated[int, Field(description="Seconds the session lives unless it is used.")]
    session_id: UUID
    is_new_user: bool
    user: UserAnswer


class Problem(BaseModel):
    """A failure (RFC 9457)."""

    type: Annotated[str, Field(description="`urn:wxauth:problem:<code>`.")]
    title: Annotated[str, Field(description="One short sentence for the person, in Chinese or English.")]
    status: int
    detail: Annotated[str, Field(description="For the developer, in English.")]
    code: Annotated[str, Field(description="Stable; what a program looks at.")]
    request_id: str
    wechat_errcode: Annotated[int | None, Field(description="Where WeChat spoke.")] = None
    errors: Annotated[list[dict[str, str]] | None, Field(description="For `invalid_request`: field and message.")] = (
        None
    )
