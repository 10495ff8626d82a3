"""The operator's policies about what WeChat thinks of people, names and pictures: `off`, `flag` or `block`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal, TypeVar

from wxauth.errors import InternalError, StorageUnavailable, WeChatError, WeChatTimeout, WxAuthError
from wxauth.server.core.apps import App
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Counter
from wxauth.server.core.services import part
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import SYSTEM, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.users.user_queries import lock_user_of
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.errcodes import Api, errcode_label, errcode_of

OPINION_TIMEOUT_SECONDS: Final = 2.0
"""How long a request waits at most for a verdict that decides its outcome."""
LOGGED_AGAIN_AFTER: Final = timedelta(minutes=1)
"""The time between two log lines about the same failure."""

_APIS: Final = {"risk": Api.RISK_RANK, "nickname": Api.CHECK_TEXT, "avatar": Api.CHECK_PICTURE}

PolicyName = Literal["risk", "nickname", "avatar"]

CHECKS: Final = Counter(
    "wxauth_policy_checks",
    "Checks by RISK_POLICY, NICKNAME_CHECK and AVATAR_CHECK, by outcome: pass, flagged, blocked, or the reason for "
    "which there is none; errcode is WeChat's.",
    "policy",
    "app_id",
    "outcome",
    "errcode",
)

T = TypeVar("T")

log = get_logger()


@part
class Verdicts:
    """Asks WeChat for verdicts, and tolerates any failure.

    Args:
        find_app: Returns the app with this id. Raises: UnknownApp.
        label_of: What metrics call an app.
    """

    wechat_api: WeChatApi
    clock: Clock
    find_app: Callable[[str], App]
    label_of: Callable[[str], str]
    _logged_at: dict[tuple[str, ...], datetime] = field(init=False, default_factory=dict)

    async def ask(
        self,
        policy: PolicyName,
        app_id: str,
        question: Callable[[WeChatApi, App], Awaitable[T]],
        *,
        patience: float | None = None,
    ) -> T | None:
        """WeChat's answer, or None after any failure and for apps that are not mini-programs. Raises nothing.

        `patience` is how many seconds the waiting request has left; None if no request waits.
        """
        failure: WxAuthError
        try:
            async with asyncio.timeout(None if patience is None else min(patience, OPINION_TIMEOUT_SECONDS)):
                app = self.find_app(app_id)
                return await question(self.wechat_api, app) if app.is_mini_program else None
        except TimeoutError:
            failure = WeChatTimeout("WeChat gave no answer in the time that the request has")
        except WxAuthError as exc:
            failure = exc
        except Exception:
            log.exception("policy_failed", policy=policy, app_id=app_id)
            failure = InternalError()
        self.report_missing(policy, app_id, failure.code, failure)
        return None

    def count(self, policy: PolicyName, app_id: str, outcome: str, failure: WxAuthError | None = None) -> None:
        """Count an answer, or why there is none."""
        CHECKS.count(policy, self.label_of(app_id), outcome, errcode_label(failure))

    def report_missing(self, policy: PolicyName, app_id: str, reason: str, failure: WxAuthError | None = None) -> None:
        """Count a missing verdict, and log it unless the same failure was logged within the last minute."""
        errcode = failure.errcode if isinstance(failure, WeChatError) else None
        self.count(policy, app_id, reason, failure)
        now = self.clock()
        key = (policy, app_id, reason, str(errcode))
        if key in self._logged_at and now - self._logged_at[key] < LOGGED_AGAIN_AFTER:
            return
        self._logged_at[key] = now
        fields = {"policy": policy, "app_id": app_id, "reason": reason, "errcode": errcode}
        known = errcode_of(errcode or 0, api=_APIS[policy])
        if known.is_for_the_operator:
            log.error("policy_without_wechat", **fields, what_to_change=known.remedy)
        else:
            log.warning("policy_without_wechat", **fields)


@part
class Policy:
    """Carries out a policy. WeChat's failures, and a busy process, are counted and logged, and change nothing."""

    name: ClassVar[PolicyName]
    setting: ClassVar[str]
    database: Database
    verdicts: Verdicts
    clock: Clock
    background: Background
    settings: Settings

    def __post_init__(self) -> None:
        choice = getattr(self.settings, self.setting)
        self.is_on = choice != "off"
        """Whether WeChat is called."""
        self.blocks = choice == "block"
        """Whether WeChat's answer decides. Otherwise it is only noted."""

    def _count(self, app_id: str, *, is_flagged: bool, is_blocked: bool) -> None:
        self.verdicts.count(self.name, app_id, "blocked" if is_blocked else "flagged" if is_flagged else "pass")

    def _later(self, user: UserInSession, work: Callable[[], Awaitable[None]]) -> bool:
        """Do something in the background. Returns False if too much waits there."""
        is_queued = self.background.offer(work, name=f"{self.name} of {user.id}")
        if not is_queued:
            self.verdicts.report_missing(self.name, user.app_id, "too_busy")
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
