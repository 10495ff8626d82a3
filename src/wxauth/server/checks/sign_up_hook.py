"""Checks the operator's service that is asked who may sign up."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from wxauth.server.checks.result import CheckResult, bad, good
from wxauth.server.core.clock import Clock
from wxauth.server.core.receiver_transport import ReceiverTransport
from wxauth.server.core.receivers import NameResolver
from wxauth.server.core.settings import Settings
from wxauth.server.sign_up.hook import HookFailed, make_sign_up_hook

_WHAT_TO_CHANGE: Final = "see WXAUTH_SIGN_UP_HOOK_URL"


async def check_sign_up_hook(settings: Settings, *, clock: Clock) -> AsyncGenerator[CheckResult, None]:
    """If the settings have a hook, send it a message of the type `test`, which is about nobody."""
    transport = ReceiverTransport(resolve=NameResolver().resolve)
    hook = make_sign_up_hook(settings, clock, transport=transport)
    if hook is None:
        return
    async with aclosing(transport):
        try:
            await hook.ask({"type": "test"}, now=clock())
            yield good("sign_up_hook", "answers", "响应正常")
        except HookFailed as exc:
            refuses = settings.sign_up_hook_failure == "refuse"
            consequence = "newcomers are refused" if refuses else "everybody may sign up"
            result = "新用户会被拒绝" if refuses else "任何人都能注册"
            yield bad(
                "sign_up_hook",
                f"fails ({exc}), so {consequence}: {_WHAT_TO_CHANGE}",
                f"无法使用（{exc}），{result}：请检查 WXAUTH_SIGN_UP_HOOK_URL",
            )
