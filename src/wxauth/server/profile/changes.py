"""Changes that users make to their own profile."""

from collections.abc import Mapping
from functools import partial

from wxauth.errors import InvalidToken
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import Services
from wxauth.server.core.users import UserInSession, UserRow
from wxauth.server.profile.rows import change_profile as store_profile
from wxauth.server.users.account import Caller
from wxauth.server.users.person import Person

log = get_logger()


async def change_profile(services: Services, caller: Caller, changes: Mapping[str, str | None]) -> UserInSession:
    """Set those of `nickname` and `avatar_url` that are given, clear those that are None, and return the changed user.

    Raises: InvalidRequest, if WeChat refuses the nickname and the policy is `block`; RateLimited, if the person has
        changed the profile, or caused checks at WeChat, too often; InvalidToken, if the user has just been erased;
        StorageUnavailable.
    """
    if services.avatars.serves(changes.get("avatar_url")):  # a form also sends our own URL back
        changes = {name: value for name, value in changes.items() if name != "avatar_url"}
    person = Person(caller.user["id"], caller.user["app_id"], caller.user["openid"])
    user = await services.nicknames.set(
        person,
        changes.get("nickname"),
        before=caller.user["nickname"],
        store=partial(store_profile, services.database, caller.user, changes, now=services.clock()),
    )
    if user is None:
        raise InvalidToken("the session has ended")
    log.info("profile_changed", user_id=person.user_id, fields=sorted(changes))
    return _in_session(user, caller)


async def change_avatar(services: Services, caller: Caller, file: bytes) -> UserInSession:
    """Store an uploaded picture, point `avatar_url` to it, and return the changed user.

    Raises: InvalidRequest; RateLimited; InvalidToken, if the user has just been banned or erased; StorageUnavailable.
    """
    user = await services.avatars.replace(caller.user, file)
    log.info("profile_changed", user_id=user["id"], fields=["avatar_url"])
    return _in_session(user, caller)


async def bind_phone(services: Services, caller: Caller, code: str) -> UserInSession:
    """Bind the phone number behind a code of the phone button, and return the changed user.

    Raises: UnknownApp, if the session's app is no longer configured; WrongAppKind; WeChatError; RateLimited;
        PhoneTaken; InvalidToken, if the user has just been banned or erased; StorageUnavailable.
    """
    app = services.apps.find(caller.user["app_id"])
    return _in_session(await services.phones.bind(app, openid=caller.user["openid"], code=code), caller)


def _in_session(user: UserRow, caller: Caller) -> UserInSession:
    return {**user, "app_id": caller.user["app_id"], "openid": caller.user["openid"]}
