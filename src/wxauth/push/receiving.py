"""The verification and handling of the messages that WeChat pushes."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeVar

from wxauth.apps.registry import Apps
from wxauth.core.background import Background, Retries
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import OncePerDay, get_logger
from wxauth.core.metrics import Counter
from wxauth.core.services import part
from wxauth.errors import InvalidSignature, NotFound, PushNotForwarded, StorageUnavailable
from wxauth.push.erasing import Erasure
from wxauth.push.forwarding import PushAnswer, PushForwarding, PushRequest
from wxauth.push.queries import REMEMBER_WITHDRAWAL, WITHDRAWALS_KEPT, claim_signature
from wxauth.settings.apps import App
from wxauth.users.user_queries import lock_user_of_identity
from wxauth.wechat.messages import (
    MessageKind,
    WeChatMessage,
    Withdrawal,
    check_signature,
    read_handshake,
    read_message,
    withdrawal_in,
)
from wxauth_guard.errors import InvalidRequest

KEPT_IN_MEMORY_SECONDS: Final = 3600.0  # while the database is unavailable
STORAGE_TIMEOUT_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 4.0  # WeChat waits five seconds for a response
MESSAGES: Final = Counter(
    "wxauth_push_messages",
    "Messages that WeChat pushed, by app, kind (withdrawal, payment, customer_service, other) and outcome: "
    "forwarded, not_forwarded, refused; without push_forward done, or ignored.",
    "app_id",
    "kind",
    "outcome",
)

LONG_MESSAGES_AT_ONCE: Final = 64  # above `MAX_BODY` (web/edge.py), or of unknown length
_ECHOSTR: Final = re.compile("[ -~]{1,256}")  # it is returned to the sender, so nothing unusual is accepted
WRONG_ECHOSTR: Final = "Must be 1 to 256 printable characters"
_WITHDRAWAL: Final = "withdrawal"

log = get_logger()

Result = TypeVar("Result")


@dataclass(slots=True)
class _Counted:
    kind: MessageKind = MessageKind.OTHER
    outcome: Literal["forwarded", "not_forwarded", "refused", "done", "ignored"] = "refused"


@part
class PushedMessages:
    """The part that receives the messages that WeChat pushes.

    A response waits for the database for up to `patience` seconds, and a failed withdrawal is retried for
    `kept_in_memory`.
    """

    apps: Apps
    database: Database
    clock: Clock
    background: Background
    retries: Retries
    forwarding: PushForwarding
    patience: float = STORAGE_TIMEOUT_SECONDS
    kept_in_memory: float = KEPT_IN_MEMORY_SECONDS
    _long_messages: asyncio.Semaphore = field(
        init=False, default_factory=partial(asyncio.Semaphore, LONG_MESSAGES_AT_ONCE)
    )
    _warned: OncePerDay = field(init=False, default_factory=OncePerDay)  # by app and message name

    async def echo(self, app_id: str, query: Mapping[str, str]) -> str:
        """Return what WeChat expects when it checks a push URL, before it saves the URL.

        Raises: UnknownApp; NotFound, if the app has no push_token; InvalidSignature; InvalidRequest;
        StorageUnavailable.
        """
        now = self.clock()
        signature = read_handshake(self._app_with_push(app_id), query, now=now)
        # The signature is claimed even if `echostr` is malformed, so that nobody can use the signature for a message.
        await self._in_time(claim_signature(self.database, signature, now=now), name=f"handshake of {app_id}")
        echostr = query.get("echostr", "")
        if not _ECHOSTR.fullmatch(echostr):
            raise InvalidRequest.of("echostr", WRONG_ECHOSTR)
        return echostr

    async def receive(
        self, app_id: str, query: Mapping[str, str], read: Callable[[], Awaitable[PushRequest]], *, is_long: bool
    ) -> PushAnswer:
        """Carry out a message if it concerns wxauth, and forward it if the app has a `push_forward`.

        `read` reads the request after the query has been checked. With `is_long`, the body might exceed `MAX_BODY`.

        Raises: as `echo`; PushNotForwarded; the errors of `read`.
        """
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        counted = _Counted()
        try:
            app = self._app_with_push(app_id)
            check_signature(app, query, now=self.clock())
            request = await self._read(read, is_long=is_long)
            # For an encrypted message, `read_message` checks the timestamp again, after the body has arrived.
            message = read_message(app, query, request.body, now=self.clock())
            is_done = await self._carry_out(app, message, counted)
            if app.push_forward is not None:
                counted.outcome = "not_forwarded"
                answer = await self.forwarding.forward(app_id, request, url=app.push_forward, deadline=deadline)
                counted.outcome = "forwarded"
                return answer
            counted.outcome = "done" if is_done else "ignored"
            return PushAnswer()
        finally:
            MESSAGES.count(self.apps.label_of(app_id), counted.kind, counted.outcome)

    async def _read(self, read: Callable[[], Awaitable[PushRequest]], *, is_long: bool) -> PushRequest:
        if not is_long:
            return await read()
        # The number is limited, because a client that has seen a valid query can use it again for five minutes.
        if self._long_messages.locked():
            raise PushNotForwarded(f"{LONG_MESSAGES_AT_ONCE} long messages are already being received")
        async with self._long_messages:
            return await read()

    async def _carry_out(self, app: App, message: WeChatMessage, counted: _Counted) -> bool:
        """Return whether the message is a withdrawal that is done. `counted.kind` is set even after an exception."""
        counted.kind = message.kind_if_ignored
        try:
            if not message.is_readable and app.push_forward is None:  # the app's own handler might understand the body
                raise InvalidRequest.of("body", "Neither a JSON object nor XML without a DTD")
            withdrawal = withdrawal_in(message)
        except InvalidRequest:
            await self._claim_signature(message)
            raise
        if withdrawal is None:
            await self._claim_signature(message)
            if message.unknown_code is not None:
                log.warning("revocation_not_understood", app_id=app.app_id, code=message.unknown_code)
            elif app.push_forward is None:
                self._warn_of_ignored(message)
            return False
        counted.kind = MessageKind.WITHDRAWAL
        is_done = await self._in_time(self._withdraw(message, withdrawal), name=_task_name(message))
        if not is_done:
            counted.kind = message.kind_if_ignored
        return is_done

    async def _claim_signature(self, message: WeChatMessage) -> None:
        # The signature of an encrypted message covers the content. Without a claim, it is forwarded even while the
        # database is away.
        if not message.was_encrypted:
            claim = claim_signature(self.database, message.signature, now=self.clock())
            await self._in_time(claim, name=_task_name(message))

    def _warn_of_ignored(self, message: WeChatMessage) -> None:
        if self._warned.claim((message.app_id, message.name), self.clock().date()):
            advice = "no service receives this message: set the app's push_forward to the URL of a service that does"
            log.warning("push_ignored", app_id=message.app_id, message=message.name, what_to_change=advice)

    async def _withdraw(self, message: WeChatMessage, withdrawal: Withdrawal) -> bool:
        # The key is the signature, so that a message with a captured signature cannot replace another withdrawal.
        key = message.signature.digest
        try:
            is_done = await self._claim_and_erase(message, withdrawal)
        except InvalidSignature:  # the signature belongs to another message, so a retry would be refused, too
            raise
        except (Exception, asyncio.CancelledError) as exc:  # WeChat soon stops resending the message
            self.retries.put_off(
                _WITHDRAWAL,
                key,
                partial(self._retry_withdrawal, message, withdrawal),
                failure=exc,
                patience=self.kept_in_memory,
                app_id=message.app_id,
                openid=withdrawal.openid,
                withdrawn=withdrawal.fields or withdrawal.kind,
            )
            raise
        # An earlier delivery of this message might have failed. The retry of that delivery is no longer needed.
        self.retries.note_done(_WITHDRAWAL, key)
        return is_done

    async def _retry_withdrawal(self, message: WeChatMessage, withdrawal: Withdrawal) -> None:
        try:
            await self._claim_and_erase(message, withdrawal)
        except InvalidSignature as exc:
            # WeChat has already received its response, so only the log can report this.
            log.error("push_refused", app_id=message.app_id, openid=withdrawal.openid, reason=exc.detail)

    async def _claim_and_erase(self, message: WeChatMessage, withdrawal: Withdrawal) -> bool:
        """Return False if the withdrawal names no known user: it may concern another service."""
        app_id, now = message.app_id, self.clock()
        await claim_signature(self.database, message.signature, now=now)
        async with self.database.begin() as transaction:
            # Only a repeated message is skipped. A late message is carried out, and clears even data that the user
            # entered after WeChat had sent the message.
            until = now + WITHDRAWALS_KEPT
            if await transaction.value(REMEMBER_WITHDRAWAL, digest=withdrawal.digest, until=until) is None:
                log.info("push_repeated", app_id=app_id)
                return True
            user_id = await lock_user_of_identity(transaction, app_id=app_id, openid=withdrawal.openid)
            if user_id is not None:
                line = await Erasure(transaction, user_id, app_id, withdrawal, now).carry_out()
            # The transaction is committed even if the message names no known user. Otherwise, a repetition of the
            # message could erase the data of a user who signs up in the meantime.
        if user_id is None:
            log.info("withdrawal_of_nobody", app_id=app_id)
            return False
        log.info(line.event, user_id=user_id, app_id=app_id, **line.fields)
        return True

    def _app_with_push(self, app_id: str) -> App:
        app = self.apps.find(app_id)
        if app.push_token is None:
            raise NotFound("this app has no push_token, so it doesn't accept messages")
        return app

    async def _in_time(self, work: Coroutine[Any, Any, Result], *, name: str) -> Result:
        try:
            async with asyncio.timeout(self.patience):
                return await asyncio.shield(self.background.start(work, name=name))
        except TimeoutError as exc:
            # The work goes on, and may be done when WeChat sends the message again, which it does up to two times.
            raise StorageUnavailable("the database doesn't respond within the time that WeChat allows") from exc


def _task_name(message: WeChatMessage) -> str:
    return f"message in {message.app_id}"
