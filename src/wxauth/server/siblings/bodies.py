"""Answers to other services."""

from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.server.users.bodies import EXAMPLE_SESSIONS, EXAMPLE_USER

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
    "sid": EXAMPLE_SESSIONS["items"][0]["id"],
    "openid": EXAMPLE_USER["openid"],
    "roles": ["admin"],
}


EXAMPLE_ACCESS_TOKEN: dict[str, Any] = {"access_token": "88_kVQ1PSZ6XO7...", "expires_in": 6871}


class IntrospectionAnswer(TypedDict):
    """Whether an access token is good. If it is, its claims follow (RFC 7662, section 2.2)."""

    active: bool
    token_type: NotRequired[Literal["Bearer"]]
    iss: NotRequired[str]
    sub: NotRequired[Annotated[UUID, Field(description="The user's id.")]]
    aud: NotRequired[str]
    exp: NotRequired[int]
    iat: NotRequired[int]
    jti: NotRequired[str]
    client_id: NotRequired[Annotated[str, Field(description="The mini-program's app_id, or a website's name.")]]
    app_id: NotRequired[Annotated[str, Field(description="The mini-program's app_id, in a website's token only.")]]
    scope: NotRequired[Annotated[str, Field(description="What the token is good for, in a website's token only.")]]
    sid: NotRequired[Annotated[UUID, Field(description="The session's id.")]]
    openid: NotRequired[str]
    roles: NotRequired[Annotated[list[str], Field(description="The user's present roles. Absent if there are none.")]]
    external_id: NotRequired[Annotated[str, Field(description="The user's present external id. Absent if none.")]]


class AccessTokenAnswer(TypedDict):
    """The token with which a service calls WeChat's server API for an app."""

    access_token: Annotated[str, Field(description="Up to 512 characters and more.")]
    expires_in: Annotated[int, Field(description="Seconds.")]
