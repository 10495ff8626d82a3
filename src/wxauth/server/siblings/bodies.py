"""Answers to sibling services."""

from typing import Annotated, Final, Literal, NotRequired, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints, model_validator
from typing_extensions import TypedDict

from wxauth.server.web.bodies import (
    EXAMPLE_APP_ID,
    EXAMPLE_OPENID,
    TEXT,
    ShownOpenid,
    ShownSessionId,
    ShownUserId,
)

MAX_SIGNED: Final = 16 * 1024
"""Bytes of data that are signed."""

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT)]
"""An openid, an app id or an external id."""


def _short_enough(data: str) -> str:
    if len(data.encode()) > MAX_SIGNED:
        raise ValueError(f"Must have at most {MAX_SIGNED} bytes")
    return data


_Signed = Annotated[str, AfterValidator(_short_enough)]


class IntrospectionAnswer(TypedDict):
    """Whether an access token is valid. If it is, its claims follow (RFC 7662, section 2.2)."""

    active: bool
    token_type: NotRequired[Annotated[Literal["Bearer"], Field(examples=["Bearer"])]]
    iss: NotRequired[Annotated[str, Field(examples=["https://auth.example.com"])]]
    sub: NotRequired[Annotated[ShownUserId, Field(description="The user's id.")]]
    aud: NotRequired[Annotated[str, Field(examples=["wxauth"])]]
    exp: NotRequired[Annotated[int, Field(examples=[1795162500])]]
    iat: NotRequired[Annotated[int, Field(examples=[1795161600])]]
    jti: NotRequired[Annotated[str, Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])]]
    client_id: NotRequired[
        Annotated[str, Field(description="The mini-program's app_id, or a website's name.", examples=[EXAMPLE_APP_ID])]
    ]
    app_id: NotRequired[Annotated[str, Field(description="The mini-program's app_id, in a website's token only.")]]
    scope: NotRequired[Annotated[str, Field(description="The granted scopes, in a website's token only.")]]
    sid: NotRequired[Annotated[ShownSessionId, Field(description="The session's id.")]]
    openid: NotRequired[ShownOpenid]
    roles: NotRequired[
        Annotated[
            list[str], Field(description="The user's current roles. Absent if there are none.", examples=[["admin"]])
        ]
    ]
    external_id: NotRequired[Annotated[str, Field(description="The user's current external id. Absent if none.")]]


class SignatureRequest(BaseModel):
    """What to sign, and with whose session_key: that of `openid`, or of `user_id`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"openid": EXAMPLE_OPENID, "data": '{"offerId":"1450000000","env":0}'}]},
        hide_input_in_errors=True,
    )

    openid: ShortText | None = None
    user_id: UUID | None = Field(default=None, description="Must have exactly one identity in the app.")
    data: _Signed = Field(description="Up to 16,384 bytes of UTF-8. They are signed as they are.")
    check_: StrictBool = Field(
        default=False, alias="check", description="Whether WeChat is asked first if the session_key is valid."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.openid is None) == (self.user_id is None):
            raise ValueError("Must have either openid or user_id")
        return self


class SignatureAnswer(TypedDict):
    """A signature with the session_key of this identity."""

    signature: Annotated[
        str,
        Field(
            description="HMAC-SHA256, 64 lower-case hexadecimal digits.",
            examples=["654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"],
        ),
    ]
    openid: ShownOpenid


class WeChatTokenAnswer(TypedDict):
    """The token with which a service calls WeChat's server API for an app."""

    access_token: Annotated[str, Field(description="512 characters or more.", examples=["88_kVQ1PSZ6XO7..."])]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[6871])]
