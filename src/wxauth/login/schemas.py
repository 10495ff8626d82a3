"""The body of a login, and the response with tokens."""

from typing import Annotated, Final, Literal, NotRequired

from pydantic import AliasChoices, Field, StrictBool
from typing_extensions import TypedDict

from wxauth.users.schemas import AVATAR_URL_ALIASES, NICKNAME_ALIASES, AvatarUrl, Nickname, UserAnswer
from wxauth.web.schemas import Lenient, ShownSessionId, body_like

EXAMPLE_JWT: Final = "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9..."

LoginCode = Annotated[str, Field(min_length=1, max_length=256)]


class LoginRequest(Lenient):
    """The code of a login, and the profile fields, phone code and consents that the user gave.

    Only `code`, `app_id` and `stay` can make the login fail.
    """

    # A login ignores an invalid value of an `optional` field, and removes lone surrogates from a `cleaned` field.
    optional = frozenset({"nickname", "avatar_url", "phone_code", "consents"})
    cleaned = ("nickname",)
    model_config = body_like({"code": "0a1B2c3D4e5F6g7H8i9J", "nickname": "小明"})

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
        validation_alias=NICKNAME_ALIASES,
        description="Also accepted as `nickName`, `userName`. Unchanged if absent, null or empty, or 微信用户, which "
        "WeChat returns for every user.",
    )
    avatar_url: AvatarUrl | None = Field(
        default=None,
        validation_alias=AVATAR_URL_ALIASES,
        description="An https URL. Also accepted as `avatarUrl`. Unchanged if absent, null or empty, or if "
        "it is the URL of an uploaded picture or of WeChat's grey one.",
    )
    phone_code: Annotated[str, Field(max_length=256)] | None = Field(
        default=None,
        validation_alias=AliasChoices("phone_code", "phoneCode"),
        description="The phone button's code, to bind the number too. Also accepted as `phoneCode`. "
        "If it fails, the login still succeeds: see `phone_error`.",
        repr=False,
    )
    consents: dict[str, str] | None = Field(
        default=None,
        description="Documents that the user agrees to, with their versions. Versions not in force are ignored: "
        "see `consents_due`.",
    )
    stay: StrictBool = Field(
        default=False,
        description="Whether to cancel the erasure that the user has requested. Set it if a user whose login fails "
        "with `account_leaving` wants to stay. For any other user, it changes nothing.",
    )


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
    is_new_user: Annotated[bool, Field(description="Whether the login has created the user. False after a refresh.")]
    user: UserAnswer
    phone_error: NotRequired[Annotated[str, Field(description="Why `phone_code` failed: the `code` of the problem.")]]
    ignored: NotRequired[
        Annotated[
            dict[str, str],
            Field(
                description="Fields of the login that wxauth ignored, each with the `code` of the problem. Absent if "
                "none.",
                examples=[{"nickname": "invalid_request"}],
            ),
        ]
    ]
