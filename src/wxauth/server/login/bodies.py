"""Requests with codes, and answers with tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
)
from typing_extensions import TypedDict

from wxauth.server.login.login import Tokens
from wxauth.server.users.bodies import AvatarUrl, Nickname, UserAnswer, user_answer
from wxauth.server.web.bodies import EXAMPLE_APP_ID, ShownSessionId
from wxauth.server.wechat.received import BLOCK_BYTES, base64_bytes

MAX_ENCRYPTED_DATA: Final = 32 * 1024
"""Characters of base64. The steps of thirty days have 2,000."""


def _readable(value: object) -> dict[str, str]:
    # A login is never refused because of a consent. A malformed one is left out, and consents_due names it.
    pairs = value.items() if isinstance(value, dict) else ()
    return {name: version for name, version in pairs if isinstance(name, str) and isinstance(version, str)}


EXAMPLE_JWT: Final = "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9..."

LoginCode = Annotated[str, Field(min_length=1, max_length=256)]


class LoginRequest(BaseModel):
    """A `wx.login` code, and profile fields that the user gave."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "0a1B2c3D4e5F6g7H8i9J", "nickname": "小明"}]},
        hide_input_in_errors=True,
    )

    code: LoginCode = Field(
        validation_alias=AliasChoices("code", "jsCode", "js_code"),
        description="The code from `wx.login`, or from `SendAuth` in a mobile app. Also accepted as `jsCode`, "
        "`js_code`. Works once, for some minutes.",
        repr=False,
    )
    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="The mini-program or mobile app. Also accepted as `appId`, `appid`. Default: the first "
        "configured mini-program.",
    )
    nickname: Nickname | None = Field(
        default=None,
        validation_alias=AliasChoices("nickname", "nickName", "userName"),
        description="Also accepted as `nickName`, `userName`. Unchanged if absent, null or empty, or if "
        "nicknames are checked and it violates WeChat's rules.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("avatar_url", "avatarUrl"),
        description="An https URL. Also accepted as `avatarUrl`. Unchanged if absent, null or empty, or if "
        "it is the URL of an uploaded picture.",
    )
    phone_code: Annotated[str, Field(max_length=256)] | None = Field(
        default=None,
        validation_alias=AliasChoices("phone_code", "phoneCode"),
        description="The phone button's code, to bind the number too. Also accepted as `phoneCode`. "
        "If it fails, the login still succeeds: see `phone_error`.",
        repr=False,
    )
    consents: Annotated[dict[str, str], BeforeValidator(_readable)] = Field(
        default_factory=dict,  # pydantic copies a default, deeply, for each login
        json_schema_extra={"default": {}},
        description="Documents that the user agrees to, with their versions. Versions not in force are ignored: "
        "see `consents_due`.",
    )
    stay: StrictBool = Field(
        default=False,
        description="Whether somebody who has asked to be erased, and is refused with `account_leaving`, has changed "
        "their mind: the erasure is cancelled. Of anybody else it changes nothing.",
    )


class ProofRequest(BaseModel):
    """The proof that the person is present: a new login at WeChat."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"login_code": "0a1B2c3D4e5F6g7H8i9J"}]}, hide_input_in_errors=True
    )

    login_code: LoginCode = Field(
        description="The code of a new `wx.login`, or of `SendAuth` in a mobile app. Works once, for some minutes.",
        repr=False,
    )


class RefreshRequest(BaseModel):
    """The refresh token of the last login or refresh."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str = Field(repr=False)


class LogoutRequest(BaseModel):
    """The refresh token of the session to end. Default: the session of the access token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "wxr_..."}]}, hide_input_in_errors=True)

    refresh_token: str | None = Field(default=None, repr=False)


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
        raise ValueError(f"Must be one or more blocks of {BLOCK_BYTES} bytes")
    return value


def _one_block(value: bytes) -> bytes:
    if len(value) != BLOCK_BYTES:
        raise ValueError(f"Must be {BLOCK_BYTES} bytes")
    return value


_BASE64: Final = (BeforeValidator(_from_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"}))


class DecryptRequest(BaseModel):
    """The `encryptedData` and `iv` that WeChat gave the mini-program."""

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


class SessionKeyResetRequest(BaseModel):
    """The app whose session_key to replace; all apps if absent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"app_id": EXAMPLE_APP_ID}]}, hide_input_in_errors=True)

    app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("app_id", "appId", "appid"),
        description="Also accepted as `appId`, `appid`.",
    )


class LeavingAnswer(TypedDict):
    """When a person is erased who has asked for it."""

    erase_at: Annotated[datetime, Field(examples=["2026-11-27T08:00:00Z"])]


class TokenAnswer(TypedDict):
    """A pair of tokens, and their user."""

    access_token: Annotated[str, Field(description="A JWT (RFC 9068), ES256.", examples=[EXAMPLE_JWT])]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Lifetime of the access token in seconds.", examples=[900])]
    refresh_token: Annotated[str, Field(examples=["wxr_..."])]
    refresh_expires_in: Annotated[
        int, Field(description="Seconds until an unused session expires.", examples=[2592000])
    ]
    session_id: ShownSessionId
    is_new_user: bool
    user: UserAnswer
    phone_error: NotRequired[Annotated[str, Field(description="Why `phone_code` failed: the `code` of the problem.")]]


class DecryptedAnswer(TypedDict):
    """The data that WeChat had encrypted."""

    data: Annotated[
        dict[str, Any],
        Field(
            description="WeChat's object unchanged, with `watermark`.",
            examples=[
                {
                    "stepInfoList": [{"timestamp": 1795104000, "step": 8848}],
                    "watermark": {"timestamp": 1795161600, "appid": EXAMPLE_APP_ID},
                }
            ],
        ),
    ]


def token_answer(tokens: Tokens, in_force: Mapping[str, str]) -> TokenAnswer:
    """The answer with a pair of tokens. `in_force` are the documents to agree to, document → version."""
    answer: TokenAnswer = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "refresh_expires_in": tokens.refresh_expires_in,
        "session_id": tokens.session_id,
        "is_new_user": tokens.is_new_user,
        "user": user_answer(tokens.user, in_force),
    }
    if tokens.phone_error is not None:
        answer["phone_error"] = tokens.phone_error
    return answer
