"""How often one user may do what makes work for others, over all replicas."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from wxauth.errors import RateLimited
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.rows import take_attempt

WINDOW: Final = timedelta(hours=1)
"""How long something counts, from the first time on, unless told otherwise. No window is longer."""
MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done within a window."""

    what: str
    """Each kind has its own count."""
    at_most: int
    detail: str
    """The `detail` of a refusal, for the developer."""
    window: timedelta = WINDOW

    def key(self, *who: bytes) -> bytes:
        """What is counted in the database for this unionid, or for this app and openid."""
        return sha256(b"\0".join((self.what.encode(), *who))).digest()

    async def count(self, asked: Database | Transaction, *who: bytes, now: datetime) -> None:
        """Count one more. In a transaction that is rolled back, it is not counted.

        Raises: RateLimited; StorageUnavailable, where a database is asked.
        """
        since = await take_attempt(asked, self.key(*who), at_most=self.at_most, began_by=now - self.window, now=now)
        if since is not None:
            raise RateLimited(self.detail, retry_after=max(1, ceil((since + self.window - now).total_seconds())))

    async def count_user(self, asked: Database | Transaction, user: UserInSession, *, now: datetime) -> None:
        """Count one more for this user, as `count` does.

        By the unionid, or by the identity of a user without one, and not by the id: an erasure and the next login give
        a new id, and must not reset the count.
        """
        who = (user["app_id"], user["openid"]) if user["unionid"] is None else (user["unionid"],)
        await self.count(asked, *(name.encode() for name in who), now=now)


PROFILE_CHANGES: Final = Rate("profile", 60, "this user has changed name or picture URL too often")
CONSENTS_GIVEN: Final = Rate("consent", 20, "this user has given consents too often")
SITES: Final = Rate("site", 60, "this user has logged in to sites too often", window=MINUTE)
PICTURES: Final = Rate("picture", 20, "this user has uploaded pictures too often")
