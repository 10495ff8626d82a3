"""How often one user may do something that makes work for others, or costs something at WeChat, over all replicas."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.rows import give_back_attempt, take_attempt

WINDOW: Final = timedelta(hours=1)
"""The default window, which begins with the first action. No window may be longer."""
MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done within a window."""

    what: str
    """The kind of action. Each kind has its own count."""
    at_most: int
    detail: str
    """The `detail` of a refusal, for the developer."""
    window: timedelta = WINDOW

    async def count(self, asked: Database | Transaction, *who: str, now: datetime) -> None:
        """Count one more for this person: an app and openid, a unionid or an id. A rollback undoes a transaction's.

        Raises: RateLimited.
        """
        since = await take_attempt(asked, self._key(who), at_most=self.at_most, began_by=now - self.window, now=now)
        if since is not None:
            raise RateLimited(self.detail, retry_after=max(1, ceil((since + self.window - now).total_seconds())))

    async def uncount(self, database: Database, *who: str) -> None:
        """Undo a `count`. During a database outage it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(database, self._key(who))

    async def count_user(self, asked: Database | Transaction, user: UserInSession, *, now: datetime) -> None:
        """Count one more for this user, as `count` does.

        The count is for the unionid, or for the identity of a user without one. It is not for the user's id, because an
        erasure followed by a login gives a new id, and must not reset the count.
        """
        await self.count(asked, *_names(user), now=now)

    async def uncount_user(self, database: Database, user: UserInSession) -> None:
        """Undo a `count_user`."""
        await self.uncount(database, *_names(user))

    def _key(self, who: Sequence[str]) -> bytes:
        return sha256("\0".join((self.what, *who)).encode()).digest()


def _names(user: UserInSession) -> Sequence[str]:
    return (user.app_id, user.openid) if user.unionid is None else (user.unionid,)


MAX_ATTEMPTS: Final = 20
"""How many calls of WeChat one person may cause in an hour, in one app. Honest use stays below; without the limit, one
person could use up the app's quota and money."""

PHONE_CODES: Final = Rate("phone_code", MAX_ATTEMPTS, "this person has sent too many phone codes")
"""Successful ones count, too, because each number costs money."""
NICKNAMES: Final = Rate("nickname", MAX_ATTEMPTS, "this person has changed names too often")
EXPORTS: Final = Rate("export", 1, "one's own data may be had once a minute", window=MINUTE)
"""No other request reads as much."""
PROFILE_CHANGES: Final = Rate("profile", 60, "this user has changed name or picture URL too often")
CONSENTS_GIVEN: Final = Rate("consent", 20, "this user has given consents too often")
SITES: Final = Rate("site", 60, "this user has logged in to sites too often", window=MINUTE)
PICTURES: Final = Rate("picture", 20, "this user has uploaded pictures too often")
USER_CODES: Final = Rate("user_code", 5, "too many wrong codes of this user", window=MINUTE)
"""Codes that one user may type wrongly, for a login to a site."""
