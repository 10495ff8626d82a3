"""What a person withdraws in WeChat: some data, or the whole account."""

import asyncio
from functools import partial
from typing import Final

from wxauth.errors import InvalidSignature
from wxauth.server.core.background import Promises
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.trail import WECHAT, EventType, record_event
from wxauth.server.phones.rows import delete_answers
from wxauth.server.push.rows import claim_signature, remember_message
from wxauth.server.users.erasing import erase_identities, erase_user
from wxauth.server.users.merging_rows import is_joined
from wxauth.server.users.user_rows import clear_fields, lock_user_of
from wxauth.server.wechat.push import WeChatMessage, Withdrawal

KEPT_IN_MEMORY_SECONDS: Final = 3600.0
"""Seconds that a withdrawal waits in memory for the database to recover."""

_WITHDRAWAL: Final = "withdrawal"

log = get_logger()


@part
class Withdrawals:
    """Carries out each withdrawal once.

    WeChat stops resending after some seconds, so a withdrawal that fails is kept and retried.

    Args:
        database: Where the users are.
        clock: The time.
        promises: Retries withdrawals that could not be stored.
        kept_in_memory: Seconds for which a failed withdrawal is retried.
    """

    database: Database
    clock: Clock
    promises: Promises
    kept_in_memory: float = KEPT_IN_MEMORY_SECONDS

    async def carry_out(self, message: WeChatMessage, withdrawal: Withdrawal) -> bool:
        """Carry out a withdrawal, now or later, once its signature is bound to the message.

        Returns whether it names a user.

        Raises: InvalidSignature.
        """
        # The key is the signature, so that a message with a captured signature cannot replace another withdrawal.
        app_id, key = message.app_id, message.signature.digest

        async def carry_out() -> bool:
            await claim_signature(self.database, message.signature, now=self.clock())
            return await self._carry_out(app_id, withdrawal)

        async def carry_out_late() -> None:
            try:
                await carry_out()
            except InvalidSignature as exc:  # WeChat has had its response already, so this can only be logged
                log.error("push_refused", app_id=app_id, openid=withdrawal.openid, reason=exc.detail)

        try:
            has_named_a_user = await carry_out()
        except InvalidSignature:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            self.promises.put_off(
                _WITHDRAWAL,
                key,
                carry_out_late,
                failure=exc,
                patience=self.kept_in_memory,
                app_id=app_id,
                openid=withdrawal.openid,
                withdrawn="all" if withdrawal.is_whole else withdrawal.fields,
            )
            raise
        self.promises.note_kept(_WITHDRAWAL, key)  # may wait from an earlier delivery of this message; it is done now
        return has_named_a_user

    async def _carry_out(self, app_id: str, withdrawal: Withdrawal) -> bool:
        now = self.clock()
        async with self.database.begin() as transaction:
            # Only a repeated message is skipped. A late one is carried out, and clears even what was set after it was
            # sent.
            if not await remember_message(transaction, withdrawal.mark, now=now):
                log.info("push_repeated", app_id=app_id)
                return True
            user_id = await lock_user_of(transaction, app_id=app_id, openid=withdrawal.openid)
            is_left = False
            if user_id is None:
                pass  # remembered nevertheless: a repeat must not erase the data of somebody who signs up in between
            elif withdrawal.is_whole:
                # A user merged from several WeChat accounts, by phone number or by an operator, loses only the closed
                # account, and what came with it.
                is_left = await is_joined(transaction, user_id) and await erase_identities(
                    transaction, user_id, app_id=app_id, openid=withdrawal.openid, by=WECHAT, now=now
                )
                if not is_left:
                    # Even the last administrator is erased: the data of a closed account must not be kept, and that
                    # person could
                    # not log in anyway.
                    await erase_user(transaction, user_id, by=WECHAT, now=now)
            else:
                cleared = await clear_fields(transaction, user_id, withdrawal.fields)
                if "phone" in withdrawal.fields:
                    await delete_answers(transaction, user_id)
                record = partial(record_event, transaction, by=WECHAT, at=now, user_id=user_id, app_id=app_id)
                await record(EventType.AUTHORIZATION_REVOKED, data={"fields": withdrawal.fields})
                if "phone" in cleared:
                    await record(EventType.PHONE_REMOVED)
        if user_id is None:
            log.info("push_of_nobody", app_id=app_id)
        elif is_left:
            log.info("identities_erased", user_id=user_id, actor=WECHAT.name, app_id=app_id)
        elif withdrawal.is_whole:
            log.info("user_erased", user_id=user_id, actor=WECHAT.name, app_id=app_id)
        else:
            log.info("authorization_revoked", user_id=user_id, app_id=app_id, fields=withdrawal.fields)
        return user_id is not None
