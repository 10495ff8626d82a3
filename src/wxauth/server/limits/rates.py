"""How often one user may do something that makes work for others, or costs something at WeChat, over all replicas."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.rows import give_back_attempt, take_attempt

MAX_ATTEMPTS: Final = 20
"""How many calls one person may cause in an hour, in one app, over all replicas. Honest use stays below."""


class Attempts:
    """Counts the calls to WeChat for each person, in the database.

    Args:
        what: The kind of call. Each kind has its own count.
        detail: The `detail` of a refusal, for the developer.
    """

    def __init__(self, database: Database, clock: Clock, *, what: str, detail: str) -> None:
        self._database = database
        self._clock = clock
        self._rate = Rate(what, MAX_ATTEMPTS, detail)

    async def take(self, app_id: str, openid: str) -> bytes:
        """Count an attempt of an identity. Returns the key for `give_back`.

        It is counted for the identity instead of the user, because an erasure must not reset the count.

        Raises: RateLimited.
        """
        who = app_id.encode(), openid.encode()
        await self._rate.count(self._database, *who, now=self._clock())
        return self._rate.key(*who)

    async def give_back(self, key: bytes) -> None:
        """Uncount an attempt that failed through no fault of the person. During a database outage it stays counted."""
        with suppress(StorageUnavailable):
            await give_back_attempt(self._database, key)


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

    def key(self, *who: bytes) -> bytes:
        """The primary key of the count, for a unionid or for an app and openid."""
        return sha256(b"\0".join((self.what.encode(), *who))).digest()

    async def count(self, asked: Database | Transaction, *who: bytes, now: datetime) -> None:
        """Count one more. If it is counted in a transaction, a rollback undoes that.

        Raises: RateLimited.
        """
        since = await take_attempt(asked, self.key(*who), at_most=self.at_most, began_by=now - self.window, now=now)
        if since is not None:
            raise RateLimited(self.detail, retry_after=max(1, ceil((since + self.window - now).total_seconds())))

    async def count_user(self, asked: Database | Transaction, user: UserInSession, *, now: datetime) -> None:
        """Count one more for this user, as `count` does.

        The count is for the unionid, or for the identity of a user without one. It is not for the user's id, because an
        erasure followed by a login gives a new id, and must not reset the count.
        """
        await self.count(asked, *_names(user), now=now)

    async def uncount_user(self, database: Database, user: UserInSession) -> None:
        """Undo a `count_user`."""
        await give_back_attempt(database, self.key(*_names(user)))


def _names(user: UserInSession) -> Sequence[bytes]:
    names = (user.app_id, user.openid) if user.unionid is None else (user.unionid,)
    return [name.encode() for name in names]


PROFILE_CHANGES: Final = Rate("profile", 60, "this user has changed name or picture URL too often")
CONSENTS_GIVEN: Final = Rate("consent", 20, "this user has given consents too often")
SITES: Final = Rate("site", 60, "this user has logged in to sites too often", window=MINUTE)
PICTURES: Final = Rate("picture", 20, "this user has uploaded pictures too often")
USER_CODES: Final = Rate("user_code", 5, "too many wrong codes of this user", window=MINUTE)
"""Codes that one user may type wrongly, for a login to a site."""
