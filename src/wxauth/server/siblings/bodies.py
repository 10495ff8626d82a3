"""Answers to sibling services."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from wxauth.server.web.bodies import EXAMPLE_APP_ID, ShownOpenid, ShownSessionId, ShownUserId


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


class WeChatTokenAnswer(TypedDict):
    """The token with which a service calls WeChat's server API for an app."""

    access_token: Annotated[str, Field(description="512 characters or more.", examples=["88_kVQ1PSZ6XO7..."])]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[6871])]
