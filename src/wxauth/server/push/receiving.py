"""What WeChat pushes: each message is verified, and carried out if it concerns wxauth."""

import asyncio
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from wxauth.errors import InvalidRequest, NotFound, StorageUnavailable
from wxauth.server.apps.registry import Apps
from wxauth.server.core.background import Background
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.parts import part
from wxauth.server.core.settings import App
from wxauth.server.pictures.picture_checks import PictureChecks
from wxauth.server.push.rows import claim_signature
from wxauth.server.push.withdrawals import Withdrawals
from wxauth.server.wechat.push import (
    WeChatMessage,
    read_handshake,
    read_message,
    verdict_in,
    withdrawal_in,
)

STORAGE_TIMEOUT_SECONDS: Final = 1.0
"""Seconds that a response waits for the database. WeChat waits five seconds, and sends a message up to three times."""

_ECHOSTR: Final = re.compile("[ -~]{1,256}")


@part
class PushedMessages:
    """Receives WeChat's messages.

    Args:
        apps: The apps that get messages.
        database: Where used signatures are.
        clock: The time.
        background: Finishes work that WeChat no longer waits for.
        withdrawals: Carries out withdrawals.
        picture_checks: Carries out verdicts on pictures.
        patience: Seconds that a response waits for the database.
    """

    apps: Apps
    database: Database
    clock: Clock
    background: Background
    withdrawals: Withdrawals
    picture_checks: PictureChecks
    patience: float = STORAGE_TIMEOUT_SECONDS

    async def echo(self, app_id: str, query: Mapping[str, str]) -> str:
        """The response that WeChat expects before it saves a push URL.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest.
        """
        now = self.clock()
        signature = read_handshake(self._app_with_push(app_id), query, now=now)
        await self._in_time(claim_signature(self.database, signature, now=now), name=f"handshake of {app_id}")
        echostr = query.get("echostr", "")
        if not _ECHOSTR.fullmatch(echostr):
            raise InvalidRequest.of("echostr", "Must be 1 to 256 printable characters")
        return echostr

    async def receive(self, app_id: str, query: Mapping[str, str], body: bytes) -> None:
        """Carry out a message. Messages of other kinds, and messages about unknown people, are ignored.

        Raises: UnknownApp, NotFound, InvalidSignature, InvalidRequest.
        """
        message = read_message(self._app_with_push(app_id), query, body, now=self.clock())
        await self._in_time(self._process(message), name=f"message in {app_id}")

    def _app_with_push(self, app_id: str) -> App:
        app = self.apps.find(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it takes no messages")
        return app

    async def _in_time(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Start the work, and wait for it up to `patience`. It continues, and may be done when WeChat sends again."""
        try:
            async with asyncio.timeout(self.patience):
                await asyncio.shield(self.background.start(work, name=name))
        except TimeoutError as exc:
            raise StorageUnavailable("the database does not answer in the time that WeChat has") from exc

    async def _process(self, message: WeChatMessage) -> None:
        now = self.clock()
        try:
            withdrawal = withdrawal_in(message)
            verdict = verdict_in(message) if withdrawal is None and self.picture_checks.are_on else None
        except InvalidRequest:
            # So that nobody reuses the signature of an unreadable message.
            await claim_signature(self.database, message.signature, now=now)
            raise
        if withdrawal is not None:
            await self.withdrawals.carry_out(message, withdrawal)
            return
        await claim_signature(self.database, message.signature, now=now)
        if verdict is not None:
            await self.picture_checks.settle(message.app_id, verdict)
