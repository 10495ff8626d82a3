"""What WeChat pushes: that a person takes back what they gave, or has left WeChat."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from wxauth.clock import Clock
from wxauth.errors import InvalidRequest, NotFound, StorageUnavailable
from wxauth.logs import get_logger
from wxauth.settings import AppSettings, Settings
from wxauth.store import users
from wxauth.store.database import Database
from wxauth.store.events import WECHAT, EventType, NewEvent, record_event
from wxauth.store.phone_answers import forget_answers
from wxauth.store.push_messages import remember
from wxauth.wechat.push import Withdrawal, check_signature, read_push

PATIENCE: Final = 1.0
"""Seconds that an answer waits for the database. WeChat waits for five, and sends up to three times."""
KEPT_IN_MEMORY: Final = 3600.0
"""Seconds that what could not be carried out waits for the database to come back."""
KEPT_AT_MOST: Final = 10_000
RETRY_PAUSE: Final = 1.0
"""Seconds between two tries."""
FAREWELL: Final = 2.0
"""Seconds for what is still to do when the service ends."""

_ECHOSTR: Final = re.compile("[ -~]{1,256}")

log = get_logger()


@dataclass(frozen=True, slots=True)
class _PutOff:
    app_id: str
    withdrawal: Withdrawal
    since: float
    """In the loop's time."""


class Withdrawals:
    """Takes WeChat's messages, and carries out each withdrawal once.

    WeChat stops sending after some seconds, so what fails is tried again from memory; there it is lost if the process
    is killed.

    Args:
        settings: Which apps have a push_token.
        database: Where the users are.
        clock: The time.
        patience: Seconds that an answer waits for the database.
        kept_in_memory: Seconds for which to try again.
        retry_pause: Seconds between two tries.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        *,
        patience: float = PATIENCE,
        kept_in_memory: float = KEPT_IN_MEMORY,
        retry_pause: float = RETRY_PAUSE,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._patience = patience
        self._kept_in_memory = kept_in_memory
        self._retry_pause = retry_pause
        self._under_way: set[asyncio.Task[None]] = set()
        self._put_off: dict[bytes, _PutOff] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._is_closing = False

    def echo(self, app_id: str, query: Mapping[str, str]) -> str:
        """What WeChat wants to read, before it saves the URL that an operator has given it.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest.
        """
        app = self._app_with_push(app_id)
        assert app.push_token is not None
        check_signature(app.push_token, query, name="signature")
        echostr = query.get("echostr", "")
        if not _ECHOSTR.fullmatch(echostr):
            raise InvalidRequest.of("echostr", "Wants 1 to 256 printable characters")
        return echostr

    async def receive(self, app_id: str, query: Mapping[str, str], body: bytes) -> None:
        """Carry out what a message says. One that is nothing to us, or nobody's here, is no failure.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest, StorageUnavailable.
        """
        app = self._app_with_push(app_id)
        withdrawal = read_push(app, query, body)
        if withdrawal is None:
            return
        try:
            async with asyncio.timeout(self._patience):
                # It goes on: when WeChat comes again, it may have been done.
                await asyncio.shield(self._begin(app_id, withdrawal))
        except TimeoutError as exc:
            raise StorageUnavailable("the database does not answer in the time that WeChat has") from exc

    async def aclose(self) -> None:
        """Carry out what can be carried out in a moment, and leave the rest."""
        self._is_closing = True
        if self._retrying is not None:
            self._retrying.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await asyncio.gather(*self._under_way, return_exceptions=True)
                await self._try_again()
        await asyncio.gather(*self._under_way, return_exceptions=True)  # cancelled by then
        if self._put_off:
            log.error("withdrawals_lost", withdrawals=len(self._put_off), reason="the service has ended")

    def _app_with_push(self, app_id: str) -> AppSettings:
        app = self._settings.app(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it takes no messages")
        return app

    def _begin(self, app_id: str, withdrawal: Withdrawal) -> asyncio.Task[None]:
        """Carry it out in a task of its own, though there may be one: that may wait for a database that has gone."""
        task = asyncio.create_task(self._carry_out(app_id, withdrawal), name=f"withdrawal in {app_id}")
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._settle(app_id, withdrawal, task))
        return task

    def _settle(self, app_id: str, withdrawal: Withdrawal, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failure is None:
            self._put_off.pop(withdrawal.mark, None)
        elif withdrawal.mark not in self._put_off:
            self._keep(app_id, withdrawal, failure)

    def _keep(self, app_id: str, withdrawal: Withdrawal, failure: BaseException) -> None:
        if len(self._put_off) >= KEPT_AT_MOST:
            log.error("withdrawals_lost", withdrawals=1, reason="too many have been put off")
            return
        self._put_off[withdrawal.mark] = _PutOff(app_id, withdrawal, since=_now())
        # Enough to make up for it by hand, should it be lost.
        what = "all" if withdrawal.is_whole else withdrawal.fields
        log.error(
            "withdrawal_put_off",
            app_id=app_id,
            openid=withdrawal.openid,
            withdrawn=what,
            reason=type(failure).__name__,
            exc_info=failure if _is_fault(failure) else None,
        )
        if not self._is_closing and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        while self._put_off:
            await asyncio.sleep(self._retry_pause)
            await self._try_again()
            too_old = [mark for mark, kept in self._put_off.items() if _now() - kept.since > self._kept_in_memory]
            for mark in too_old:
                del self._put_off[mark]
            if too_old:
                reason = "the database was away for too long"
                log.error("withdrawals_lost", withdrawals=len(too_old), reason=reason)

    async def _try_again(self) -> None:
        for kept in list(self._put_off.values()):
            try:
                await self._begin(kept.app_id, kept.withdrawal)
            except StorageUnavailable:
                return
            except Exception as exc:
                log.debug("withdrawal_put_off_again", app_id=kept.app_id, reason=type(exc).__name__)

    async def _carry_out(self, app_id: str, withdrawal: Withdrawal) -> None:
        now = self._clock()
        async with self._database.begin() as transaction:
            # What counts is whether it has come before, not when it was written: one that is late is carried out, over
            # what was set since.
            if not await remember(transaction, withdrawal.mark, app_id=app_id, now=now):
                log.info("push_repeated", app_id=app_id)
                return
            user_id = await users.lock_user_of(transaction, app_id=app_id, openid=withdrawal.openid)
            if user_id is None:
                pass  # remembered nevertheless: whoever comes back must not lose by it what they give then
            elif withdrawal.is_whole:
                # The last administrator too: who has left WeChat may not be kept, and could not log in.
                await users.erase_whoever(transaction, user_id, actor=WECHAT, now=now)
            else:
                await users.clear_fields(transaction, user_id, withdrawal.fields)
                if "phone" in withdrawal.fields:
                    await forget_answers(transaction, user_id)
                event = NewEvent(
                    type=EventType.AUTHORIZATION_REVOKED,
                    at=now,
                    actor=WECHAT,
                    user_id=user_id,
                    app_id=app_id,
                    data={"revoked": withdrawal.fields},
                )
                await record_event(transaction, event)
        if user_id is None:
            log.info("push_of_nobody", app_id=app_id)
        elif withdrawal.is_whole:
            log.info("user_erased", user_id=user_id, actor=WECHAT, app_id=app_id)
        else:
            log.info("authorization_revoked", user_id=user_id, app_id=app_id, revoked=withdrawal.fields)


def _is_fault(failure: BaseException) -> bool:
    """Whether it is ours, rather than the state of the database or the end of the service."""
    return not isinstance(failure, StorageUnavailable | asyncio.CancelledError)


def _now() -> float:
    return asyncio.get_running_loop().time()
