"""Request and answer bodies of user lookups."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NotRequired, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from wxauth.server.clients.models import Scope
from wxauth.server.siblings.bodies import ShortText
from wxauth.server.siblings.rows import UserForSiblings
from wxauth.server.users.attributes import ShownAttributes
from wxauth.server.users.bodies import DocumentVersion, Reason, ShownEraseAt
from wxauth.server.users.user_rows import IdentityJson
from wxauth.server.web.bodies import EXAMPLE_USER_ID, ShownNickname, ShownPictureUrl, ShownUserId, Time

LOOKED_UP_AT_ONCE: Final = 200


class LookupOpenid(BaseModel):
    """One openid in one app."""

    app_id: ShortText
    openid: ShortText


class LookupRequest(BaseModel):
    """Which users to look up."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [EXAMPLE_USER_ID]}]}, hide_input_in_errors=True)

    ids: list[UUID] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)
    openids: list[LookupOpenid] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)
    external_ids: list[ShortText] | None = Field(default=None, max_length=LOOKED_UP_AT_ONCE)

    @model_validator(mode="after")
    def _has_allowed_number(self) -> Self:
        # Unknown fields are ignored. Without this check, a misspelt name would look as if all these users had been
        # erased.
        asked = [self.ids, self.openids, self.external_ids]
        if all(some is None for some in asked):
            raise ValueError("Must have ids, openids or external_ids")
        if sum(len(some or ()) for some in asked) > LOOKED_UP_AT_ONCE:
            raise ValueError(f"Must have at most {LOOKED_UP_AT_ONCE} ids, openids and external_ids together")
        return self


class BanRequest(BaseModel):
    """A ban. It replaces an earlier one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "paid with a stolen card", "until": "2026-11-27T18:00:00+08:00"}]},
        hide_input_in_errors=True,
    )

    reason: Reason | None = Field(default=None, description="For staff only.")
    until: Time | None = Field(default=None, description="When the ban ends automatically, with an offset.")


class UserForSiblingsAnswer(TypedDict):
    """A user as siblings see them."""

    id: Annotated[ShownUserId, Field(description="UUIDv7. It differs from the requested id if that one was merged.")]
    nickname: ShownNickname
    avatar_url: ShownPictureUrl
    status: Literal["active", "disabled"]
    roles: Annotated[list[str], Field(examples=[[]])]
    created_at: datetime
    last_login_at: Annotated[
        datetime | None, Field(description="Null until an imported user logs in.", examples=["2026-11-20T08:00:00Z"])
    ]
    external_id: Annotated[
        str | None, Field(description="The user's id in the system before wxauth. Unique.", examples=["10023"])
    ]
    former_ids: Annotated[
        list[UUID],
        Field(
            description="The ids merged into this user, the first merge first.",
            examples=[["01933c5a-02b4-7f0e-8d21-7a5c9e1f3b86"]],
        ),
    ]
    former_external_ids: NotRequired[
        Annotated[
            list[str],
            Field(description="External ids of users merged into this one by WeChat's unionid. Absent if none."),
        ]
    ]
    identities: Annotated[list[IdentityJson], Field(description="The oldest first.")]
    consents: Annotated[list[DocumentVersion], Field(description="The user's current consents.")]
    attributes: ShownAttributes
    erase_at: ShownEraseAt
    phone: NotRequired[
        Annotated[str | None, Field(description="E.164. Only with the scope `phones`.", examples=["+8613800138000"])]
    ]
    phone_verified: NotRequired[
        Annotated[
            bool | None,
            Field(
                description="Whether the phone button verified the number; null without a number. Only with `phones`.",
                examples=[True],
            ),
        ]
    ]


class LookupAnswer(TypedDict):
    """The users found, each once, in the order of the request."""

    items: list[UserForSiblingsAnswer]


def user_for_siblings(user: UserForSiblings, scopes: Collection[Scope]) -> UserForSiblingsAnswer:
    """A user as a client with these scopes sees them."""
    answer: UserForSiblingsAnswer = {
        "id": user.id,
        "nickname": user.nickname,
        "avatar_url": user.avatar_url,
        "status": user.status,
        "roles": user.roles,
        "created_at": user.created_at,
        "last_login_at": user.last_login_at,
        "external_id": user.external_id,
        "former_ids": user.former_ids,
        "identities": user.identities,
        "consents": [
            {"document": document, "version": version} for document, version in sorted((user.consents or {}).items())
        ],
        "attributes": user.attributes or {},
        "erase_at": user.erase_at,
    }
    if user.former_external_ids:
        answer["former_external_ids"] = user.former_external_ids
    if Scope.PHONES in scopes:
        answer["phone"] = user.phone
        answer["phone_verified"] = user.phone_verified
    return answer


def lookup_answer(users: Sequence[UserForSiblings], scopes: Collection[Scope]) -> LookupAnswer:
    """Users as a client with these scopes sees them."""
    return {"items": [user_for_siblings(user, scopes) for user in users]}
