"""What is made of a nickname that WeChat finds against the rules: nothing, an event, or a refusal."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeGuard, TypeVar

from wxauth.core.background import Background
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.settings import App, Policy
from wxauth.core.tables import UserRow
from wxauth.core.trail import EventType
from wxauth.errors import InvalidRequest, RateLimited, StorageUnavailable, WeChatError
from wxauth.people.flags import flag
from wxauth.people.person import Person
from wxauth.profile.attempts import Attempts
from wxauth.profile.profile_rows import change_profile
from wxauth.wechat.api import TextVerdict, WeChatApi
from wxauth.wechat.opinions import PATIENCE, Opinions

_CONTENT_REFUSED: Final = 87014
_OTHER: Final = 21000
"""The label of what is refused for no reason that has one of its own."""

log = get_logger()

T = TypeVar("T")


class Nicknames:
    """Carries out `NICKNAME_CHECK`.

    Args:
        database: Where the users are.
        opinions: What WeChat thinks.
        clock: The time.
        background: Does what decides nothing.
        attempts: Counts what WeChat is asked.
        policy: What is made of a nickname.
    """

    def __init__(
        self,
        database: Database,
        opinions: Opinions,
        clock: Clock,
        *,
        background: Background,
        attempts: Attempts,
        policy: Policy,
    ) -> None:
        self._database = database
        self._opinions = opinions
        self._clock = clock
        self._background = background
        self._attempts = attempts
        self._policy = policy
        self.are_checked = policy != "off"
        """Whether a login is stored without its nickname, which `set_at_login` then sets."""

    async def set(
        self,
        person: Person,
        nickname: str | None,
        *,
        before: str | None,
        store: Callable[[], Awaitable[T]],
        patience: float = PATIENCE,
    ) -> T:
        """Store a nickname, unless WeChat is asked about it and refuses it. A name that stays is not asked about.

        Raises: InvalidRequest; RateLimited; StorageUnavailable; whatever `store` raises.
        """
        if not self.asks_about(nickname, before=before):
            return await store()
        await self._attempts.take(person.app_id, person.openid)
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

    async def set_at_login(self, person: Person, user: UserRow, nickname: str | None, *, patience: float) -> UserRow:
        """The user with the nickname that came with a login, or as before: the code is spent, so nothing is raised."""
        before = user["nickname"]
        if not self.asks_about(nickname, before=before):
            return user
        store = partial(
            change_profile,
            self._database,
            person.user_id,
            {"nickname": nickname},
            app_id=person.app_id,
            now=self._clock(),
        )
        try:
            named = await self.set(person, nickname, before=before, store=store, patience=patience)
        except InvalidRequest:
            return user
        except (RateLimited, StorageUnavailable) as exc:
            log.warning("login_without_nickname", user_id=person.user_id, app_id=person.app_id, reason=exc.code)
            return user
        return user if named is None else named  # the user has been erased meanwhile

    def asks_about(self, nickname: str | None, *, before: str | None) -> TypeGuard[str]:
        """Whether WeChat is asked about a nickname, where the stored one is that."""
        return self.are_checked and nickname is not None and nickname != before

    async def _flag(self, person: Person, nickname: str) -> None:
        verdict = await self._verdict(person, nickname)
        if verdict is not None and verdict.suggest != "pass":
            await self._note(person, verdict)

    async def _verdict(self, person: Person, nickname: str, *, patience: float | None = None) -> TextVerdict | None:
        """What WeChat thinks of a nickname; None where that cannot be told."""

        async def check(wechat_api: WeChatApi, app: App) -> TextVerdict:
            try:
                return await wechat_api.check_text(app, openid=person.openid, content=nickname, nickname=nickname)
            except WeChatError as exc:
                if exc.errcode != _CONTENT_REFUSED:
                    raise
                return TextVerdict("risky", _OTHER)

        verdict = await self._opinions.ask("nickname", person.app_id, check, patience=patience)
        if verdict is not None:
            is_blocked = verdict.suggest == "risky" and self._policy == "block"
            outcome = "blocked" if is_blocked else "pass" if verdict.suggest == "pass" else "flagged"
            self._opinions.observe("nickname", person.app_id, outcome)
        return verdict

    async def _note(self, person: Person, verdict: TextVerdict) -> None:
        data = {"suggest": verdict.suggest, "label": verdict.label}
        await flag(self._database, person, EventType.NICKNAME_FLAGGED, data, now=self._clock())

    def _later(self, person: Person, work: Callable[[], Awaitable[None]]) -> None:
        if not self._background.offer(work, name=f"nickname of {person.user_id}"):
            self._opinions.miss("nickname", person.app_id, "too_busy")
