"""The exchange of the phone button's codes with WeChat, and the binding of the numbers to users and their removal.

WeChat returns a number only once per tap on the phone button, and each number costs money. Therefore, wxauth stores
WeChat's response before any other step that can fail.
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
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.retry_queue import Retries
from wxauth.core.retrying import PREVENTED_BY_OTHERS
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, phone_answer_context
from wxauth.core.services import part
from wxauth.core.tasks import cancel
from wxauth.core.trail import Actor
from wxauth.core.users import UserInSession
from wxauth.limits.concurrency import RETRY_AFTER, Concurrency, Places
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

LATE_ANSWER_SECONDS: Final = 30.0
"""The longest time, in seconds, for which wxauth waits for WeChat's response after the time limit of the request.

WeChat might already have charged for the number, so wxauth stores a late response for the next request with the same
code.
"""
KEPT_IN_MEMORY_SECONDS: Final = 600.0
"""The longest time, in seconds, for which a response waits in memory for the database to recover."""
UNTOUCHED_FOR: Final = timedelta(minutes=1)
"""The age that a response must have before housekeeping binds its number.

The request that fetched a younger response might still be about to bind the number.
"""

MAX_CALLS: Final = 200
"""The largest number of calls to WeChat for phone numbers that this process makes at the same time."""
MAX_IN_PROGRESS_OF_ONE: Final = 20
"""The number of requests and calls to WeChat of one identity at which this process refuses a further request.

The taps and retries of an honest user cause fewer requests.
"""
WECHAT_SHUTDOWN_SECONDS: Final = 6.0
"""The longest time, in seconds, for which a process that has ended its last request waits for WeChat's responses."""

PAUSES_FOR_OTHERS_SECONDS: Final = (0.0, 0.1, 0.4, 1.0)
"""The pauses, in seconds, one before each check of whether another process has stored the response to the same code."""
_ANSWER: Final = "phone_answer"
"""The kind of work in `Retries` that stores a response."""
_NOT_CAUSED_BY_CODE: Final = (errors.WeChatMisconfigured, errors.WeChatRateLimited, errors.WeChatUnavailable)
"""The failures that the app or WeChat causes, not the code. They do not count towards the limit `PHONE_CODES`."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to WeChat for the number behind a code."""

    fetch: asyncio.Task[Mapping[str, Any]]
    """The task that calls WeChat and returns its `phone_info`."""
    storage: asyncio.Task[None]
    """The task that stores the response. This task ends after `fetch`, and fails if `fetch` fails."""


