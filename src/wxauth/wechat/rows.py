"""What the audit trail tells of the apps' WeChat tokens: who has been given one, and when one was forced."""

from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import text

from wxauth.core.database import Database
from wxauth.core.trail import SYSTEM, EventType, NewEvent, record_event

SHORTEST_PAUSE: Final = timedelta(seconds=30)
"""WeChat allows one in 30 s, twenty a day. Here the pause doubles after each of a day, so that most stay free."""

_DAY: Final = timedelta(days=1)
# The lock decides between processes that ask at once; it is gone with the transaction.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext('wxauth.access_token_forced'), hashtext(:app_id))")
_OF_A_DAY: Final = text("""
    SELECT count(*) AS number, max(at) AS last FROM events
     WHERE type = 'access_token_forced' AND app_id = :app_id AND at > :since
""")


async def record_reading(database: Database, *, app_id: str, client_id: str, ip: str | None, now: datetime) -> None:
    """Tell that a service client is given an app's token. Raises: StorageUnavailable."""
    event = NewEvent(type=EventType.ACCESS_TOKEN_READ, at=now, actor=client_id, app_id=app_id, ip=ip)
    async with database.begin() as transaction:
        await record_event(transaction, event)


async def claim_forcing(database: Database, app_id: str, *, now: datetime) -> Literal["granted", "taken", "rationed"]:
    """Whether to force an app's token to change: of all processes one may, and none too often.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        await transaction.execute(_LOCK, {"app_id": app_id})
        forced = (await transaction.execute(_OF_A_DAY, {"app_id": app_id, "since": now - _DAY})).one()
        if forced.last is not None:
            pause = now - forced.last
            if pause < SHORTEST_PAUSE:
                return "taken"
            if pause < SHORTEST_PAUSE * 2**forced.number:
                return "rationed"
        await record_event(
            transaction, NewEvent(type=EventType.ACCESS_TOKEN_FORCED, at=now, actor=SYSTEM, app_id=app_id)
        )
    return "granted"
