"""What WeChat pushes: that a person takes back what they gave, or has left WeChat."""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from wxauth.core.background import Background
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.promises import Promises
from wxauth.core.settings import App, Settings
from wxauth.core.trail import WECHAT, EventType, record_event
from wxauth.errors import InvalidRequest, NotFound, StorageUnavailable
from wxauth.people.user_rows import erase_user, lock_user_of
from wxauth.profile.phone_rows import forget_answers
from wxauth.profile.profile_rows import clear_fields
from wxauth.profile.push_rows import remember
from wxauth.wechat.push import Withdrawal, check_signature, read_push

PATIENCE: Final = 1.0
"""Seconds that an answer waits for the database. WeChat waits for five, and sends up to three times."""
KEPT_IN_MEMORY: Final = 3600.0
"""Seconds that what could not be carried out waits for the database to come back."""

_ECHOSTR: Final = re.compile("[ -~]{1,256}")
_WITHDRAWAL: Final = "withdrawal"

log = get_logger()


class Withdrawals:
    """Takes WeChat's messages, and carries out each withdrawal once.

    WeChat stops sending after some seconds, so what fails is put off.

    Args:
        settings: Which apps have a push_token.
        database: Where the users are.
        clock: The time.
        background: Goes on with what WeChat does not wait for any more.
        promises: Keeps what the database did not take.
        patience: Seconds that an answer waits for the database.
        kept_in_memory: Seconds for which to try again.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        *,
        background: Background,
        promises: Promises,
        patience: float = PATIENCE,
        kept_in_memory: float = KEPT_IN_MEMORY,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._background = background
        self._promises = promises
        self._patience = patience
        self._kept_in_memory = kept_in_memory

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
        carrying_out = self._background.start(
            self._carry_out_or_put_off(app_id, withdrawal), name=f"withdrawal in {app_id}"
        )
        try:
            async with asyncio.timeout(self._patience):
                # It goes on: when WeChat comes again, it may have been done.
                await asyncio.shield(carrying_out)
        except TimeoutError as exc:
            raise StorageUnavailable("the database does not answer in the time that WeChat has") from exc

    def _app_with_push(self, app_id: str) -> App:
        app = self._settings.app(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it takes no messages")
        return app

    async def _carry_out_or_put_off(self, app_id: str, withdrawal: Withdrawal) -> None:
        carry_out = partial(self._carry_out, app_id, withdrawal)
        try:
            await carry_out()
        except (Exception, asyncio.CancelledError) as exc:
            self._promises.put_off(
                _WITHDRAWAL,
                withdrawal.mark,
                carry_out,
                failure=exc,
                patience=self._kept_in_memory,
                app_id=app_id,
                openid=withdrawal.openid,
                withdrawn="all" if withdrawal.is_whole else withdrawal.fields,
            )
            raise
        self._promises.take_off(_WITHDRAWAL, withdrawal.mark)  # WeChat came again, and this time it was done

    async def _carry_out(self, app_id: str, withdrawal: Withdrawal) -> None:
        now = self._clock()
        async with self._database.begin() as transaction:
            # What counts is whether it has come before, not when it was written: one that is late is carried out, over
            # what was set since.
            if not await remember(transaction, withdrawal.mark, app_id=app_id, now=now):
                log.info("push_repeated", app_id=app_id)
                return
            user_id = await lock_user_of(transaction, app_id=app_id, openid=withdrawal.openid)
            if user_id is None:
                pass  # remembered nevertheless: whoever comes back must not lose by it what they give then
            elif withdrawal.is_whole:
                # The last administrator too: who has left WeChat may not be kept, and could not log in.
                await erase_user(transaction, user_id, by=WECHAT, now=now)
            else:
                await clear_fields(transaction, user_id, withdrawal.fields)
                if "phone" in withdrawal.fields:
                    await forget_answers(transaction, user_id)
                await record_event(
                    transaction,
                    EventType.AUTHORIZATION_REVOKED,
                    by=WECHAT,
                    at=now,
                    user_id=user_id,
                    app_id=app_id,
                    data={"revoked": withdrawal.fields},
                )
        if user_id is None:
            log.info("push_of_nobody", app_id=app_id)
        elif withdrawal.is_whole:
            log.info("user_erased", user_id=user_id, actor=WECHAT.name, app_id=app_id)
        else:
            log.info("authorization_revoked", user_id=user_id, app_id=app_id, revoked=withdrawal.fields)