@part
class Phones:
    """The part that binds the phone numbers that WeChat returns for the phone button's codes."""

    database: Database
    sealer: Sealer
    wechat_api: WeChatApi
    clock: Clock
    retries: Retries
    settings: Settings
    apps: Apps
    concurrency: Concurrency
    kept_in_memory: float = KEPT_IN_MEMORY_SECONDS
    """The longest time, in seconds, for which a response waits in memory for the database."""
    pauses_for_others: Sequence[float] = PAUSES_FOR_OTHERS_SECONDS
    """The pauses, in seconds, one before each check of whether another process has stored a response."""
    farewell: float = WECHAT_SHUTDOWN_SECONDS
    """The longest time, in seconds, for which `aclose` waits for WeChat's responses."""
    _in_progress: Places[tuple[str, str]] = field(
        init=False,
        default_factory=partial(
            Places, per_holder=MAX_IN_PROGRESS_OF_ONE, detail="this user has sent too many phone codes at once"
        ),
    )
    """The requests and calls of each identity that are in progress. An identity is a pair of app_id and openid."""
    _calls: dict[bytes, _Call] = field(init=False, default_factory=dict)
    """The calls to WeChat that are in progress, by the hash of the code."""
    _has_logged_unopened: bool = field(init=False, default=False)
    """Whether housekeeping has logged a response that it cannot decrypt. Housekeeping logs only the first of them."""

    async def bind(self, user: UserInSession, code: str) -> UserInSession:
        """Bind the number behind a code of the phone button to a user, and return the changed user.

        If the same identity sends the same code again, use WeChat's stored response.

        Raises: UnknownApp; WrongAppKind, if the app is not a mini-program; WeChatError, if WeChat returns no number;
            RateLimited, if there are too many requests or codes; PhoneTaken, if another user has the number;
            InvalidCode, if the user must tap again; InvalidToken, if the user has just been banned or erased, or is
            about to be erased, or if the identity has just moved to another user; StorageUnavailable, including if
            WeChat's response cannot be stored yet, and TooManyChanges.
        """
        app, openid = self.apps.find(user.app_id), user.openid
        if not app.is_mini_program:
            raise errors.WrongAppKind("only mini-programs have the phone number button")
        asked_at = self.clock()
        code_hash = sha256(b"\0".join((app.app_id.encode(), openid.encode(), code.encode()))).digest()
        with self._in_progress.place((app.app_id, openid)):
            outcome: UserInSession | queries.PhoneRefusal | None
            answer_or_user = await self._find_or_fetch(app, openid, code, code_hash, asked_at=asked_at)
            if isinstance(answer_or_user, queries.StoredAnswer):
                outcome = await self._bind_in_turn(answer_or_user, user.id)
            else:
                outcome = answer_or_user  # a user whose number is already bound, or None if the user was erased
        match outcome:
            case queries.PhoneRefusal.TAKEN:
                raise errors.PhoneTaken("this number belongs to another user")
            case queries.PhoneRefusal.WITHDRAWN:
                raise errors.InvalidCode("the number was withdrawn or removed after the user shared it: tap again")
            case queries.PhoneRefusal() | None:  # never `OUTDATED`, which only a late binding can return
                raise InvalidToken("the user has just been banned or erased, or has requested erasure")
        return outcome

    async def _bind_in_turn(self, answer: queries.StoredAnswer, user_id: UUID) -> UserInSession | queries.PhoneRefusal:
        """Bind the number of a stored response when it is the request's turn in the user's queue.

        The request waits in the queue before it begins a transaction. Otherwise the transaction would stay open while
        it waits for the lock on the user's row. In the queues, the identity takes the place of a session, because a
        response belongs to an identity and names no session.

        Raises: InvalidCode, if this process cannot decrypt the response; WeChatBadResponse; RateLimited, if the queue
            is full or too slow; TooManyChanges.
        """
        try:
            async with self.concurrency.of_session((answer.app_id, answer.openid), user_id):
                return await self._bind(answer)
        except CannotOpen as exc:
            _log_unopened(answer.app_id, exc)
            raise errors.InvalidCode("WeChat's response to this code can't be read now: tap again") from exc

    async def bind_pending(self, *, size: int) -> None:
        """Bind the numbers in the `size` oldest responses that are neither done nor refused.

        Such responses remain, for example, after a crash. Leave out responses that are younger than `UNTOUCHED_FOR`.
        If other transactions keep changing a response's user, the response stays pending for the next call.
        Housekeeping calls this method.
        """
        untouched_since = self.clock() - UNTOUCHED_FOR
        for answer in await self.database.rows(queries.PENDING_ANSWERS, asked_before=untouched_since, size=size):
            try:
                await self._bind(answer, is_late=True)
            except errors.WeChatBadResponse:
                pass  # `_bind` has stored and logged the refusal
            except PREVENTED_BY_OTHERS as exc:
                log.warning("phone_binding_put_off", app_id=answer.app_id, reason=type(exc).__name__)
            except CannotOpen as exc:
                # The response stays pending for a process that has the right secret key.
                if not self._has_logged_unopened:
                    self._has_logged_unopened = True
                    _log_unopened(answer.app_id, exc)

    async def aclose(self) -> None:
        """Wait up to `farewell` seconds until WeChat's responses arrive and are stored. Cancel the remaining calls."""
        if self._calls:
            await asyncio.wait([call.storage for call in self._calls.values()], timeout=self.farewell)
        remaining = list(self._calls.values())
        unanswered = [call for call in remaining if not call.fetch.done()]
        if unanswered:
            reason = "the service stopped before WeChat responded"
            log.error("phone_answers_lost", answers=len(unanswered), reason=reason)
        await cancel(task for call in remaining for task in (call.fetch, call.storage))

    async def _find_or_fetch(
        self, app: App, openid: str, code: str, code_hash: bytes, *, asked_at: datetime
    ) -> queries.StoredAnswer | UserInSession | None:
        """Return WeChat's response to a code: the stored response or, if there is none, the response to a new call.

        If the stored response is done, because its number is already bound, return the user instead. Return None if the
        user was erased during the call.

        Raises: the errors of `_fetch`; the error of another attempt to store the response, if this process still holds
            it in memory.
        """
        # This process might still hold the response in memory, because the database was down.
        await self.retries.run_now(_ANSWER, code_hash)
        answer_or_user = await queries.find_answer(self.database, code_hash)
        if answer_or_user is not None:
            return answer_or_user
        try:
            await self._fetch(app, openid, code, code_hash, asked_at=asked_at)
        except (errors.InvalidCode, errors.CodeUsed) as exc:
            if exc.errcode in OPENID_MISMATCH:
                raise  # another process cannot have used up the code, because it belongs to another app or user
            # Another process might have used up the code, and might be about to store the response.
            answer_or_user = await self._find_from_others(code_hash)
            if answer_or_user is None:
                raise
            return answer_or_user
        return await queries.find_answer(self.database, code_hash)

    async def _find_from_others(self, code_hash: bytes) -> queries.StoredAnswer | UserInSession | None:
        """Wait for another process to store the response to a code, and return it as `find_answer` does.

        Return None if no process stores it.
        """
        for pause in self.pauses_for_others:
            await asyncio.sleep(pause)
            answer_or_user = await queries.find_answer(self.database, code_hash)
            if answer_or_user is not None:
                return answer_or_user
        return None

    async def _fetch(self, app: App, openid: str, code: str, code_hash: bytes, *, asked_at: datetime) -> None:
        """Exchange a code with WeChat, and store the response.

        Simultaneous requests with the same code share one call. The call continues after the time limit of a request.

        Raises: WeChatError, if WeChat returns no number in time; RateLimited, if there are too many calls or codes; the
            error of the database, if the response cannot be stored yet.
        """
        call = self._calls.get(code_hash)
        if call is None:
            call = self._start_call(app, openid, code, code_hash, asked_at=asked_at)
        timeout = self.settings.wechat_timeout
        await asyncio.wait({call.fetch}, timeout=timeout)
        if not call.fetch.done():
            raise errors.WeChatTimeout(f"WeChat didn't respond within {timeout:g} s: send the same code again")
        await asyncio.shield(call.storage)

    def _start_call(self, app: App, openid: str, code: str, code_hash: bytes, *, asked_at: datetime) -> _Call:
        """Start a call to WeChat for the number behind a code. Raises: RateLimited, if there are too many calls."""
        if len(self._calls) >= MAX_CALLS:
            raise errors.RateLimited("too many phone number requests are in progress", retry_after=RETRY_AFTER)
        identity = (app.app_id, openid)
        # Separate tasks make the call and store the response, because both must finish even if the request is
        # cancelled.
        fetch = asyncio.create_task(self._exchange(app, openid, code))
        storage = asyncio.create_task(self._store_when_fetched(fetch, identity, code_hash, asked_at=asked_at))
        call = _Call(fetch, storage)
        self._calls[code_hash] = call
        self._in_progress.take(identity)  # a second place, because the call can outlast this request
        storage.add_done_callback(lambda _task: self._forget_call(identity, code_hash))
        return call

    async def _exchange(self, app: App, openid: str, code: str) -> Mapping[str, Any]:
        """Count an attempt of the identity, and exchange a code with WeChat. Return WeChat's `phone_info`.

        If the call fails, and the code is not the cause, the attempt does not count.

        Raises: RateLimited, if the identity has made too many attempts; WeChatError, if WeChat returns no number.
        """
        # Counting before the call keeps simultaneous calls from exceeding the limit.
        await PHONE_CODES.count(self.database, app.app_id, openid, now=self.clock())
        checked_openid = openid if self.settings.phone_check_openid else None
        try:
            return await self.wechat_api.phone_number(app, code, openid=checked_openid, extra_time=LATE_ANSWER_SECONDS)
        except errors.WeChatError as exc:
            # Without an errcode, WeChat has not judged the code.
            if exc.errcode is None or isinstance(exc, _NOT_CAUSED_BY_CODE):
                await PHONE_CODES.uncount(self.database, app.app_id, openid)
            raise

    def _forget_call(self, identity: tuple[str, str], code_hash: bytes) -> None:
        """Forget a call to WeChat after its task `storage` has ended, and give back the call's place."""
        self._in_progress.give_back(identity)
        storage = self._calls.pop(code_hash).storage
        if not storage.cancelled():
            # Otherwise, asyncio would log that the exception was never retrieved.
            storage.exception()

    async def _store_when_fetched(
        self,
        fetch: asyncio.Task[Mapping[str, Any]],
        identity: tuple[str, str],
        code_hash: bytes,
        *,
        asked_at: datetime,
    ) -> None:
        """Wait for WeChat's response from the task `fetch`, and store it.

        If the storage fails or is cancelled, keep the response in memory, try again in the background, and raise the
        error. If the task `fetch` has failed, raise its error.
        """
        phone_info = await fetch
        app_id, openid = identity
        answer = queries.StoredAnswer(
            code_hash=code_hash,
            app_id=app_id,
            openid=openid,
            sealed=self.sealer.seal(to_json(phone_info), context=phone_answer_context(code_hash)),
            asked_at=asked_at,
        )
        store = partial(self._store, answer)
        try:
            await store()
        except (Exception, asyncio.CancelledError) as exc:  # `aclose` cancels the storage, and `retries` closes later
            self.retries.put_off(_ANSWER, code_hash, store, failure=exc, patience=self.kept_in_memory, app_id=app_id)
            raise

    async def _store(self, answer: queries.StoredAnswer) -> None:
        """Store a response, unless its identity has been erased."""
        if not await queries.add_phone_answer(self.database, answer):
            log.info("phone_answer_dropped", app_id=answer.app_id, reason="the user has been erased")

    async def _bind(
        self, answer: queries.StoredAnswer, *, is_late: bool = False
    ) -> UserInSession | queries.PhoneRefusal:
        """Bind the number of a stored response according to `phone_policy`. Return the changed user, or the refusal.

        `is_late` means that the request that fetched the response has ended without binding the number. In this case,
        another number that the user has bound in the meantime takes precedence, and users are not merged.

        Raises: WeChatBadResponse, if the response contains no usable number; CannotOpen, if it cannot be decrypted;
            TooManyChanges.
        """
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

    async def _open_phone(self, answer: queries.StoredAnswer, *, now: datetime) -> str:
        """Return the number in a stored response in the format of E.164. If no number is usable, refuse the response.

        Raises: WeChatBadResponse, if the response contains no usable number; CannotOpen, if it cannot be decrypted.
        """
        phone_info = self.sealer.open(answer.sealed, context=phone_answer_context(answer.code_hash))
        try:
            return e164_of(from_json(phone_info), app_id=answer.app_id)
        except errors.WeChatBadResponse as exc:
            log.error("phone_answer_unusable", app_id=answer.app_id, reason=exc.detail)
            await self.database.run(queries.REFUSE_ANSWER, code_hash=answer.code_hash, now=now)
            raise

    async def _link(
        self, answer: queries.StoredAnswer, phone: str, *, now: datetime
    ) -> UserInSession | queries.PhoneRefusal:
        """Merge the user of a stored response into the user who has the number.

        Return the remaining user. If the users are not merged, return the result of another attempt to bind the number.

        Raises: TooManyChanges.
        """
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
    """Log that this process cannot decrypt a stored response, and what the operator must change."""
    log.error("phone_answer_not_unsealed", app_id=app_id, reason=str(exc), what_to_change=WRONG_SECRET_KEY)


async def remove_phone_of_caller(database: Database, clock: Clock, caller: Caller) -> None:
    """Remove the caller's number, if there is one.

    Raises: InvalidToken, if the session has just ended, or the user has just been merged or erased.
    """
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

    Raises: NotFound, if there is no such user; InsufficientRole, if the actor must not act on this user;
        TooManyChanges.
    """
    async with locked_remaining(database, user_id, by=by) as (transaction, remaining_id, _account):
        is_removed = await remove_phone(transaction, remaining_id, by=by, now=now)
    if is_removed:
        log.info("phone_removed", user_id=remaining_id, actor=by.name)
