"""The routes for services that look users up, change their attributes and external ids, and moderate them.

To moderate a user is to clear the profile, to ban or unban the user, or to sign the user out.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, Final, NotRequired, Self
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field, StringConstraints, model_validator

from wxauth.clients.models import Scope
from wxauth.clients.service_clients import AttributesClientDep, ModeratingClientDep, UsersClientDep, check_scope
from wxauth.core.database import Database
from wxauth.core.trail import Actor
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.errors import ExternalIdTaken, NotFound
from wxauth.i18n import lazy_gettext as _
from wxauth.siblings.queries import LOOK_UP, UserForSiblings
from wxauth.users import schemas
from wxauth.users.admin import STAFF_IS_SPARED, UserChange, change_user, end_all_sessions, set_external_id
from wxauth.users.admin_routes import NO_SUCH_USER
from wxauth.users.attributes import AttributesRequest
from wxauth.users.callers import DeviceDep
from wxauth.users.ids import ExternalId
from wxauth.users.user_queries import UNKNOWN_USER
from wxauth.web.dependencies import ClockDep, DatabaseDep
from wxauth.web.direct import Router
from wxauth.web.schemas import EXAMPLE_USER_ID, TEXT_PATTERN, ShownUserId, Time, body_like
from wxauth_guard.errors import InsufficientRole

router = Router("siblings")

MAX_LOOKED_UP: Final = 200

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
_STAFF_REFUSED: Final = InsufficientRole(STAFF_IS_SPARED)


class LookupOpenid(BaseModel):
    """One openid in one app."""

    app_id: ShortText
    openid: ShortText


class LookupRequest(BaseModel):
    """The users to look up."""

    model_config = body_like({"ids": [EXAMPLE_USER_ID]})

    ids: list[UUID] | None = Field(default=None, max_length=MAX_LOOKED_UP)
    openids: list[LookupOpenid] | None = Field(default=None, max_length=MAX_LOOKED_UP)
    external_ids: list[ShortText] | None = Field(default=None, max_length=MAX_LOOKED_UP)
    unionids: list[ShortText] | None = Field(
        default=None, max_length=MAX_LOOKED_UP, description="Only with the scope `unionids`."
    )

    @model_validator(mode="after")
    def _check_names_users(self) -> Self:
        named_lists = [
            names for names in (self.ids, self.openids, self.external_ids, self.unionids) if names is not None
        ]
        # Unknown fields are ignored. Without this check, a request with a single field whose name is misspelled would
        # get no users, as if all of them had been erased.
        if not named_lists:
            raise ValueError("Must have ids, openids, external_ids or unionids")
        if sum(map(len, named_lists)) > MAX_LOOKED_UP:
            raise ValueError(f"Must have at most {MAX_LOOKED_UP} of all kinds together")
        return self


class ExternalIdRequest(BaseModel):
    """The id that a user has in your own system."""

    model_config = body_like({"external_id": "10023"})

    external_id: ExternalId | None = Field(description="Unique among users. Null removes the external_id.")


class BanRequest(BaseModel):
    """A ban, which replaces an earlier one."""

    model_config = body_like({"reason": "paid with a stolen card", "until": "2026-11-27T18:00:00+08:00"})

    reason: schemas.Reason | None = Field(default=None, description="For staff only.")
    until: Time | None = Field(
        default=None, description="When the ban ends automatically, with an offset; if absent, the ban has no end."
    )


class ProfileRemoval(schemas.ProfileRemovals):
    """The fields of a user's profile to clear, at least one, each null.

    A service can clear them, but never set them.
    """

    model_config = body_like({"nickname": None}, extra="forbid")

    @model_validator(mode="after")
    def _check_names_a_field(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"Must name a field to clear: {', '.join(PROFILE_FIELDS)}")
        return self


class UserForSiblingsAnswer(schemas.FieldsForAll, schemas.FieldsForStaffAndServices, schemas.FormerExternalIds):
    """A user as other services see them."""

    id: Annotated[
        ShownUserId, Field(description="UUIDv7. Differs from the requested ID if the requested user was merged.")
    ]
    former_ids: Annotated[
        list[UUID],
        Field(
            description="The IDs that were merged into this user, the earliest merge first.",
            examples=[["01933c5a-02b4-7f0e-8d21-7a5c9e1f3b86"]],
        ),
    ]
    consents: Annotated[list[schemas.DocumentVersion], Field(description="The user's current consents.")]
    unionids: NotRequired[
        Annotated[
            list[str],
            Field(
                description="The unionids that identify the user. Only with the scope `unionids`.",
                examples=[["oTmHYjg7xLa9Yp4Zt2Vq8nCwRk1E"]],
            ),
        ]
    ]
    phone: NotRequired[
        Annotated[str | None, Field(description="E.164. Only with the scope `phones`.", examples=["+8613800138000"])]
    ]
    phone_verified: NotRequired[
        Annotated[
            bool | None,
            Field(
                description="Whether the phone button verified the number; null without a number. Only with the scope "
                "`phones`.",
                examples=[True],
            ),
        ]
    ]


class LookupAnswer(BaseModel):
    """The users found, each once, in the order of the request."""

    items: list[UserForSiblingsAnswer]


def user_for_siblings(user: UserForSiblings, scopes: Collection[str]) -> UserForSiblingsAnswer:
    answer: UserForSiblingsAnswer = schemas.shown_in(UserForSiblingsAnswer, user)
    answer["consents"] = [
        {"document": document, "version": version} for document, version in sorted((user.consents or {}).items())
    ]
    if user.former_external_ids:
        answer["former_external_ids"] = user.former_external_ids
    if Scope.UNIONIDS in scopes:
        answer["unionids"] = user.unionids
    if Scope.PHONES in scopes:
        answer["phone"] = user.phone
        answer["phone_verified"] = user.phone_verified
    return answer


@router.get("/v1/users/{user_id}", summary=_("Look up a user"), failures=[NO_SUCH_USER])
async def look_user_up(client: UsersClientDep, database: DatabaseDep, user_id: UUID) -> UserForSiblingsAnswer:
    """Return a user, for a service client with the scope `users`.

    The response also contains the phone number for a client with the scope `phones`, and the unionids for a client with
    the scope `unionids`.

    For an id that was merged, wxauth returns the remaining user, whose `id` differs, and whose `former_ids` contain the
    requested id. An erased user is not found.
    """
    users = await _look_up(database, LookupRequest(ids=[user_id]))
    if not users:
        raise NotFound(UNKNOWN_USER)
    return user_for_siblings(users[0], client.scopes)


@router.post("/v1/users/lookup", summary=_("Look up many users"))
async def look_users_up(client: UsersClientDep, database: DatabaseDep, body: LookupRequest) -> LookupAnswer:
    """Return up to 200 users, for a client with the scope `users`.

    The request names the users by id, openid or external id or, with the scope `unionids`, by unionid.

    The response contains each user once, at the place where the request first names them, in the order ids, openids,
    external ids, unionids. Unknown users are left out.
    """
    if body.unionids is not None:
        check_scope(client, Scope.UNIONIDS)
    users = await _look_up(database, body)
    return LookupAnswer.model_construct(items=[user_for_siblings(user, client.scopes) for user in users])


async def _look_up(database: Database, body: LookupRequest) -> Sequence[UserForSiblings]:
    return await database.rows(
        LOOK_UP,
        ids=body.ids or [],
        app_ids=[identity.app_id for identity in body.openids or ()],
        openids=[identity.openid for identity in body.openids or ()],
        external_ids=body.external_ids or [],
        unionids=body.unionids or [],
    )


@router.patch("/v1/users/{user_id}/attributes", summary=_("Change a user's attributes"), failures=[NO_SUCH_USER])
async def patch_attributes(
    client: AttributesClientDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
    user_id: UUID,
    body: AttributesRequest,
) -> None:
    """Change attributes by a merge patch (RFC 7396), for a service client with the scope `attributes`.

    Attributes that the patch does not name are unchanged, and null removes an attribute. For an id that was merged, the
    remaining user is changed.
    """
    by = Actor(client.name, device.ip)
    await change_user(database, user_id, UserChange(attributes=body.root), by=by, now=clock())


@router.put(
    "/v1/users/{user_id}/external-id",
    summary=_("Set a user's external_id"),
    failures=[NO_SUCH_USER, ExternalIdTaken],
)
async def put_external_id(
    client: AttributesClientDep,
    database: DatabaseDep,
    clock: ClockDep,
    device: DeviceDep,
    user_id: UUID,
    body: ExternalIdRequest,
) -> None:
    """Set the id that a user has in your own system, or remove it, for a service client with the scope `attributes`.

    The request is idempotent. Access tokens contain the id from the next refresh on. For an id that was merged, the
    remaining user is changed.
    """
    await set_external_id(database, user_id, body.external_id, by=Actor(client.name, device.ip), now=clock())


async def _moderator(client: ModeratingClientDep, device: DeviceDep) -> Actor:
    # For the other routes, the audit trail has the client's name alone. The difference is only historical, but must
    # remain, because operators and other services search for these names.
    return Actor(f"client:{client.name}", device.ip, must_spare_staff=True)


_ModeratorDep = Annotated[Actor, Depends(_moderator)]


@router.post("/v1/users/{user_id}/ban", summary=_("Ban a user"), failures=[NO_SUCH_USER, _STAFF_REFUSED])
async def ban_user(
    moderator: _ModeratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: BanRequest | None = None
) -> None:
    """Ban a user, for a service client with the scope `moderate`. Every session ends immediately.

    The request is idempotent, and another reason or end replaces the previous one. For an id that was merged, the
    remaining user is banned. Staff cannot be banned.
    """
    ban = body or BanRequest()
    change = UserChange(status=UserStatus.DISABLED, reason=ban.reason, until=ban.until)
    await change_user(database, user_id, change, by=moderator, now=clock())


@router.post("/v1/users/{user_id}/unban", summary=_("Unban a user"), failures=[NO_SUCH_USER, _STAFF_REFUSED])
async def unban_user(moderator: _ModeratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Lift a user's ban, whoever imposed it, for a service client with the scope `moderate`.

    The request is idempotent. For an id that was merged, the remaining user is unbanned. Staff cannot be unbanned.
    """
    change = UserChange(status=UserStatus.ACTIVE)
    await change_user(database, user_id, change, by=moderator, now=clock())


@router.patch(
    "/v1/users/{user_id}/profile",
    summary=_("Clear fields of a user's profile"),
    failures=[NO_SUCH_USER, _STAFF_REFUSED],
)
async def clear_profile(
    moderator: _ModeratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: ProfileRemoval
) -> None:
    """Clear fields of the profile, such as the nickname, for a service client with the scope `moderate`.

    The request is idempotent. An uploaded picture is deleted. For an id that was merged, the remaining user is changed.
    The profile of staff cannot be cleared.
    """
    change = UserChange(cleared_fields=body.model_fields_set)
    await change_user(database, user_id, change, by=moderator, now=clock())


@router.delete(
    "/v1/users/{user_id}/sessions",
    summary=_("Sign a user out on all devices"),
    failures=[NO_SUCH_USER, _STAFF_REFUSED],
)
async def sign_user_out(moderator: _ModeratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """End every session of a user, and the logins of the user's browsers, for a client with the scope `moderate`.

    The user may log in again. The request is idempotent. For an id that was merged, the remaining user is signed out.
    Staff cannot be signed out.
    """
    await end_all_sessions(database, user_id, by=moderator, now=clock())
