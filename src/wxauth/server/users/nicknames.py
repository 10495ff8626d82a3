"""Checks nicknames at WeChat. The policy decides whether a bad one is accepted, flagged by an event, or refused."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeGuard, TypeVar

from wxauth.errors import InvalidRequest, RateLimited, StorageUnavailable, WeChatError
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.trail import EventType
from wxauth.server.core.users import Person, UserFields, UserInSession
from wxauth.server.limits.rows import NICKNAMES
from wxauth.server.users.user_rows import record_flag, store_profile
from wxauth.server.wechat.api import OPINION_TIMEOUT_SECONDS, Opinions, TextVerdict, WeChatApi

_CONTENT_REFUSED: Final = 87014
_OTHER: Final = 21000
"""WeChat's label for "other", used when WeChat refuses by errcode and so gives no label."""

log = get_logger()

T = TypeVar("T")


@part
class Nicknames:
    """Carries out `NICKNAME_CHECK`.

    Args:
        database: Where the users are.
        opinions: Asks WeChat.
        clock: The time.
        background: Runs the checks and notes that no request waits for.
        settings: Say what to do about a nickname that violates WeChat's rules.
    """

    database: Database
    opinions: Opinions
    clock: Clock
    background: Background
    settings: Settings

    def __post_init__(self) -> None:
        self._policy = self.settings.nickname_check
        self.are_checked = self._policy != "off"
        """Whether nicknames are checked. If so, a login leaves the nickname to `set_at_login`, which runs after it."""

    async def set(
        self,
        person: Person,
        nickname: str | None,
        *,
        before: str | None,
        store: Callable[[], Awaitable[T]],
        patience: float = OPINION_TIMEOUT_SECONDS,
    ) -> T:
        """Store a nickname, unless the policy is `block` and WeChat refuses it. An unchanged nickname is not checked.

        Raises: InvalidRequest; RateLimited; any exception of `store`.
        """
        if not self.must_check(nickname, before=before):
            return await store()
        await NICKNAMES.count(self.database, person.app_id, person.openid, now=self.clock())
        verdict = await self._verdict(person, nickname, patience=patience) if self._policy == "block" else None
        if verdict is not None and verdict.suggest == "risky":
            log.warning("nickname_refused", user_id=person.user_id, app_id=person.app_id, label=verdict.label)
            raise InvalidRequest.of("nickname", "WeChat refuses this name")
        stored = await store()
        if self._policy == "flag":
            self._later(person, partial(self._flag, person, nickname))
        elif verdict is not None and verdict.suggest != "pass":
            self._later(person, partial(self._note, person, verdict))
        return stored

    async def set_at_login(
        self, person: Person, user: UserFields, nickname: str | None, *, patience: float
    ) -> UserFields:
        """Set the nickname that came with a login. Returns the user, changed or not.

        Raises nothing: a failure must not fail the login, whose code is spent.
        """
        before = user.nickname
        if not self.must_check(nickname, before=before):
            return user
        in_session = UserInSession.of(user, app_id=person.app_id, openid=person.openid)
        store = partial(store_profile, self.database, in_session, {"nickname": nickname}, now=self.clock())
        try:
            named = await self.set(person, nickname, before=before, store=store, patience=patience)
        except InvalidRequest:
            return user
        except (RateLimited, StorageUnavailable) as exc:
            log.warning("login_without_nickname", user_id=person.user_id, app_id=person.app_id, reason=exc.code)
            return user
        return user if named is None else named  # None if the user has just been erased

    def must_check(self, nickname: str | None, *, before: str | None) -> TypeGuard[str]:
        """Whether a new nickname must be checked at WeChat, given the stored one."""
        return self.are_checked and nickname is not None and nickname != before

    async def _flag(self, person: Person, nickname: str) -> None:
        verdict = await self._verdict(person, nickname)
        if verdict is not None and verdict.suggest != "pass":
            await self._note(person, verdict)

    async def _verdict(self, person: Person, nickname: str, *, patience: float | None = None) -> TextVerdict | None:
        """WeChat's verdict on a nickname; None if WeChat gave none."""

        async def check(wechat_api: WeChatApi, app: App) -> TextVerdict:
            try:
                return await wechat_api.check_text(app, openid=person.openid, content=nickname, nickname=nickname)
            except WeChatError as exc:
                if exc.errcode != _CONTENT_REFUSED:
                    raise
                return TextVerdict("risky", _OTHER)

        verdict = await self.opinions.ask("nickname", person.app_id, check, patience=patience)
        if verdict is not None:
            is_blocked = verdict.suggest == "risky" and self._policy == "block"
            outcome = "blocked" if is_blocked else "pass" if verdict.suggest == "pass" else "flagged"
            self.opinions.count("nickname", person.app_id, outcome)
        return verdict

    async def _note(self, person: Person, verdict: TextVerdict) -> None:
        data = {"suggest": verdict.suggest, "label": verdict.label}
        await record_flag(self.database, person, EventType.NICKNAME_FLAGGED, data, now=self.clock())

    def _later(self, person: Person, work: Callable[[], Awaitable[None]]) -> None:
        if not self.background.offer(work, name=f"nickname of {person.user_id}"):
            self.opinions.report_missing("nickname", person.app_id, "too_busy")
