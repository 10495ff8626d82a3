"""WeChat's pushed messages: withdrawn data, closed WeChat accounts, and verdicts on pictures."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from wxauth.errors import InvalidRequest, InvalidSignature, NotFound, StorageUnavailable
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.promises import Promises
from wxauth.server.core.settings import App
from wxauth.server.core.trail import WECHAT, EventType, record_event
from wxauth.server.phones.rows import delete_answers
from wxauth.server.pictures.picture_checks import PictureChecks
from wxauth.server.push.rows import claim_signature, remember_message
from wxauth.server.users.erasing import erase_identities, erase_user
from wxauth.server.users.merging_rows import is_joined
from wxauth.server.users.user_rows import clear_fields, lock_user_of
from wxauth.server.wechat.push import (
    PushSignature,
    WeChatMessage,
    Withdrawal,
    read_handshake,
    read_message,
    verdict_in,
    withdrawal_in,
)

WITHDRAWAL_TIMEOUT_SECONDS: Final = 1.0
"""Seconds that a response waits for the database. WeChat waits five seconds, and sends a message up to three times."""
KEPT_IN_MEMORY_SECONDS: Final = 3600.0
"""Seconds that a withdrawal waits in memory for the database to recover."""

_ECHOSTR: Final = re.compile("[ -~]{1,256}")
_WITHDRAWAL: Final = "withdrawal"

log = get_logger()


class Withdrawals:
    """Receives WeChat's messages, and carries out each withdrawal once.

    WeChat stops resending after some seconds, so a withdrawal that fails is kept and retried.

    Args:
        find_app: Returns the app of an id. Raises: UnknownApp.
        database: Where the users are.
        clock: The time.
        background: Finishes work that WeChat no longer waits for.
        promises: Retries withdrawals that could not be stored.
        picture_checks: Carries out verdicts on pictures.
        patience: Seconds that a response waits for the database.
        kept_in_memory: Seconds for which a failed withdrawal is retried.
    """

    def __init__(
        self,
        find_app: Callable[[str], App],
        database: Database,
        clock: Clock,
        *,
        background: Background,
        promises: Promises,
        picture_checks: PictureChecks,
        patience: float = WITHDRAWAL_TIMEOUT_SECONDS,
        kept_in_memory: float = KEPT_IN_MEMORY_SECONDS,
    ) -> None:
        self._find_app = find_app
        self._database = database
        self._clock = clock
        self._background = background
        self._promises = promises
        self._picture_checks = picture_checks
        self._patience = patience
        self.kept_in_memory = kept_in_memory

    async def echo(self, app_id: str, query: Mapping[str, str]) -> str:
        """The response that WeChat expects before it saves a push URL.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest, StorageUnavailable.
        """
        signature = read_handshake(self._app_with_push(app_id), query, now=self._clock())
        await self._in_time(self._claim_signature(signature), name=f"handshake of {app_id}")
        echostr = query.get("echostr", "")
        if not _ECHOSTR.fullmatch(echostr):
            raise InvalidRequest.of("echostr", "Must be 1 to 256 printable characters")
        return echostr

    async def receive(self, app_id: str, query: Mapping[str, str], body: bytes) -> None:
        """Carry out a message. Messages of other kinds, and messages about unknown people, are ignored.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest, StorageUnavailable.
        """
        message = read_message(self._app_with_push(app_id), query, body, now=self._clock())
        await self._in_time(self._process(message), name=f"message in {app_id}")

    def _app_with_push(self, app_id: str) -> App:
        app = self._find_app(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it takes no messages")
        return app

    async def _in_time(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Start the work, and wait for it up to `patience`. It continues, and may be done when WeChat sends again."""
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(self._background.start(work, name=name))
        except TimeoutError as exc:
            raise StorageUnavailable("the database does not answer in the time that WeChat has") from exc

    async def _process(self, message: WeChatMessage) -> None:
        try:
            withdrawal = withdrawal_in(message)
            verdict = verdict_in(message) if withdrawal is None and self._picture_checks.are_on else None
        except InvalidRequest:
            # So that nobody reuses the signature of an unreadable message.
            await self._claim_signature(message.signature)
            raise
        if withdrawal is not None:
            await self._carry_out_or_postpone(message, withdrawal)
            return
        await self._claim_signature(message.signature)
        if verdict is not None:
            await self._picture_checks.settle(message.app_id, verdict)

    async def _claim_signature(self, signature: PushSignature) -> None:
        """Bind a signature to this message, across all replicas.

        Raises: InvalidSignature, StorageUnavailable.
        """
        if not await claim_signature(self._database, signature, now=self._clock()):
            raise InvalidSignature("this timestamp and nonce came with another message, or with the check of the URL")

    async def _carry_out_or_postpone(self, message: WeChatMessage, withdrawal: Withdrawal) -> None:
        # The key is the signature, so that a message with a captured signature cannot replace another withdrawal.
        app_id, key = message.app_id, message.signature.digest

        async def carry_out() -> None:
            await self._claim_signature(message.signature)
            await self._carry_out(app_id, withdrawal)

        async def carry_out_late() -> None:
            try:
                await carry_out()
            except InvalidSignature as exc:  # WeChat has had its response already, so this can only be logged
                log.error("push_refused", app_id=app_id, openid=withdrawal.openid, reason=exc.detail)

        try:
            await carry_out()
        except InvalidSignature:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            self._promises.put_off(
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
        self._promises.note_kept(_WITHDRAWAL, key)  # may wait from an earlier delivery of this message; it is done now

    async def _carry_out(self, app_id: str, withdrawal: Withdrawal) -> None:
        now = self._clock()
        async with self._database.begin() as transaction:
            # Only a repeated message is skipped. A late one is carried out, and clears even what was set after it was
            # sent.
            if not await remember_message(transaction, withdrawal.mark, app_id=app_id, now=now):
                log.info("push_repeated", app_id=app_id)
                return
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
