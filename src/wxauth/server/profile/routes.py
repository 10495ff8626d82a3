"""`PATCH /v1/me`: a person's name and picture URL."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from fastapi import Depends

from wxauth.errors import InvalidToken, RateLimited, Title
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.users import Person, UserInSession
from wxauth.server.pictures.avatars import Avatars
from wxauth.server.pictures.routes import AvatarsDep
from wxauth.server.profile.bodies import ProfileChange
from wxauth.server.profile.nicknames import Nicknames
from wxauth.server.profile.rows import store_profile
from wxauth.server.users.account import Caller
from wxauth.server.users.bodies import UserAnswer, user_answer
from wxauth.server.users.callers import CallerInTurnDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router, ValidatedWith

router = Router("me")

NicknamesDep = Annotated[Nicknames, Depends(provide(Nicknames))]

log = get_logger()


async def change_profile(
    nicknames: Nicknames,
    avatars: Avatars,
    database: Database,
    clock: Clock,
    caller: Caller,
    changes: Mapping[str, str | None],
) -> UserInSession:
    """Set those of `nickname` and `avatar_url` that are given, and clear those, and `phone`, that are None.

    Returns the changed user.

    Raises: InvalidRequest, if WeChat refuses the nickname and the policy is `block`; RateLimited, if the person has
        changed the profile, or caused checks at WeChat, too often; InvalidToken, if the user has just been erased.
    """
    if avatars.serves(changes.get("avatar_url")):  # a form also sends our own URL back
        changes = {name: value for name, value in changes.items() if name != "avatar_url"}
    person = Person(caller.user.id, caller.user.app_id, caller.user.openid)
    user = await nicknames.set(
        person,
        changes.get("nickname"),
        before=caller.user.nickname,
        store=partial(store_profile, database, caller.user, changes, now=clock()),
    )
    if user is None:
        raise InvalidToken("the session has ended")
    log.info("profile_changed", user_id=person.user_id, fields=sorted(changes))
    return UserInSession.of(user, app_id=person.app_id, openid=person.openid)


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
        await change_profile(nicknames, avatars, database, clock, caller, body.changes()),
        settings.consents,
    )
