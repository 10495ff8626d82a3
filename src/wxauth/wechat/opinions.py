"""What WeChat thinks of people and of texts. Whatever keeps it from saying so holds nobody up.

It is counted each time, and told in the log now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, TypeVar

from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.settings import App
from wxauth.errors import InternalError, WeChatError, WeChatTimeout, WxAuthError
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.errcodes import CHECK_TEXT, RISK_RANK, is_for_the_operator, what_to_change

PATIENCE: Final = 2.0
"""Seconds, at most, that a request waits for what WeChat thinks, where that decides."""
TOLD_AGAIN_AFTER: Final = timedelta(minutes=1)
"""Between two log lines of one failure."""

_APIS: Final = {"risk": RISK_RANK, "nickname": CHECK_TEXT}

log = get_logger()

PolicyName = Literal["risk", "nickname"]
T = TypeVar("T")


class Observe(Protocol):
    """Is told of each question to WeChat what came of it."""

    def __call__(self, policy: PolicyName, app_id: str, outcome: str, errcode: int | None = None) -> None:
        """`outcome` is pass, flagged, blocked, or why there is none."""


class Opinions:
    """Asks WeChat, and takes no answer for an answer.

    Args:
        wechat_api: WeChat.
        clock: The time.
        find_app: The app of that id. Raises: UnknownApp.
        observe: Is told what came of each question.
        longest_wait: Seconds, at most, that a request waits for an answer.
    """

    def __init__(
        self,
        wechat_api: WeChatApi,
        clock: Clock,
        *,
        find_app: Callable[[str], App],
        observe: Observe,
        longest_wait: float = PATIENCE,
    ) -> None:
        self._wechat_api = wechat_api
        self._clock = clock
        self._find_app = find_app
        self.observe = observe
        self._longest_wait = longest_wait
        self._told_at: dict[tuple[str, ...], datetime] = {}

    async def ask(
        self,
        policy: PolicyName,
        app_id: str,
        question: Callable[[WeChatApi, App], Awaitable[T]],
        *,
        patience: float | None = None,
    ) -> T | None:
        """WeChat's answer, or None: nothing that goes wrong goes any further.

        Args:
            policy: What the question is for.
            app_id: Whose access token it takes.
            question: Asks.
            patience: Seconds that the request has, where one waits for it.
        """
        failure: WxAuthError
        try:
            async with asyncio.timeout(None if patience is None else min(patience, self._longest_wait)):
                return await question(self._wechat_api, self._find_app(app_id))
        except TimeoutError:
            failure = WeChatTimeout("WeChat gave no answer in the time that the request has")
        except WxAuthError as exc:
            failure = exc
        except Exception:
            log.exception("policy_failed", policy=policy, app_id=app_id)
            failure = InternalError()
        self.miss(policy, app_id, failure.code, failure)
        return None

    def miss(self, policy: PolicyName, app_id: str, reason: str, failure: WxAuthError | None = None) -> None:
        """Count that WeChat's opinion is not known, and tell it, unless that has just been told."""
        errcode = failure.errcode if isinstance(failure, WeChatError) else None
        self.observe(policy, app_id, reason, errcode)
        now = self._clock()
        key = (policy, app_id, reason, str(errcode))
        if key in self._told_at and now - self._told_at[key] < TOLD_AGAIN_AFTER:
            return
        self._told_at[key] = now
        fields = {"policy": policy, "app_id": app_id, "reason": reason, "errcode": errcode}
        if errcode is not None and is_for_the_operator(errcode, api=_APIS[policy]):
            log.error("policy_without_wechat", **fields, what_to_change=what_to_change(errcode, api=_APIS[policy]))
        else:
            log.warning("policy_without_wechat", **fields)
