"""Bodies in and out."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NotRequired
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticUseDefault
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.admin import MAX_PAGE_SIZE, MAX_ROLES, PAGE_SIZE, Page, id_in_cursor
from wxauth.core.services import Services
from wxauth.core.tables import ROLE, UserStatus
from wxauth.core.trail import EventType
from wxauth.devices import describe_device
from wxauth.session_keys import KeyState
from wxauth.wechat.encrypted_data import BLOCK_BYTES, base64_bytes

MAX_ENCRYPTED_DATA: Final = 32 * 1024
"""Characters of base64; thirty days of steps are 2,000."""

# Text to be stored: no control characters (Postgres would refuse a NUL).
_TEXT = r"^[^\x00-\x1f\x7f]*$"
# An absolute https URL without user information, as it was written; or nothing. Not of a host that is none: WeChat's
# tools put local files under http://tmp/, and old tutorials an s into it.
_HTTPS_URL: Final = re.compile(
    r"(https://(?!(tmp|usr|store)(/|$))"
    r"""(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]<>"'`^{|}\\\x00-\x20\x7f]+)(:[0-9]{1,5})?"""
    r"""([/?#][^\s<>"`^{|}\\\x00-\x20\x7f]*)?)?""",
    re.IGNORECASE,
)


def _picture_url(value: str, info: ValidationInfo) -> str:
    services: Services | None = info.context
    if (services is not None and services.avatars.serves(value)) or _HTTPS_URL.fullmatch(value):
        return value
    raise ValueError("Should be an https URL; upload a picture that is on the phone to POST /v1/me/avatar")


Nickname = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64, pattern=_TEXT)]
Role = Annotated[str, StringConstraints(pattern=f"^{ROLE}$")]
AvatarUrl = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2048), AfterValidator(_picture_url)]

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
EXAMPLE_SESSIONS: dict[str, Any] = {
    "items": [
        {
            "id": "01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2",
            "app_id": "wx1a2b3c4d5e6f7a8b",
            "device": "iOS 17.1, WeChat 8.0.44",
            "ip": "203.0.113.7",
            "created_at": "2026-11-20T08:00:00Z",
            "last_used_at": "2026-11-20T09:30:00Z",
            "expires_at": "2026-12-20T09:30:00Z",
            "current": True,
        }
    ],
    "next_cursor": None,
}
EXAMPLE_LISTED_USER: dict[str, Any] = {
    "id": EXAMPLE_USER["id"],
    "identities": [{"app_id": EXAMPLE_USER["app_id"], "openid": EXAMPLE_USER["openid"]}],
    **{name: value for name, value in EXAMPLE_USER.items() if name not in ("id", "app_id", "openid")},
}
EXAMPLE_USER_DETAIL: dict[str, Any] = {
    **EXAMPLE_LISTED_USER,
    "sessions": [
        {name: value for name, value in session.items() if name != "current"} for session in EXAMPLE_SESSIONS["items"]
    ],
}
EXAMPLE_USERS: dict[str, Any] = {"items": [EXAMPLE_LISTED_USER], "next_cursor": "AZM8Xo8afD6bHS9qTowNFw"}
EXAMPLE_EVENTS: dict[str, Any] = {
    "items": [
        {
            "id": "01933c62-14e0-7b11-8f3a-5d2c7e9a4b60",
            "type": "refresh_token_reused",
            "at": "2026-11-20T10:00:00Z",
            "actor": "system",
            "user_id": EXAMPLE_USER["id"],
            "app_id": EXAMPLE_USER["app_id"],
            "ip": "203.0.113.7",
            "data": {"session_id": EXAMPLE_SESSIONS["items"][0]["id"]},
        }
    ],
    "next_cursor": "AZM8YhTgexGPOl0sfppLYA",
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
EXAMPLE_INTROSPECTION: dict[str, Any] = {
    "active": True,
    "token_type": "Bearer",
    "iss": "https://auth.example.com",
    "sub": EXAMPLE_USER["id"],
    "aud": "wxauth",
    "exp": 1795162500,
    "iat": 1795161600,
    "jti": "01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71",
    "client_id": EXAMPLE_USER["app_id"],
    "sid": EXAMPLE_TOKENS["session_id"],
    "openid": EXAMPLE_USER["openid"],
    "roles": ["admin"],
}


EXAMPLE_ACCESS_TOKEN: dict[str, Any] = {"access_token": "88_kVQ1PSZ6XO7...", "expires_in": 6871}
EXAMPLE_DECRYPTED: dict[str, Any] = {
    "data": {
        "stepInfoList": [{"timestamp": 1795104000, "step": 8848}],
        "watermark": {"timestamp": 1795161600, "appid": EXAMPLE_USER["app_id"]},
    }
}
EXAMPLE_SESSION_KEYS: dict[str, Any] = {
    "items": [{**EXAMPLE_LISTED_USER["identities"][0], "valid": True, "error": None}],
    "next_cursor": None,
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
        repr=False,
    )
    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="The mini-program. Also accepted as `appId`, `appid`. The first configured app, unless given.",
    )
    nickname: Nickname | None = Field(
        default=None,
        validation_alias=AliasChoices("nickname", "nickName", "userName"),
        description="Also accepted as `nickName`, `userName`. Absent, null or empty changes nothing; so does one that "
        "WeChat finds against the rules, where the service has it checked.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("avatar_url", "avatarUrl"),
        description="An https URL. Also accepted as `avatarUrl`. Absent, null or empty changes nothing; nor does that "
        "of an uploaded picture.",
    )
    phone_code: Annotated[str, Field(max_length=256)] | None = Field(
        default=None,
        validation_alias=AliasChoices("phone_code", "phoneCode"),
        description="What the phone button gave, to bind the number too. Also accepted as `phoneCode`. "
        "One that fails does not undo the login: see `phone_error`.",
        repr=False,
    )


