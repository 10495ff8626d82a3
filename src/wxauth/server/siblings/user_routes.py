"""`/v1/users`: sibling services look users up, change their attributes, and shut them out."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends

from wxauth.errors import InsufficientRole, NotFound, Title
from wxauth.server.clients.service_clients import AttributesClientDep, ModeratingClientDep, UsersClientDep
from wxauth.server.core.trail import Actor
from wxauth.server.core.users import UserStatus
from wxauth.server.siblings.rows import look_up
from wxauth.server.siblings.user_bodies import (
    BanRequest,
    LookupAnswer,
    LookupRequest,
    UserForSiblingsAnswer,
    lookup_answer,
    user_for_siblings,
)
from wxauth.server.users.admin import UserChange, change_attributes, change_user, end_all_sessions
from wxauth.server.users.admin_routes import NO_SUCH_USER
from wxauth.server.users.attributes import AttributesRequest
from wxauth.server.users.callers import DeviceDep
from wxauth.server.users.user_rows import IdentityJson
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

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
