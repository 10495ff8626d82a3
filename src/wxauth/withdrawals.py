"""What WeChat pushes: that a person takes back what they gave, or has left WeChat."""

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from wxauth.clock import Clock
from wxauth.errors import FieldError, InvalidRequest, NotFound, StorageUnavailable
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

_ECHOSTR: Final = re.compile("[ -~]{1,256}")

log = get_logger()


class Withdrawals:
    """Takes WeChat's messages, and carries out each withdrawal once.

    Args:
        settings: Which apps have a push_token.
        database: Where the users are.
        clock: The time.
    """

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    def echo(self, app_id: str, query: Mapping[str, str]) -> str:
        """What WeChat wants to read, before it saves the URL that an operator has given it.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest.
        """
        app = self._app_with_push(app_id)
        assert app.push_token is not None
        check_signature(app.push_token, query, name="signature")
        echostr = query.get("echostr", "")
        if not _ECHOSTR.fullmatch(echostr):
            message = "Wants 1 to 256 printable characters"
            raise InvalidRequest(f"echostr: {message}", errors=[FieldError("echostr", message)])
        return echostr

    async def receive(self, app_id: str, query: Mapping[str, str], body: bytes) -> None:
        """Carry out what a message says. One that is nothing to us, or nobody's here, is no failure.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest, StorageUnavailable.
        """
        app = self._app_with_push(app_id)
        withdrawal = read_push(app, query, body)
        if withdrawal is None:
            return
        task = asyncio.create_task(self._carry_out(app_id, withdrawal), name=f"withdrawal in {app_id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(task)  # it goes on: when WeChat comes again, it may have been done
        except TimeoutError as exc:
            raise StorageUnavailable("the database does not answer in the time that WeChat has") from exc

    async def aclose(self) -> None:
        """Leave what is under way; WeChat has been told to come again."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _app_with_push(self, app_id: str) -> AppSettings:
        app = self._settings.app(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it takes no messages")
        return app

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
