"""`/v1/users`: sibling services look users up, change their attributes, and shut them out."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NotRequired, Self
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from wxauth.errors import InsufficientRole, NotFound, Title
from wxauth.server.clients.models import Scope
from wxauth.server.clients.service_clients import AttributesClientDep, ModeratingClientDep, UsersClientDep
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import UserStatus
from wxauth.server.siblings.rows import UserForSiblings, look_up
from wxauth.server.users.admin import UserChange, change_attributes, change_user, end_all_sessions
from wxauth.server.users.admin_routes import NO_SUCH_USER
from wxauth.server.users.attributes import AttributesRequest, ShownAttributes
from wxauth.server.users.bodies import DocumentVersion, Reason, ShownEraseAt
from wxauth.server.users.callers import DeviceDep
from wxauth.server.users.user_rows import IdentityJson
from wxauth.server.web.bodies import EXAMPLE_USER_ID, TEXT, ShownNickname, ShownPictureUrl, ShownUserId, Time
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

LOOKED_UP_AT_ONCE: Final = 200

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT)]
"""An openid, an app id or an external id."""


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


router = Router("siblings")


@router.get("/v1/users/{user_id}", summary=Title("Look up a user", "查询用户"), failures=[NO_SUCH_USER])
async def look_user_up(client: UsersClientDep, database: DatabaseDep, user_id: UUID) -> UserForSiblingsAnswer:
    """A user, for a service client with the scope `users`; with the phone number if it also has `phones`.

    For an id that was merged away the answer is the user that remains: its `id` differs, and its `former_ids` hold the
    id asked for. An erased user is not found.
    """
    for user in await look_up(database, ids=[user_id]):
        return user_for_siblings(user, client.scopes)
    raise NotFound("there is no such user")


@router.post("/v1/users/lookup", summary=Title("Look up many users", "批量查询用户"))
async def look_users_up(client: UsersClientDep, database: DatabaseDep, body: LookupRequest) -> LookupAnswer:
    """Up to 200 users by id, by openid or by external id, for a service client with the scope `users`.

    Each user is in the answer once, at the place where the request first names them: ids, then openids, then external
    ids. Unknown ones are left out.
    """
    openids: list[IdentityJson] = [{"app_id": each.app_id, "openid": each.openid} for each in body.openids or ()]
    users = await look_up(database, ids=body.ids or (), openids=openids, external_ids=body.external_ids or ())
    return lookup_answer(users, client.scopes)


@router.patch(
    "/v1/users/{user_id}/attributes",
    summary=Title("Change a user's attributes", "修改用户属性"),
    failures=[NO_SUCH_USER],
)
async def patch_attributes(
    client: AttributesClientDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
    user_id: UUID,
    body: AttributesRequest,
) -> None:
    """Change attributes by a merge patch (RFC 7396), for a service client with the scope `attributes`.

    Names that the patch does not have stay as they are, and null removes one. For an id that was merged away, the user
    that remains is changed.
    """
    by = Actor(client.name, device.ip)
    await change_attributes(database, user_id, body.root, by=by, now=clock())


async def _moderator(client: ModeratingClientDep, device: DeviceDep) -> Actor:
    return Actor(f"client:{client.name}", device.ip)


_Moderator = Annotated[Actor, Depends(_moderator)]
_IS_STAFF: Final = InsufficientRole("this user is an administrator or other staff: this needs the role admin")


@router.post("/v1/users/{user_id}/ban", summary=Title("Ban a user", "封禁用户"), failures=[NO_SUCH_USER, _IS_STAFF])
async def ban_user(
    moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: BanRequest | None = None
) -> None:
    """Ban a user, for a service client with the scope `moderate`. Every session ends at once.

    Idempotent; another reason or end replaces the former one. For an id that was merged away, the user that remains is
    banned. Staff cannot be banned.
    """
    ban = body or BanRequest()
    change = UserChange(status=UserStatus.DISABLED, reason=ban.reason, until=ban.until)
    await change_user(database, user_id, change, by=moderator, spares_staff=True, now=clock())


@router.post("/v1/users/{user_id}/unban", summary=Title("Unban a user", "解除封禁"), failures=[NO_SUCH_USER, _IS_STAFF])
async def unban_user(moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Lift a user's ban, whoever imposed it, for a service client with the scope `moderate`. Idempotent."""
    change = UserChange(status=UserStatus.ACTIVE)
    await change_user(database, user_id, change, by=moderator, spares_staff=True, now=clock())


@router.delete(
    "/v1/users/{user_id}/sessions",
    summary=Title("Sign a user out everywhere", "强制下线用户"),
    failures=[NO_SUCH_USER, _IS_STAFF],
)
async def sign_user_out(moderator: _Moderator, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """End every session of a user, for a service client with the scope `moderate`. The user may log in again."""
    await end_all_sessions(database, user_id, by=moderator, spares_staff=True, now=clock())
