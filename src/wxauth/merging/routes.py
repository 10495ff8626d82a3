"""The routes with which administrators merge users, and split identities from them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from wxauth.errors import LastAdmin, MergeRefused, SplitRefused
from wxauth.i18n import lazy_gettext as _
from wxauth.merging.merging import merge_by_operator
from wxauth.merging.splitting import split
from wxauth.users import admin
from wxauth.users.admin_routes import NO_SUCH_USER
from wxauth.users.callers import FreshAdministratorDep
from wxauth.users.schemas import UserDetailAnswer
from wxauth.web.dependencies import ClockDep, DatabaseDep
from wxauth.web.direct import Router
from wxauth.web.schemas import EXAMPLE_APP_ID, EXAMPLE_OPENID, ShownNickname, ShownUserId, StoredText, body_like

router = Router("admin")


class MergeRequest(BaseModel):
    """The user into whom another user is merged."""

    model_config = body_like({"into": "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"})

    into: UUID = Field(
        description="The user who remains. They keep their ID, and their name, phone number and external_id if set."
    )


class BeforeMerge(TypedDict):
    """A user before a merge."""

    id: ShownUserId
    nickname: ShownNickname
    status: Literal["active", "disabled"]
    roles: Annotated[list[str], Field(examples=[[]])]
    reason: Annotated[str | None, Field(description="The reason for the ban. Null if there is none.")]
    until: Annotated[datetime | None, Field(description="When the ban ends automatically. Null if it has no end.")]


class MergeAnswer(UserDetailAnswer):
    """The user who remains after a merge, and both users before it."""

    before: Annotated[list[BeforeMerge], Field(description="The merged user and this user, as they were before.")]


class SplitRequest(BaseModel):
    """The identity to split off into a new user."""

    model_config = body_like({"app_id": EXAMPLE_APP_ID, "openid": EXAMPLE_OPENID})

    app_id: StoredText
    openid: StoredText = Field(description="The user's other identities with the same unionid move, too.")
    external_id: StoredText | None = Field(
        default=None,
        description="A current or former external_id of the user, which moves, too. Default or null: none.",
    )


class SplitAnswer(TypedDict):
    """A user, and the new user whom a split has created."""

    user: UserDetailAnswer
    new_user: UserDetailAnswer


@router.post(
    "/v1/admin/users/{user_id}/merge",
    summary=_("Merge two users"),
    failures=[NO_SUCH_USER, LastAdmin, MergeRefused("these two users are already one user")],
)
async def merge_users(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: MergeRequest
) -> MergeAnswer:
    """Merge a user into another one, and return the user who remains.

    The remaining user gets the identities, sessions in apps, consents and roles of the merged user. The merged user's
    values fill the remaining user's empty fields and missing attributes. If either user is banned, the remaining user
    is banned. The merged user's sessions at websites and logins in browsers end.
    """
    now = clock()
    merged = await merge_by_operator(database, user_id, into=body.into, by=administrator, now=now)
    user = await admin.read_user(database, merged.remaining_user.id, now=now)
    before: list[BeforeMerge] = [
        {
            "id": each.id,
            "nickname": each.nickname,
            "status": each.status,
            "roles": each.roles,
            "reason": each.ban_reason,
            "until": each.banned_until,
        }
        for each in (merged.former_user, merged.remaining_user)
    ]
    return {**user, "before": before}


@router.post(
    "/v1/admin/users/{user_id}/split",
    summary=_("Split an identity off from a user"),
    failures=[NO_SUCH_USER, SplitRefused("this identity doesn't belong to the user")],
)
async def split_user(
    administrator: FreshAdministratorDep, database: DatabaseDep, clock: ClockDep, user_id: UUID, body: SplitRequest
) -> SplitAnswer:
    """Split an identity off into a new user, together with the user's other identities with the same unionid.

    The new user has a new id, these identities, their unionid, and the `external_id` if one is named. All other data
    stays with the user, with two exceptions. If only these identities have verified the user's phone number, it is
    removed. Unless the user is banned, unionids that no remaining identity has are deleted. If the user is banned,
    the new user is banned, too. The sessions of these identities end. The two users are never merged automatically
    again.
    """
    now = clock()
    split_users = await split(
        database,
        user_id,
        app_id=body.app_id,
        openid=body.openid,
        external_id=body.external_id,
        by=administrator,
        now=now,
    )
    user = await admin.read_user(database, split_users.remaining_id, now=now)
    new_user = await admin.read_user(database, split_users.new_user_id, now=now)
    return {"user": user, "new_user": new_user}
