"""The check whether Redis counts logins."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from wxauth.checks.result import CheckResult, bad, good
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.limits.redis import RedisCounts, redis_reason
from wxauth.settings.settings import Settings

REDIS_PATIENCE_SECONDS: Final = 3.0
_NO_DATABASE_WORDS: Final = "DB index"
_CLOSED_WORDS: Final = "Connection closed by server"


async def check_redis(
    settings: Settings, *, patience: float = REDIS_PATIENCE_SECONDS
) -> AsyncGenerator[CheckResult, None]:
    """If Redis is configured, check whether it counts a login within `patience` seconds. The count ends at once."""
    if settings.redis_url is None:
        return
    url = settings.redis_url.get_secret_value()
    try:
        async with asyncio.timeout(patience), aclosing(RedisCounts(url, what="check", patience=patience)) as counts:
            await counts.add("check", seconds=1)
    except Exception as exc:
        text = _("{trouble}, so each process counts logins by itself. Check WXAUTH_REDIS_URL", trouble=_trouble(exc))
        yield bad("redis", text)
    else:
        yield good("redis", _("counts logins"))


def _trouble(exc: Exception) -> Text:
    import redis  # delays the start of other commands

    reason = redis_reason(exc)
    if isinstance(exc, redis.AuthenticationError):
        return _("requires another user name or password ({reason})", reason=reason)
    if _NO_DATABASE_WORDS in reason:
        return _("doesn't have this database ({reason})", reason=reason)
    if isinstance(exc, redis.InvalidResponse) or reason.startswith(_CLOSED_WORDS):
        return _("doesn't respond like a Redis server, or requires TLS")
    if isinstance(exc, TimeoutError | redis.TimeoutError):
        return _("doesn't respond in time")
    if isinstance(exc, OSError | redis.ConnectionError):
        return _("can't be reached: {reason}", reason=reason)
    return _("rejects the count ({reason})", reason=reason or type(exc).__name__)
