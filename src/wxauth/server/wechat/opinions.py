"""WeChat's opinions on people, texts and pictures. If WeChat gives none, the request goes on without it.

Each such failure is counted, and logged at most once a minute.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeVar

from wxauth.errors import InternalError, WeChatError, WeChatTimeout, WxAuthError
from wxauth.server.core.clock import Clock
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Counter
from wxauth.server.core.services import part
from wxauth.server.core.settings import App
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.errcodes import (
    CHECK_PICTURE,
    CHECK_TEXT,
    RISK_RANK,
    errcode_label,
    is_for_the_operator,
    what_to_change,
)

OPINION_TIMEOUT_SECONDS: Final = 2.0
"""How long a request waits at most for an opinion that decides its outcome."""
LOGGED_AGAIN_AFTER: Final = timedelta(minutes=1)
"""The time between two log lines about the same failure."""

_APIS: Final = {"risk": RISK_RANK, "nickname": CHECK_TEXT, "avatar": CHECK_PICTURE}

log = get_logger()

PolicyName = Literal["risk", "nickname", "avatar"]
T = TypeVar("T")


CHECKS: Final = Counter(
    "wxauth_policy_checks",
    "Checks by RISK_POLICY, NICKNAME_CHECK and AVATAR_CHECK, by outcome: pass, flagged, blocked, or the reason for "
    "which there is none; errcode is WeChat's.",
    "policy",
    "app_id",
    "outcome",
    "errcode",
)


@part
class Opinions:
    """Asks WeChat for opinions, and tolerates any failure.

    Args:
        find_app: Returns the app with this id. Raises: UnknownApp.
        label_of: What metrics call an app.
        longest_wait: The longest time in seconds that a request waits for an answer.
    """

    wechat_api: WeChatApi
    clock: Clock
    find_app: Callable[[str], App]
    label_of: Callable[[str], str]
    longest_wait: float = OPINION_TIMEOUT_SECONDS
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
            async with asyncio.timeout(None if patience is None else min(patience, self.longest_wait)):
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
        """Count a missing opinion, and log it unless the same failure was logged within the last minute."""
        errcode = failure.errcode if isinstance(failure, WeChatError) else None
        self.count(policy, app_id, reason, failure)
        now = self.clock()
        key = (policy, app_id, reason, str(errcode))
        if key in self._logged_at and now - self._logged_at[key] < LOGGED_AGAIN_AFTER:
            return
        self._logged_at[key] = now
        fields = {"policy": policy, "app_id": app_id, "reason": reason, "errcode": errcode}
        if errcode is not None and is_for_the_operator(errcode, api=_APIS[policy]):
            log.error("policy_without_wechat", **fields, what_to_change=what_to_change(errcode, api=_APIS[policy]))
        else:
            log.warning("policy_without_wechat", **fields)
