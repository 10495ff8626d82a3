"""Events about a person's risk or nickname, recorded in the audit trail for staff to review."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wxauth.errors import StorageUnavailable
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import SYSTEM, EventType, record_event
from wxauth.server.users.person import Person
from wxauth.server.users.user_rows import lock_user_of

log = get_logger()


async def record_flag(
    database: Database, person: Person, kind: EventType, data: Mapping[str, Any], *, now: datetime
) -> None:
    """Record an event about the identity's user, unless they have been erased.

    If the database is unavailable, only the log has it.
    """
    log.warning(kind.logged, user_id=person.user_id, app_id=person.app_id, **data)
    try:
        async with database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile.
            user_id = await lock_user_of(transaction, app_id=person.app_id, openid=person.openid)
            if user_id is not None:
                await record_event(
                    transaction, kind, by=SYSTEM, at=now, user_id=user_id, app_id=person.app_id, data=data
                )
    except StorageUnavailable:
        log.error("event_not_recorded", type=kind, user_id=person.user_id, reason=StorageUnavailable.code)
