"""The erasure of data that wxauth may no longer store after WeChat has pushed a withdrawal.

A user has withdrawn consent or closed the WeChat account, or WeChat has classified the user's profile as risky.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Unpack
from uuid import UUID

from wxauth.core.database import Transaction
from wxauth.core.trail import WECHAT, About, EventType, record_event
from wxauth.merging.merging_queries import IS_JOINED
from wxauth.merging.splitting_queries import erase_identity, erase_wechat_account
from wxauth.users.erasure_queries import erase_user, schedule_erasure
from wxauth.users.status_queries import lock_status_and_roles
from wxauth.users.user_queries import DELETE_PHONE_ANSWERS, clear_fields
from wxauth.wechat.messages import Withdrawal, WithdrawalKind

# The actor tells these erasures in the log from those that users or operators have requested.
_BY_WECHAT: Final = {"actor": WECHAT.name}


class LogLine(NamedTuple):
    """The log line that reports an erasure."""

    event: str
    fields: Mapping[str, object]  # without the user and the app


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasure that a withdrawal requires. The caller has locked the user."""

    transaction: Transaction
    user_id: UUID
    app_id: str
    withdrawal: Withdrawal
    now: datetime

    async def carry_out(self) -> LogLine:
        match self.withdrawal.kind:
            case WithdrawalKind.ACCOUNT:
                return await self._erase_closed_account()
            case WithdrawalKind.IDENTITY:
                return await self._erase_identity()
            case WithdrawalKind.DATA:
                return await self._erase_data()
            case WithdrawalKind.RISKY_PROFILE:
                return await self._clear_risky_profile()

    async def _erase_closed_account(self) -> LogLine:
        # A banned user is erased, too: nobody can log in with a closed account, so the ban has no further effect.
        if await self.transaction.value(IS_JOINED, user_id=self.user_id):
            is_erased = await erase_wechat_account(
                self.transaction,
                self.user_id,
                app_id=self.app_id,
                openid=self.withdrawal.openid,
                by=WECHAT,
                now=self.now,
            )
            if is_erased:  # otherwise, the user has no identity of another WeChat account
                return LogLine("identities_erased", _BY_WECHAT)
        return await self._erase_user()

    async def _erase_identity(self) -> LogLine:
        is_erased = await erase_identity(
            self.transaction, self.user_id, app_id=self.app_id, openid=self.withdrawal.openid, by=WECHAT, now=self.now
        )
        if is_erased:
            return LogLine("identities_erased", _BY_WECHAT)
        user = await lock_status_and_roles(self.transaction, self.user_id)
        if user is not None and user.is_banned:
            # Otherwise, a banned user could withdraw the consent, be erased together with the ban, and sign up again.
            await schedule_erasure(self.transaction, self.user_id, erase_at=self.now, now=self.now)
            return LogLine("user_leaving", _BY_WECHAT)
        return await self._erase_user()

    async def _erase_user(self) -> LogLine:
        # Even the last administrator is erased, because wxauth must not store data after the user has closed the
        # account or withdrawn the consent. The operator can appoint another administrator on the command line.
        await erase_user(self.transaction, self.user_id, by=WECHAT, now=self.now)
        return LogLine("user_erased", _BY_WECHAT)

    async def _erase_data(self) -> LogLine:
        fields = self.withdrawal.fields
        cleared = await clear_fields(self.transaction, self.user_id, fields)
        if "phone" in fields:
            # Numbers that WeChat has returned and that are not bound yet must not be bound later.
            await self.transaction.run(DELETE_PHONE_ANSWERS, user_id=self.user_id)
        await self._record(EventType.AUTHORIZATION_REVOKED, data={"fields": fields})
        if "phone" in cleared:
            await self._record(EventType.PHONE_REMOVED)
        return LogLine("authorization_revoked", {"fields": fields})

    async def _clear_risky_profile(self) -> LogLine:
        cleared = await clear_fields(self.transaction, self.user_id, self.withdrawal.fields)
        if cleared:
            await self._record(EventType.PROFILE_CHANGED, data={"fields": cleared})
        return LogLine("profile_found_risky", {"fields": cleared})

    async def _record(self, kind: EventType, **about: Unpack[About]) -> None:
        subject = About(user_id=self.user_id, app_id=self.app_id, **about)
        await record_event(self.transaction, kind, by=WECHAT, at=self.now, **subject)
