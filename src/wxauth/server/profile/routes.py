"""`PATCH /v1/me`: a person's name and picture URL."""

from typing import Annotated

from fastapi import Depends

from wxauth.errors import RateLimited, Title
from wxauth.server.pictures.avatars import Avatars
from wxauth.server.pictures.dependencies import AvatarsDep
from wxauth.server.profile import changes
from wxauth.server.profile.bodies import ProfileChange
from wxauth.server.profile.nicknames import Nicknames
from wxauth.server.users.bodies import UserAnswer, user_answer
from wxauth.server.users.callers import CallerInTurnDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router, ValidatedWith

router = Router("me")

NicknamesDep = Annotated[Nicknames, Depends(provide(Nicknames))]


@router.post(
    "/v1/me",
    summary=Title("Change my profile (for clients without PATCH)", "修改我的资料（无法发送 PATCH 时）"),
    operation_id="change_me_by_post",
    failures=[RateLimited],
)
@router.patch("/v1/me", summary=Title("Change my profile", "修改我的资料"), failures=[RateLimited])
async def change_me(
    caller: CallerInTurnDep,
    body: Annotated[ProfileChange, ValidatedWith(Avatars)],
    settings: SettingsDep,
    nicknames: NicknamesDep,
    avatars: AvatarsDep,
    database: DatabaseDep,
    clock: ClockDep,
) -> UserAnswer:
    """Set the given fields, clear those that are null or empty; others are unchanged.

    `wx.request` has no PATCH, so POST does the same. If nicknames are checked, one that violates WeChat's rules is
    `invalid_request`; after 20 new nicknames in an hour, the next one is `rate_limited`. After 60 changes in an hour,
    any further one is `rate_limited`.
    """
    return user_answer(
        await changes.change_profile(nicknames, avatars, database, clock, caller, body.changes()),
        settings.consents,
    )
