"""Changes that users make to their own profile."""

from collections.abc import Mapping
from functools import partial

from wxauth.errors import InvalidToken
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.users import Person, UserInSession
from wxauth.server.pictures.avatars import Avatars
from wxauth.server.profile.nicknames import Nicknames
from wxauth.server.profile.rows import store_profile
from wxauth.server.users.account import Caller

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
