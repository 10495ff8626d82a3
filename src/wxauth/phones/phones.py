"""The exchange of the phone button's codes with WeChat, and the binding of the numbers to users and their removal.

WeChat returns a number only once per tap, and each costs money, so its response is stored before anything that can
fail.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.core.background import Retries, cancel, retrieve_exception
from wxauth.core.clock import Clock
from wxauth.core.database import PREVENTED_BY_OTHERS, Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, phone_answer_context
from wxauth.core.services import part
from wxauth.core.trail import Actor
from wxauth.core.users import UserInSession
from wxauth.limits.concurrency import RETRY_AFTER_SECONDS, Concurrency, Places
from wxauth.limits.queries import PHONE_CODES
from wxauth.phones import queries
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.users.admin import locked_remaining
from wxauth.users.callers import Caller, locked_caller
from wxauth.users.user_queries import remove_phone
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.errcodes import OPENID_MISMATCH
from wxauth.wechat.received import e164_of
from wxauth_guard.errors import InvalidToken

# WeChat might have charged already, so a late response is stored for the next request with the code.
_LATE_ANSWER_SECONDS: Final = 30.0
KEPT_IN_MEMORY_SECONDS: Final = 600.0  # while the database is unavailable
# The request that fetched a younger response might still be about to bind the number.
UNTOUCHED_FOR: Final = timedelta(minutes=1)

# If this API hangs, so many calls still leave some of the connections (`DEFAULT_MAX_CONNECTIONS`) to logins.
MAX_CALLS_IN_PROGRESS: Final = 200
# An honest user's taps and retries cause fewer requests and calls at a time.
MAX_IN_PROGRESS_OF_IDENTITY: Final = 20
# This is less than `_LATE_ANSWER_SECONDS`, because a process that ends too slowly is killed (`END_SECONDS`).
FAREWELL_SECONDS: Final = 6.0

# After each pause, this process checks whether another process has stored the response. Together, the pauses are longer
# than the one after which the other process retries a failed storage (`RETRY_PAUSE_SECONDS` in `core/background.py`).
PAUSES_FOR_OTHERS_SECONDS: Final = (0.0, 0.1, 0.4, 1.0)
_KIND_OF_RETRY: Final = "phone_answer"
_USER_IS_GONE: Final = "the user has just been banned or erased, or has requested erasure"
_NOT_CAUSED_BY_CODE: Final = (errors.WeChatMisconfigured, errors.WeChatRateLimited, errors.WeChatUnavailable)

log = get_logger()


@dataclass(frozen=True, slots=True)
class _SentCode:
    app: App
    openid: str
    code: str = field(repr=False)
    asked_at: datetime

    @property
    def identity(self) -> tuple[str, str]:
        return self.app.app_id, self.openid

    @property
    def hash(self) -> bytes:
        return sha256("\0".join((*self.identity, self.code)).encode()).digest()


@dataclass(frozen=True, slots=True)
class _Call:
    fetch: asyncio.Task[Mapping[str, Any]]
    storage: asyncio.Task[None]  # ends after `fetch`, and fails if `fetch` fails


@part
class Phones:
    database: Database
    sealer: Sealer
    wechat_api: WeChatApi
    clock: Clock
    retries: Retries
    settings: Settings
    apps: Apps
    concurrency: Concurrency
    kept_in_memory_seconds: float = KEPT_IN_MEMORY_SECONDS
    pauses_for_others_seconds: Sequence[float] = PAUSES_FOR_OTHERS_SECONDS
    farewell_seconds: float = FAREWELL_SECONDS
    _in_progress: Places[tuple[str, str]] = field(
        init=False,
        default_factory=partial(
            Places, per_holder=MAX_IN_PROGRESS_OF_IDENTITY, detail="this user has sent too many phone codes at once"
        ),
    )  # by app_id and openid
    _calls: dict[bytes, _Call] = field(init=False, default_factory=dict)  # by the hash of the code
    _has_logged_unopened: bool = field(init=False, default=False)

    async def bind(self, user: UserInSession, code: str) -> UserInSession:
        """Bind the number behind a code. If the identity sends the code again, use WeChat's stored response.

        Raises: InvalidCode, if the user must tap again; PhoneTaken; InvalidToken, if the user has just been banned or
            erased, or is about to be erased, or if the identity has just moved.
        """
        app = self.apps.find(user.app_id)
        if not app.is_mini_program:
            raise errors.WrongAppKind("only mini-programs have the phone number button")
        sent = _SentCode(app, user.openid, code, asked_at=self.clock())
        with self._in_progress.place(sent.identity):
            answer = await self._find_or_fetch(sent)
            if isinstance(answer, UserInSession):  # the number is bound already
                return answer
            outcome = await self._bind_in_turn(answer, user.id)
        match outcome:
            case queries.PhoneRefusal.TAKEN:
                raise errors.PhoneTaken("this number belongs to another user")
            case queries.PhoneRefusal.WITHDRAWN:
                raise errors.InvalidCode("the number was withdrawn or removed after the user shared it: tap again")
            case queries.PhoneRefusal():  # never `OUTDATED`, which only a late binding can return
                raise InvalidToken(_USER_IS_GONE)
        return outcome

    async def _bind_in_turn(
        self, answer: queries.UnsettledAnswer, user_id: UUID
    ) -> UserInSession | queries.PhoneRefusal:
        # The requests of one user queue here, because each would otherwise occupy one of the few transactions while it
        # waits for the user's lock. The identity takes the place of a session, because a response names no session.
        try:
            async with self.concurrency.of_session((answer.app_id, answer.openid), user_id):
                return await self._bind(answer)
        except CannotOpen as exc:
            _log_unopened(answer.app_id, exc)
            raise errors.InvalidCode("WeChat's response to this code can't be read now: tap again") from exc

    async def bind_pending(self, *, size: int) -> None:
        """Bind the numbers in the `size` oldest responses that are left, for example after a crash."""
        untouched_since = self.clock() - UNTOUCHED_FOR
        for answer in await self.database.rows(queries.PENDING_ANSWERS, asked_before=untouched_since, size=size):
            try:
                await self._bind(answer, is_late=True)
            except errors.WeChatBadResponse:
                pass  # the refusal has been stored and logged
            except PREVENTED_BY_OTHERS as exc:
                log.warning("phone_binding_put_off", app_id=answer.app_id, reason=type(exc).__name__)
            except CannotOpen as exc:
                # The response stays pending for a process that has the right secret key.
                if not self._has_logged_unopened:
                    self._has_logged_unopened = True
                    _log_unopened(answer.app_id, exc)

    async def aclose(self) -> None:
        """Wait up to `farewell_seconds` until WeChat's responses are stored. Cancel the remaining calls."""
        if self._calls:
            await asyncio.wait([call.storage for call in self._calls.values()], timeout=self.farewell_seconds)
        remaining = list(self._calls.values())
        unanswered = [call for call in remaining if not call.fetch.done()]
        if unanswered:
            reason = "the service stopped before WeChat responded"
            log.error("phone_answers_lost", answers=len(unanswered), reason=reason)
        await cancel(task for call in remaining for task in (call.fetch, call.storage))

    async def _find_or_fetch(self, sent: _SentCode) -> queries.UnsettledAnswer | UserInSession:
        # This process might still hold the response in memory, because the database was down.
        await self.retries.run_now(_KIND_OF_RETRY, sent.hash)
        answer = await queries.find_answer(self.database, sent.hash)
        if answer is not None:
            return answer
        try:
            await self._fetch(sent)
        except (errors.InvalidCode, errors.CodeUsed) as exc:
            if exc.errcode in OPENID_MISMATCH:
                raise  # another process cannot have used up the code, because it belongs to another app or user
            # Another process might have used up the code, and might be about to store the response.
            answer = await self._find_from_others(sent.hash)
            if answer is None:
                raise
            return answer
        answer = await queries.find_answer(self.database, sent.hash)
        if answer is None:  # an erasure of the user has deleted the response
            raise InvalidToken(_USER_IS_GONE)
        return answer

    async def _find_from_others(self, code_hash: bytes) -> queries.UnsettledAnswer | UserInSession | None:
        for pause in self.pauses_for_others_seconds:
            await asyncio.sleep(pause)
            answer = await queries.find_answer(self.database, code_hash)
            if answer is not None:
                return answer
        return None

    async def _fetch(self, sent: _SentCode) -> None:
        call = self._calls.get(sent.hash)  # simultaneous requests with the same code share one call
        if call is None:
            call = self._start_call(sent)
        timeout = self.settings.wechat_timeout
        await asyncio.wait({call.fetch}, timeout=timeout)
        if not call.fetch.done():
            raise errors.WeChatTimeout(f"WeChat didn't respond within {timeout:g} s: send the same code again")
        await asyncio.shield(call.storage)

    def _start_call(self, sent: _SentCode) -> _Call:
        if len(self._calls) >= MAX_CALLS_IN_PROGRESS:
            raise errors.RateLimited("too many phone number requests are in progress", retry_after=RETRY_AFTER_SECONDS)
        # The call and the storage are separate tasks, because they must finish even if this request is cancelled, or
        # has been answered before WeChat responds.
        fetch = asyncio.create_task(self._exchange(sent))
        storage = asyncio.create_task(self._store_when_fetched(fetch, sent))
        call = _Call(fetch, storage)
        self._calls[sent.hash] = call
        self._in_progress.take(sent.identity)  # a second place, because the call can outlast this request
        storage.add_done_callback(lambda _task: self._forget_call(sent))
        storage.add_done_callback(retrieve_exception)
        return call

    async def _exchange(self, sent: _SentCode) -> Mapping[str, Any]:
        # Counting before the call keeps simultaneous calls from exceeding the limit.
        await PHONE_CODES.count(self.database, *sent.identity, now=self.clock())
        checked_openid = sent.openid if self.settings.phone_check_openid else None
        try:
            return await self.wechat_api.phone_number(
                sent.app, sent.code, openid=checked_openid, extra_seconds=_LATE_ANSWER_SECONDS
            )
        except errors.WeChatError as exc:
            # Without an errcode, WeChat has not judged the code.
            if exc.errcode is None or isinstance(exc, _NOT_CAUSED_BY_CODE):
                await PHONE_CODES.uncount(self.database, *sent.identity)
            raise

    def _forget_call(self, sent: _SentCode) -> None:
        self._in_progress.give_back(sent.identity)
        del self._calls[sent.hash]

    async def _store_when_fetched(self, fetch: asyncio.Task[Mapping[str, Any]], sent: _SentCode) -> None:
        phone_info = await fetch
        app_id = sent.app.app_id
        answer = queries.UnsettledAnswer(
            code_hash=sent.hash,
            app_id=app_id,
            openid=sent.openid,
            sealed=self.sealer.seal(to_json(phone_info), context=phone_answer_context(sent.hash)),
            asked_at=sent.asked_at,
        )
        store = partial(self._store, answer)
        try:
            await store()
        except (Exception, asyncio.CancelledError) as exc:  # `aclose` cancels the storage, and `retries` closes later
            self.retries.put_off(
                _KIND_OF_RETRY, sent.hash, store, failure=exc, patience=self.kept_in_memory_seconds, app_id=app_id
            )
            raise

    async def _store(self, answer: queries.UnsettledAnswer) -> None:
        if not await queries.add_answer(self.database, answer):
            log.info("phone_answer_dropped", app_id=answer.app_id, reason="the user has been erased")

    async def _bind(
        self, answer: queries.UnsettledAnswer, *, is_late: bool = False
    ) -> UserInSession | queries.PhoneRefusal:
        """With `is_late`, the request that fetched the response has ended, so users are not merged."""
        now = self.clock()
        phone = await self._open_phone(answer, now=now)
        policy = self.settings.phone_policy
        outcome = await queries.bind_phone(self.database, answer, phone, policy=policy, is_late=is_late, now=now)
        if outcome is queries.PhoneRefusal.TAKEN and policy == "link" and not is_late:
            outcome = await self._link(answer, phone, now=now)
        if isinstance(outcome, queries.PhoneRefusal):
            log.warning("phone_not_bound", app_id=answer.app_id, reason=outcome, is_late=is_late)
        else:
            log.info("phone_bound", user_id=outcome.id, app_id=answer.app_id, is_late=is_late)
        return outcome

    async def _open_phone(self, answer: queries.UnsettledAnswer, *, now: datetime) -> str:
        phone_info = self.sealer.open(answer.sealed, context=phone_answer_context(answer.code_hash))
        try:
            return e164_of(from_json(phone_info), app_id=answer.app_id)
        except errors.WeChatBadResponse as exc:
            log.error("phone_answer_unusable", app_id=answer.app_id, reason=exc.detail)
            await self.database.run(queries.REFUSE_ANSWER, code_hash=answer.code_hash, now=now)
            raise

    async def _link(
        self, answer: queries.UnsettledAnswer, phone: str, *, now: datetime
    ) -> UserInSession | queries.PhoneRefusal:
        linked = await queries.link_phone(
            self.database,
            answer,
            phone,
            verified_since=now - timedelta(days=self.settings.link_phone_days),
            harmless_roles=self.apps.roles_of_new_users(),
            now=now,
        )
        if linked is None:
            # If another request has just linked the users, the number can be bound now. Otherwise, it is refused again.
            return await queries.bind_phone(self.database, answer, phone, policy="link", is_late=False, now=now)
        user, merged = linked
        merged.report()
        return user


def _log_unopened(app_id: str, exc: CannotOpen) -> None:
    log.error("phone_answer_not_unsealed", app_id=app_id, reason=str(exc), what_to_change=WRONG_SECRET_KEY)


async def remove_phone_of_caller(database: Database, clock: Clock, caller: Caller) -> None:
    """Remove the caller's number, if there is one. Raises: InvalidToken, if the session has ended."""
    user_id = caller.user.id
    now = clock()
    async with locked_caller(database, caller, now=now) as transaction:
        is_removed = await remove_phone(
            transaction, user_id, by=Actor(str(user_id)), app_id=caller.user.app_id, now=now
        )
    if is_removed:
        log.info("phone_removed", user_id=user_id)


async def remove_phone_of(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Remove a user's number, if there is one. A former id stands for the user who remains after a merge.

    Raises: NotFound; InsufficientRole, if the actor must not act on this user.
    """
    async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, _account):
        is_removed = await remove_phone(transaction, remaining_id, by=by, now=now)
    if is_removed:
        log.info("phone_removed", user_id=remaining_id, actor=by.name)
