"""The operator's policies about what WeChat thinks of people, names and pictures: `off`, `flag` or `block`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

from wxauth.errors import StorageUnavailable
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.trail import SYSTEM, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.users.user_rows import lock_user_of
from wxauth.server.wechat.api import Opinions, PolicyName, WeChatApi

T = TypeVar("T")

log = get_logger()


@part
class Policy:
    """Carries out a policy. WeChat's failures, and a busy process, are counted and logged, and change nothing."""

    name: ClassVar[PolicyName]
    setting: ClassVar[str]
    database: Database
    opinions: Opinions
    clock: Clock
    background: Background
    settings: Settings

    def __post_init__(self) -> None:
        choice = getattr(self.settings, self.setting)
        self.is_on = choice != "off"
        """Whether WeChat is called."""
        self.blocks = choice == "block"
        """Whether WeChat's answer decides. Otherwise it is only noted."""

    async def _ask(
        self,
        user: UserInSession,
        question: Callable[[WeChatApi, App], Awaitable[T]],
        *,
        patience: float | None = None,
    ) -> T | None:
        return await self.opinions.ask(self.name, user.app_id, question, patience=patience)

    def _count(self, app_id: str, *, is_flagged: bool, is_blocked: bool) -> None:
        self.opinions.count(self.name, app_id, "blocked" if is_blocked else "flagged" if is_flagged else "pass")

    def _later(self, user: UserInSession, work: Callable[[], Awaitable[None]]) -> bool:
        """Do something in the background. Returns False if too much waits there."""
        is_queued = self.background.offer(work, name=f"{self.name} of {user.id}")
        if not is_queued:
            self.opinions.report_missing(self.name, user.app_id, "too_busy")
        return is_queued

    async def _flag(self, user: UserInSession, kind: EventType, data: Mapping[str, Any]) -> None:
        """Record an event about the identity's user, unless they have been erased.

        If the database is unavailable, only the log has it.
        """
        log.warning(kind.logged, user_id=user.id, app_id=user.app_id, **data)
        now = self.clock()
        try:
            async with self.database.begin() as transaction:
                # Whose the identity is now: the user may have been merged meanwhile.
                user_id = await lock_user_of(transaction, app_id=user.app_id, openid=user.openid)
                if user_id is not None:
                    await record_event(
                        transaction, kind, by=SYSTEM, at=now, user_id=user_id, app_id=user.app_id, data=data
                    )
        except StorageUnavailable:
            log.error("event_not_recorded", type=kind, user_id=user.id, reason=StorageUnavailable.code)
