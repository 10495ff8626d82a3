"""Who calls, and what users do to their own account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from wxauth.core.logs import get_logger
from wxauth.core.services import Services
from wxauth.errors import InsufficientRole, InvalidToken, NotFound
from wxauth.policies import Person
from wxauth.store import sessions, users
from wxauth.store.sessions import EndReason
from wxauth.tokens.claims import Principal

log = get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """A user in one of their sessions, both as they are now."""

    session_id: UUID
    user: Mapping[str, Any]
    """The user, with the app_id and openid of the session."""

    def require_role(self, role: str) -> None:
        """Let pass who has the role now, whatever the token says. Raises: InsufficientRole."""
        if role not in self.user["roles"]:
            raise InsufficientRole(f"this needs the role {role}")


async def caller(services: Services, principal: Principal) -> Caller:
    """The user behind a checked token.

    Raises: InvalidToken, where the session is revoked or the user banned or erased since it was signed;
        StorageUnavailable.
    """
    user = await sessions.user_in_session(services.database, session_id=principal.session_id, user_id=principal.id)
    if user is None:
        raise InvalidToken("the session has ended")
    return Caller(principal.session_id, user)


async def change_profile(services: Services, caller: Caller, changes: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Set what is named of `nickname` and `avatar_url`, None to clear it; the user as it is then.

    Raises: InvalidRequest, where WeChat refuses the nickname and that decides; InvalidToken, where the user has just
        been erased; StorageUnavailable.
    """
    if services.avatars.serves(changes.get("avatar_url")):  # a form that sends all of it back
        changes = {name: value for name, value in changes.items() if name != "avatar_url"}
    person = Person(caller.user["id"], caller.user["app_id"], caller.user["openid"])
    user = await services.policies.set_nickname(
        person,
        changes.get("nickname"),
        before=caller.user["nickname"],
        store=partial(users.change_profile, services.database, person.user_id, changes),
    )
    if user is None:
        raise InvalidToken("the session has ended")
    log.info("profile_changed", user_id=person.user_id, fields=sorted(changes))
    return {**user, "app_id": person.app_id, "openid": person.openid}


async def change_avatar(services: Services, caller: Caller, file: bytes) -> Mapping[str, Any]:
    """Store the picture in a file, and let avatar_url lead to it; the user as they are then.

    Raises: InvalidRequest; InvalidToken, where the user has just been banned or erased; StorageUnavailable.
    """
    user = await services.avatars.replace(caller.user["id"], file)
    log.info("profile_changed", user_id=user["id"], fields=["avatar_url"])
    return {**user, "app_id": caller.user["app_id"], "openid": caller.user["openid"]}


async def bind_phone(services: Services, caller: Caller, code: str) -> Mapping[str, Any]:
    """Bind the phone number behind a code of the phone button; the user as they are then.

    Raises: UnknownApp, where the session's app is configured no longer; WeChatError; RateLimited; PhoneTaken;
        InvalidToken, where the user has just been banned or erased; StorageUnavailable.
    """
    identity = {"app_id": caller.user["app_id"], "openid": caller.user["openid"]}
    app = services.settings.app(identity["app_id"])
    return {**await services.phones.bind(app, openid=identity["openid"], code=code), **identity}


async def erase_me(services: Services, caller: Caller) -> None:
    """Erase the caller everywhere; the next login is a new user's. Raises: LastAdmin, StorageUnavailable."""
    user_id = caller.user["id"]
    await users.erase_user(services.database, user_id, actor=str(user_id), now=services.clock())
    log.info("user_erased", user_id=user_id)


async def list_sessions(services: Services, caller: Caller) -> Sequence[Mapping[str, Any]]:
    """Where the caller is logged in, the last used first. Raises: StorageUnavailable."""
    return await sessions.open_sessions(services.database, caller.user["id"], now=services.clock())


async def end_other_sessions(services: Services, caller: Caller) -> None:
    """Sign the caller out everywhere else. Raises: StorageUnavailable."""
    user_id = caller.user["id"]
    async with services.database.begin() as transaction:
        await sessions.end_sessions(
            transaction,
            user_id,
            reason=EndReason.SIGNED_OUT,
            actor=str(user_id),
            now=services.clock(),
            kept=caller.session_id,
        )


async def end_my_session(services: Services, caller: Caller, session_id: UUID) -> None:
    """Sign the caller out on one device; one that has ended is no failure. Raises: NotFound, StorageUnavailable."""
    user_id = caller.user["id"]
    if not await sessions.session_belongs_to(services.database, session_id=session_id, user_id=user_id):
        raise NotFound("there is no such session of yours")
    await sessions.end_session(
        services.database, session_id=session_id, reason=EndReason.SIGNED_OUT, now=services.clock()
    )
    log.info("logged_out", user_id=user_id, session_id=session_id)
