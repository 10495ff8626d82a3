"""A guard that asks about tokens at a test's upstream, the responses of this upstream, and what becomes of a token."""

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, Optional

from tests.clock import PATIENCE
from tests.guard.fakes import BELIEVES_NOBODY, Timer
from tests.upstream import Behaviour, answer
from wxauth_guard import BearerGuard, Principal, WxAuthError
from wxauth_guard.current import RemoteAuthority
from wxauth_guard.issuer import Issuer
from wxauth_guard.testing import USER_ID, TestIssuer

NOT_REACHED = "verification_unavailable"


def identified(*, user_id: object = USER_ID, roles: str = "", more: str = "") -> Behaviour:
    return answer(b"", headers=f"X-Auth-User-Id: {user_id}\r\nX-Auth-Roles: {roles}\r\n{more}")


def problem(code: str, status: str) -> Behaviour:
    return answer({"code": code, "title": "x", "status": int(status[:3])}, status=status)


def guard_at(
    url: str, issuer: TestIssuer, *, timeout: float = PATIENCE, tls: Optional[ssl.SSLContext] = None, **options: Any
) -> BearerGuard:
    """Make a guard that knows the issuer's key, and asks wxauth at this URL. Its timer stands still."""
    guard = BearerGuard(url, issuer.audience, keys=issuer.key, **options)
    asked = Issuer(url, internal_url=None, timer=lambda: 0, timeout=5, ssl_context=tls or BELIEVES_NOBODY)
    or_offline = options.get("or_offline", False)
    guard._authority = RemoteAuthority(
        asked, or_offline=or_offline, begin_timeout=PATIENCE, timeout=timeout, timer=Timer()
    )
    return guard


async def outcome(guard: BearerGuard, token: str) -> tuple[str, Optional[bool]]:
    """Return the code of the refusal, or whether the user is current, which must be equal in a thread."""
    result = await outcome_of(guard.verify(token))
    guard._authority._timer.seconds += 10  # type: ignore[union-attr]
    assert await outcome_of(asyncio.to_thread(guard.verify_sync, token)) == result
    return result


async def outcome_of(verifying: Awaitable[Principal]) -> tuple[str, Optional[bool]]:
    try:
        return "", (await verifying).is_current
    except WxAuthError as refusal:
        return refusal.code, None
