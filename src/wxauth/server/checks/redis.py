"""Checks Redis, which counts logins for all processes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Final

from wxauth.server.checks.result import CheckResult, bad, good
from wxauth.server.core.settings import Settings
from wxauth.server.limits.redis import redis_reason, redis_storage

REDIS_PATIENCE_SECONDS: Final = 3.0
"""Seconds to wait for an answer."""


async def check_redis(
    settings: Settings, *, patience: float = REDIS_PATIENCE_SECONDS
) -> AsyncGenerator[CheckResult, None]:
    """If Redis is configured, check whether it counts a login within `patience` seconds."""
    if settings.redis_url is None:
        return
    if not settings.login_rate_limit:
        yield good("redis", "not asked, for WXAUTH_LOGIN_RATE_LIMIT is empty", "未检查：WXAUTH_LOGIN_RATE_LIMIT 为空")
        return
    url = settings.redis_url.get_secret_value()
    try:
        async with asyncio.timeout(patience), AsyncExitStack() as closing:
            # Counts, as a login does, because even a replica, or a cluster that is down, would answer a PING.
            storage = redis_storage(url, what="check", patience=patience, closing=closing)
            await storage.incr("check", expiry=1)
        yield good("redis", "answers", "响应正常")
    except Exception as exc:
        reason = redis_reason(exc) or type(exc).__name__
        consequence = "until it does, each process counts for itself; see WXAUTH_REDIS_URL"
        chinese = f"没有响应（{reason}）：恢复之前各进程各自计数；请检查 WXAUTH_REDIS_URL"
        yield bad("redis", f"does not answer ({reason}): {consequence}", chinese)
