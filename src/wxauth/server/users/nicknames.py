"""Changes of profiles, whose nicknames WeChat checks: the policy decides what becomes of a bad one."""

from collections.abc import Mapping
from functools import partial
from typing import Final, TypeGuard

from wxauth.errors import NICKNAME_REFUSED, InvalidRequest, RateLimited, StorageUnavailable, WeChatError
from wxauth.server.core.apps import App
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.trail import EventType
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.queries import NICKNAMES
from wxauth.server.users.policies import OPINION_TIMEOUT_SECONDS, Policy
from wxauth.server.users.user_queries import store_profile
from wxauth.server.wechat.api import TextVerdict, WeChatApi

_CONTENT_REFUSED: Final = 87014
_OTHER: Final = 21000
"""WeChat's label for "other", used when WeChat refuses by errcode and so gives no label."""
_NO_VERDICT: Final = TextVerdict("pass", 0)

log = get_logger()


@part
class Nicknames(Policy):
    """Carries out `NICKNAME_CHECK`. If it is on, a login leaves the nickname to `set_at_login`, which runs after it."""

    name = "nickname"
    setting = "nickname_check"

    async def change_profile(
        self, user: UserInSession, changes: Mapping[str, str | None], *, patience: float = OPINION_TIMEOUT_SECONDS
    ) -> UserInSession | None:
        """Change a profile: see `store_profile`. WeChat may refuse a nickname, unless it is the stored one.

        Raises: InvalidRequest, RateLimited.
        """
        nickname = changes.get("nickname")
        if not self._must_check(nickname, user):
            return await store_profile(self.database, user, changes, now=self.clock())
        await NICKNAMES.count(self.database, user.app_id, user.openid, now=self.clock())
        verdict = await self._verdict(user, nickname, patience=patience) if self.blocks else _NO_VERDICT
        if verdict.suggest == "risky":
            log.warning("nickname_refused", user_id=user.id, app_id=user.app_id, label=verdict.label)
            raise InvalidRequest.of("nickname", "WeChat refuses this name", title=NICKNAME_REFUSED)
        stored = await store_profile(self.database, user, changes, now=self.clock())
        if not self.blocks:
            self._later(user, partial(self._check, user, nickname))
        elif verdict.suggest != "pass":
            self._later(user, partial(self._note, user, verdict))
        return stored

    async def set_at_login(
        self, user: UserInSession, nickname: str | None, *, patience: float
    ) -> tuple[UserInSession, str | None]:
        """Set the nickname that a login sent. Returns the user, and the code of the problem if it is not changed.

        Raises nothing: a failure must not fail the login, whose code is spent.
        """
        if not self._must_check(nickname, user):
            return user, None
        try:
            return await self.change_profile(user, {"nickname": nickname}, patience=patience) or user, None
        except InvalidRequest as exc:
            return user, exc.code
        except (RateLimited, StorageUnavailable) as exc:
            log.warning("login_without_nickname", user_id=user.id, app_id=user.app_id, reason=exc.code)
            return user, exc.code

    def _must_check(self, nickname: str | None, user: UserInSession) -> TypeGuard[str]:
        return self.is_on and nickname is not None and nickname != user.nickname

    async def _check(self, user: UserInSession, nickname: str) -> None:
        verdict = await self._verdict(user, nickname)
        if verdict.suggest != "pass":
            await self._note(user, verdict)

    async def _verdict(self, user: UserInSession, nickname: str, *, patience: float | None = None) -> TextVerdict:
        """WeChat's verdict on a nickname, which passes if WeChat gave none."""

        async def check(wechat_api: WeChatApi, app: App) -> TextVerdict:
            try:
                return await wechat_api.check_text(app, openid=user.openid, content=nickname, nickname=nickname)
            except WeChatError as exc:
                if exc.errcode != _CONTENT_REFUSED:
                    raise
                return TextVerdict("risky", _OTHER)

        verdict = await self.verdicts.ask(self.name, user.app_id, check, patience=patience)
        if verdict is None:
            return _NO_VERDICT
        is_blocked = verdict.suggest == "risky" and self.blocks
        self._count(user.app_id, is_flagged=verdict.suggest != "pass", is_blocked=is_blocked)
        return verdict

    async def _note(self, user: UserInSession, verdict: TextVerdict) -> None:
        await self._flag(user, EventType.NICKNAME_FLAGGED, {"suggest": verdict.suggest, "label": verdict.label})