class RefreshRequest(BaseModel):
    """The refresh token that the last login or refresh gave."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str = Field(repr=False)


class LogoutRequest(BaseModel):
    """The refresh token of the session to end; the bearer's own session, unless given."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str | None = Field(default=None, repr=False)


class ProfileChange(BaseModel):
    """What to change of one's profile: absent changes nothing, null or empty clears."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"nickname": "小明"}]}, hide_input_in_errors=True)

    nickname: Nickname | None = Field(
        default=None,
        validation_alias=AliasChoices("nickname", "nickName", "userName"),
        description="Also accepted as `nickName`, `userName`.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("avatar_url", "avatarUrl"),
        description="An https URL. Also accepted as `avatarUrl`. That of an uploaded picture changes nothing.",
    )

    def changes(self) -> dict[str, str | None]:
        """What was named, with None for what is to be cleared."""
        return {name: getattr(self, name) or None for name in self.model_fields_set}


def _from_base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    if len(value) > MAX_ENCRYPTED_DATA:
        raise ValueError(f"String should have at most {MAX_ENCRYPTED_DATA} characters")
    try:
        return base64_bytes(value)
    except ValueError:
        raise ValueError("String should be base64") from None


def _whole_blocks(value: bytes) -> bytes:
    if not value or len(value) % BLOCK_BYTES:
        raise ValueError(f"Should be one or more blocks of {BLOCK_BYTES} bytes")
    return value


def _one_block(value: bytes) -> bytes:
    if len(value) != BLOCK_BYTES:
        raise ValueError(f"Should be {BLOCK_BYTES} bytes")
    return value


_BASE64: Final = (BeforeValidator(_from_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"}))


class DecryptRequest(BaseModel):
    """What the mini-program was given: `encryptedData` and `iv`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"encrypted_data": "q0EJbVMXC0kYb9rMbJcMdA==", "iv": "r7BXXKkLb8qrSNn05n0qiA=="}]
        },
        hide_input_in_errors=True,
    )

    encrypted_data: Annotated[bytes, *_BASE64, AfterValidator(_whole_blocks)] = Field(
        validation_alias=AliasChoices("encrypted_data", "encryptedData"),
        description="Also accepted as `encryptedData`.",
    )
    iv: Annotated[bytes, *_BASE64, AfterValidator(_one_block)]


