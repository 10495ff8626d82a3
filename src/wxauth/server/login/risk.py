"""The risk of new users, which WeChat ranks. The policy decides: nothing, an event, or a ban.

A new user is unjudged until the rank is stored, and each login until then asks for it. So several logins at once, here
or at another replica, do not get round the check, and neither does a first login at which WeChat was slow.
"""

import asyncio
from dataclasses import field
from enum import StrEnum
from functools import partial
from typing import Final
from uuid import UUID

from wxauth.errors import StorageUnavailable
from wxauth.server.apps.registry import Apps
from wxauth.server.core.apps import App
from wxauth.server.core.background import Retries
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.trail import SYSTEM, EventType
from wxauth.server.core.users import UserInSession
from wxauth.server.users import status_queries
from wxauth.server.users.policies import Policy
from wxauth.server.users.user_queries import lock_user_of
from wxauth.server.wechat.api import WeChatApi

BLOCKED_RANK: Final = 4
"""The risk rank at which WeChat recommends blocking. For any other rank above 0 it recommends a closer look."""
BAN_RETRY_SECONDS: Final = 600.0
"""Seconds for which a ban is retried during a database outage."""

_BAN: Final = "ban"

log = get_logger()


class RiskVerdict(StrEnum):
    """What the risk check means for a login."""

    LET_IN = "let in"
    """The login continues: the risk is not high, an administrator trusts the person, or WeChat gave no rank."""
    BLOCKED = "blocked"
    """This check has banned the user, or the user has been erased or banned in the meantime."""
    BANNED = "banned"
    """The user was banned elsewhere while WeChat was asked, and WeChat gave no rank."""


@part
class Risk(Policy):
    """Carries out `RISK_POLICY`."""

    name = "risk"
    setting = "risk_policy"
    retries: Retries
    apps: Apps
    _judging: dict[UUID, asyncio.Task[RiskVerdict]] = field(init=False, default_factory=dict)
    _noting: set[UUID] = field(init=False, default_factory=set)

    def judge(self, user: UserInSession, ip: str | None, *, patience: float) -> asyncio.Task[RiskVerdict]:
        """Ban a new user of the highest rank, and note any other rank. Callers must await the task in asyncio.shield.

        Simultaneous logins of one person share the task. It continues even if all of them disconnect. The task raises
        StorageUnavailable if the ban could not be stored yet.
        """
        user_id = user.id
        judging = self._judging.get(user_id)
        if judging is None:
            work = self._judge(user, ip, patience=patience)
            judging = self._judging[user_id] = self.background.start(work, name=f"risk of {user_id}")
            judging.add_done_callback(lambda _: self._judging.pop(user_id))
        return judging

    def note_later(self, user: UserInSession, ip: str | None) -> None:
        """Note a new user's risk rank in the background."""
        user_id = user.id
        if user_id in self._noting:
            return

        async def note() -> None:
            try:
                rank = await self._rank(user, ip)
                if rank is not None:
                    await self._note(user, rank)
            finally:
                self._noting.discard(user_id)

        if self._later(user, note):
            self._noting.add(user_id)

    async def _judge(self, user: UserInSession, ip: str | None, *, patience: float) -> RiskVerdict:
        rank = await self._rank(user, ip, patience=patience)
        if rank is None:
            # Another replica may have stored the verdict meanwhile.
            is_banned = await self.database.value(status_queries.IS_BANNED, app_id=user.app_id, openid=user.openid)
            return RiskVerdict.BANNED if is_banned else RiskVerdict.LET_IN
        if rank == BLOCKED_RANK and await self._ban_now_or_later(user, rank):
            return RiskVerdict.BLOCKED
        if rank:
            self._later(user, partial(self._note, user, rank))
        else:
            await self._note(user, rank)
        return RiskVerdict.LET_IN

    async def _rank(self, user: UserInSession, ip: str | None, *, patience: float | None = None) -> int | None:
        """The person's risk rank, 0 to 4; None if WeChat gave none."""
        if ip is None:
            self.verdicts.report_missing("risk", user.app_id, "no_client_address")
            return None

        async def ask(wechat_api: WeChatApi, app: App) -> int:
            return await wechat_api.risk_rank(app, openid=user.openid, client_ip=ip)

        rank = await self.verdicts.ask(self.name, user.app_id, ask, patience=patience)
        if rank is not None:
            self._count(user.app_id, is_flagged=rank > 0, is_blocked=rank == BLOCKED_RANK and self.blocks)
        return rank

    async def _ban_now_or_later(self, user: UserInSession, rank: int) -> bool:
        ban = partial(self._ban, user, rank)
        try:
            return await ban()
        except (Exception, asyncio.CancelledError) as exc:
            fields = {"user_id": user.id, "app_id": user.app_id, "risk_rank": rank}
            self.retries.put_off(_BAN, user.id, ban, failure=exc, patience=BAN_RETRY_SECONDS, **fields)
            raise

    async def _ban(self, user: UserInSession, rank: int) -> bool:
        """Ban a new user, unless an administrator has given them a role in the meantime, which is a sign of trust.

        Roles that new users get are not. Returns False if the user is trusted.
        """
        now = self.clock()
        async with self.database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile.
            user_id = await lock_user_of(transaction, app_id=user.app_id, openid=user.openid)
            before = None if user_id is None else await status_queries.lock_status_and_roles(transaction, user_id)
            if user_id is None or before is None:  # erased: nobody to ban
                return True
            await transaction.run(status_queries.NOTE_JUDGED, user_id=user_id)
            if before.is_banned:
                return True
            if not self.apps.roles_at_sign_up() >= set(before.roles):
                return False
            (settled,) = await status_queries.change_status_and_roles(
                transaction,
                [(user_id, before, status_queries.StatusAndRoles(before.roles, status_queries.Ban()))],
                by=SYSTEM,
                now=now,
                app_id=user.app_id,
                why={"risk_rank": rank},
            )
        settled.report(app_id=user.app_id, risk_rank=rank)
        return True

    async def _note(self, user: UserInSession, rank: int) -> None:
        if rank:
            await self._flag(user, EventType.RISK_FLAGGED, {"risk_rank": rank})
        try:
            await self.database.run(status_queries.NOTE_JUDGED, user_id=user.id)
        except StorageUnavailable as exc:  # the next login asks WeChat again
            log.warning("risk_not_noted", user_id=user.id, app_id=user.app_id, reason=exc.code)
