"""What is made of WeChat's opinion of newcomers: nothing, an event, or a ban."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from wxauth.core.background import Background
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.promises import Promises
from wxauth.core.settings import App, Policy
from wxauth.core.tables import UserStatus
from wxauth.core.trail import SYSTEM, EventType
from wxauth.errors import WeChatUserBlocked
from wxauth.people.flags import flag
from wxauth.people.person import Person
from wxauth.people.standing import Standing, lock_standing, settle
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.opinions import Opinions

BLOCKED_RANK: Final = 4
"""The risk at which WeChat says to block. At any other but 0 it says to look closer."""
BAN_PATIENCE: Final = 600.0
"""Seconds in which a ban that the database did not take is tried again."""

_BAN: Final = "ban"


class Risk:
    """Carries out `RISK_POLICY`.

    Args:
        database: Where the users are.
        opinions: What WeChat thinks.
        clock: The time.
        background: Does what decides nothing.
        promises: Keeps the bans that the database did not take.
        policy: What is made of a newcomer's risk.
    """

    def __init__(
        self,
        database: Database,
        opinions: Opinions,
        clock: Clock,
        *,
        background: Background,
        promises: Promises,
        policy: Policy,
    ) -> None:
        self._database = database
        self._opinions = opinions
        self._clock = clock
        self._background = background
        self._promises = promises
        self.is_noted = policy != "off"
        """Whether WeChat is asked about newcomers."""
        self.decides = policy == "block"
        """Whether a newcomer waits for the answer."""

    async def judge(self, person: Person, ip: str | None, *, patience: float) -> None:
        """Ban a newcomer of the highest risk, note any other.

        Raises: WeChatUserBlocked, where the newcomer has just been banned; StorageUnavailable, where they will be.
        """
        rank = await self._rank(person, ip, patience=patience)
        if rank == BLOCKED_RANK and await self._ban_now_or_later(person, rank):
            raise WeChatUserBlocked("WeChat takes this person for a high risk; an administrator may unban the user")
        if rank:
            self._later(person, partial(self._note, person, rank))

    def note_later(self, person: Person, ip: str | None) -> None:
        """Note a newcomer's risk, where there is one; nobody waits for it."""

        async def look() -> None:
            if rank := await self._rank(person, ip):
                await self._note(person, rank)

        self._later(person, look)

    async def _rank(self, person: Person, ip: str | None, *, patience: float | None = None) -> int | None:
        """The person's risk, 0 to 4; None where that cannot be told."""
        if ip is None:
            self._opinions.miss("risk", person.app_id, "no_client_address")
            return None

        async def ask(wechat_api: WeChatApi, app: App) -> int:
            return await wechat_api.risk_rank(app, openid=person.openid, client_ip=ip)

        rank = await self._opinions.ask("risk", person.app_id, ask, patience=patience)
        if rank is not None:
            is_blocked = rank == BLOCKED_RANK and self.decides
            self._opinions.observe("risk", person.app_id, "blocked" if is_blocked else "flagged" if rank else "pass")
        return rank

    async def _ban_now_or_later(self, person: Person, rank: int) -> bool:
        ban = partial(self._ban, person, rank)
        try:
            return await ban()
        except (Exception, asyncio.CancelledError) as exc:
            fields = {"user_id": person.user_id, "app_id": person.app_id, "risk_rank": rank}
            self._promises.put_off(_BAN, person.user_id, ban, failure=exc, patience=BAN_PATIENCE, **fields)
            raise

    async def _ban(self, person: Person, rank: int) -> bool:
        """Ban a newcomer, unless an administrator has given them a role meanwhile, and so trusts them."""
        now = self._clock()
        async with self._database.begin() as transaction:
            before = await lock_standing(transaction, person.user_id)
            if before is None:  # erased: there is nobody to keep out
                return True
            if before.is_banned:
                return True
            if before.roles:
                return False
            settled = await settle(
                transaction,
                person.user_id,
                before=before,
                after=Standing(UserStatus.DISABLED, ()),
                by=SYSTEM,
                now=now,
                app_id=person.app_id,
                why={"risk_rank": rank},
            )
        settled.tell(app_id=person.app_id, risk_rank=rank)
        return True

    async def _note(self, person: Person, rank: int) -> None:
        await flag(self._database, person, EventType.RISK_FLAGGED, {"risk_rank": rank}, now=self._clock())

    def _later(self, person: Person, work: Callable[[], Awaitable[None]]) -> None:
        if not self._background.offer(work, name=f"risk of {person.user_id}"):
            self._opinions.miss("risk", person.app_id, "too_busy")