class PhoneRequest(BaseModel):
    """What the phone button gave."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "e31968a7f94cc5ee25fafc2aef2773f0bb8c3937b22520eb8ee345274d00c144"}]},
        hide_input_in_errors=True,
    )

    code: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="`detail.code` of `bindgetphonenumber`, not of `wx.login`. Works for five minutes.", repr=False
    )


def _folded(roles: list[str]) -> list[str]:
    folded = list(dict.fromkeys(roles))
    if len(folded) > MAX_ROLES:
        raise ValueError(f"List should have at most {MAX_ROLES} items")
    return folded


class UserChangeRequest(BaseModel):
    """What to change of a user: absent or null changes nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]}, hide_input_in_errors=True)

    status: UserStatus | None = Field(default=None, description="A ban (`disabled`) ends every session at once.")
    roles: Annotated[list[Role], AfterValidator(_folded)] | None = Field(
        default=None, description=f"All that the user is to have, at most {MAX_ROLES}."
    )


class SessionKeyResetRequest(BaseModel):
    """Which session_key to replace; without an app, that of each one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"app_id": EXAMPLE_USER["app_id"]}]}, hide_input_in_errors=True
    )

    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="Also accepted as `appId`, `appid`.",
    )


class _PageQuery(BaseModel):
    limit: int = Field(default=PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE)
    cursor: Annotated[UUID | None, BeforeValidator(id_in_cursor), WithJsonSchema({"type": "string"})] = Field(
        default=None, description="The `next_cursor` of the page before."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        if value == "":
            raise PydanticUseDefault
        return value


class UsersQuery(_PageQuery):
    """Which users to list."""

    q: Annotated[str, StringConstraints(strip_whitespace=True, max_length=256, pattern=_TEXT)] | None = Field(
        default=None, description="Part of the nickname in any case, or the whole openid, unionid, phone number or id."
    )
    status: UserStatus | None = None
    role: Role | None = None
    app_id: Annotated[str, StringConstraints(pattern=_TEXT)] | None = Field(
        default=None, description="Who has an identity in this app."
    )


class EventsQuery(_PageQuery):
    """Which events to list."""

    user_id: UUID | None = Field(default=None, description="To whom it was done.")
    type: Annotated[str, StringConstraints(pattern=_TEXT)] | None = Field(
        default=None, description=f"Such as {', '.join(f'`{kind}`' for kind in EventType)}."
    )


class OpenSessionAnswer(TypedDict):
    """A login on one device."""

    id: UUID
    app_id: str
    device: Annotated[str | None, Field(description="System and WeChat version, from the User-Agent.")]
    ip: Annotated[str | None, Field(description="Where it was last used from.")]
    created_at: datetime
    last_used_at: datetime
    expires_at: Annotated[datetime, Field(description="When it ends unless it is used.")]


class SessionAnswer(OpenSessionAnswer):
    """A login on one device."""

    current: Annotated[bool, Field(description="Whether it is the one that asks.")]


class SessionsAnswer(TypedDict):
    """All open sessions of a user, in one page."""

    items: list[SessionAnswer]
    next_cursor: None


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


class IdentityAnswer(TypedDict):
    """One openid in one app."""

    app_id: str
    openid: str


class ListedUserAnswer(TypedDict):
    """A user, with all identities."""

    id: UUID
    identities: Annotated[list[IdentityAnswer], Field(description="The oldest first.")]
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    phone: Annotated[str | None, Field(description="E.164.")]
    roles: list[str]
    status: Literal["active", "disabled"]
    created_at: datetime
    last_login_at: datetime


class UserDetailAnswer(ListedUserAnswer):
    """A user, with all identities and open sessions."""

    sessions: Annotated[list[OpenSessionAnswer], Field(description="The last used first.")]


class UsersAnswer(TypedDict):
    """Some users, the newest first."""

    items: list[ListedUserAnswer]
    next_cursor: Annotated[str | None, Field(description="`cursor` for the next page, null after the last.")]


class EventAnswer(TypedDict):
    """Something that was done."""

    id: UUID
    type: str
    at: datetime
    actor: Annotated[
        str,
        Field(
            description="The id of the user or the name of the service client that did it, `operator` by command, "
            "`wechat` by push, or `system`."
        ),
    ]
    user_id: Annotated[UUID | None, Field(description="To whom.")]
    app_id: str | None
    ip: Annotated[str | None, Field(description="From where.")]
    data: Annotated[dict[str, Any], Field(description="What else there is to say; empty where a person was erased.")]


class EventsAnswer(TypedDict):
    """Some events, the newest first."""

    items: list[EventAnswer]
    next_cursor: Annotated[str | None, Field(description="`cursor` for the next page, null after the last.")]


def open_session_answer(session: Mapping[str, Any]) -> OpenSessionAnswer:
    """An open session as it was read."""
    return {
        "id": session["id"],
        "app_id": session["app_id"],
        "device": describe_device(session["user_agent"]),
        "ip": None if session["ip"] is None else str(session["ip"]),
        "created_at": session["created_at"],
        "last_used_at": session["last_used_at"],
        "expires_at": session["expires_at"],
    }


def listed_user_answer(user: Mapping[str, Any]) -> ListedUserAnswer:
    """A user as read with all identities."""
    return {
        "id": user["id"],
        "identities": user["identities"],
        "unionid": user["unionid"],
        "nickname": user["nickname"],
        "avatar_url": user["avatar_url"],
        "phone": user["phone"],
        "roles": user["roles"],
        "status": user["status"],
        "created_at": user["created_at"],
        "last_login_at": user["last_login_at"],
    }


def user_detail_answer(user: Mapping[str, Any]) -> UserDetailAnswer:
    """A user as read with all identities and open sessions."""
    return {**listed_user_answer(user), "sessions": [open_session_answer(session) for session in user["sessions"]]}


def users_answer(page: Page) -> UsersAnswer:
    """A page of users."""
    return {"items": [listed_user_answer(user) for user in page.items], "next_cursor": page.next_cursor}


def events_answer(page: Page) -> EventsAnswer:
    """A page of events."""
    return {
        "items": [
            {
                "id": event["id"],
                "type": event["type"],
                "at": event["at"],
                "actor": event["actor"],
                "user_id": event["user_id"],
                "app_id": event["app_id"],
                "ip": None if event["ip"] is None else str(event["ip"]),
                "data": event["data"],
            }
            for event in page.items
        ],
        "next_cursor": page.next_cursor,
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
    phone_error: NotRequired[
        Annotated[str, Field(description="Why `phone_code` bound no number: the `code` of the problem.")]
    ]


class DecryptedAnswer(TypedDict):
    """What WeChat had encrypted."""

    data: Annotated[dict[str, Any], Field(description="As it is, `watermark` included.")]


class SessionKeyAnswer(TypedDict):
    """Whether WeChat takes the session_key that is stored for an identity."""

    app_id: str
    openid: str
    valid: Annotated[
        bool | None, Field(description="False where the person has to log in again; null where it cannot be told.")
    ]
    error: Annotated[
        str | None,
        Field(description="Why it cannot be told: a failure's `code`; `session_key_expired` where no key is stored."),
    ]


class SessionKeysAnswer(TypedDict):
    """The session_keys of a user, one for each identity, in one page."""

    items: Annotated[list[SessionKeyAnswer], Field(description="That of the oldest identity first.")]
    next_cursor: None


def session_keys_answer(states: Sequence[KeyState]) -> SessionKeysAnswer:
    """What is known of a user's session_keys."""
    return {
        "items": [
            {"app_id": state.app_id, "openid": state.openid, "valid": state.is_valid, "error": state.error}
            for state in states
        ],
        "next_cursor": None,
    }


class IntrospectionAnswer(TypedDict):
    """Whether an access token is good, and where it is, what it says (RFC 7662, section 2.2)."""

    active: bool
    token_type: NotRequired[Literal["Bearer"]]
    iss: NotRequired[str]
    sub: NotRequired[Annotated[UUID, Field(description="The user's id.")]]
    aud: NotRequired[str]
    exp: NotRequired[int]
    iat: NotRequired[int]
    jti: NotRequired[str]
    client_id: NotRequired[Annotated[str, Field(description="The mini-program's app_id.")]]
    sid: NotRequired[Annotated[UUID, Field(description="The session's id.")]]
    openid: NotRequired[str]
    roles: NotRequired[Annotated[list[str], Field(description="Those that the user has now; absent where none.")]]


class AccessTokenAnswer(TypedDict):
    """What WeChat's server API is called with on behalf of an app."""

    access_token: Annotated[str, Field(description="Up to 512 characters and more.")]
    expires_in: Annotated[int, Field(description="Seconds.")]


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
