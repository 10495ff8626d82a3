"""What WeChat thinks of newcomers and of nicknames, and what is made of it: nothing, an event, or a refusal.

Whatever keeps WeChat from saying so holds nobody up. It is counted each time, and told in the log now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeGuard, TypeVar
from uuid import UUID

from wxauth.background import Background
from wxauth.clock import Clock
from wxauth.errors import (
    InternalError,
    InvalidRequest,
    StorageUnavailable,
    WeChatError,
    WeChatMisconfigured,
    WeChatTimeout,
    WeChatUserBlocked,
    WxAuthError,
)
from wxauth.logs import get_logger
from wxauth.settings import Policy
from wxauth.store import users
from wxauth.store.database import Database
from wxauth.store.events import SYSTEM, EventType, NewEvent, record_event
from wxauth.store.logins import LoggedIn
from wxauth.store.models import UserStatus
from wxauth.store.sessions import EndReason, end_sessions
from wxauth.store.users import Standing
from wxauth.wechat.api import TextVerdict, WeChatApi
from wxauth.wechat.client import App
from wxauth.wechat.errcodes import CHECK_TEXT, RISK_RANK, what_to_change

PATIENCE: Final = 2.0
"""Seconds, at most, that a request waits for what WeChat thinks, where that decides."""
BLOCKED_RANK: Final = 4
"""The risk at which WeChat says to block. At any other but 0 it says to look closer."""
BAN_PATIENCE: Final = 600.0
"""Seconds in which a ban that the database did not take is tried again."""
BAN_PAUSE: Final = 0.5
"""Seconds between two such tries."""
TOLD_AGAIN_AFTER: Final = timedelta(minutes=1)
"""Between two log lines of one failure."""

_CONTENT_REFUSED: Final = 87014
_OTHER: Final = 21000
"""The label of what is refused for no reason that has one of its own."""
_APIS: Final = {"risk": RISK_RANK, "nickname": CHECK_TEXT}

log = get_logger()

PolicyName = Literal["risk", "nickname"]
T = TypeVar("T")


class Observe(Protocol):
    """Is told of each question to WeChat what came of it."""

    def __call__(self, policy: PolicyName, app_id: str, outcome: str, errcode: int | None = None) -> None:
        """`outcome` is pass, flagged, blocked, or why there is none."""


@dataclass(frozen=True, slots=True)
class Person:
    """Of whom WeChat is asked: a user by one of their identities."""

    user_id: UUID
    app_id: str
    openid: str


class Policies:
    """Carries out `RISK_POLICY` and `NICKNAME_CHECK`.

    Args:
        database: Where the users are.
        wechat_api: WeChat, whose refusals are told here: not each one, where every login may meet the same.
        clock: The time.
        background: Does what decides nothing.
        find_app: The app of that id. Raises: UnknownApp.
        risk: What is made of a newcomer's risk.
        nickname: What is made of a nickname.
        observe: Is told what came of each question.
        longest_wait: Seconds, at most, that a request waits for what WeChat thinks.
        ban_pause: Seconds between two tries of a ban that the database did not take.
    """

    def __init__(
        self,
        database: Database,
        wechat_api: WeChatApi,
        clock: Clock,
        *,
        background: Background,
        find_app: Callable[[str], App],
        risk: Policy,
        nickname: Policy,
        observe: Observe,
        longest_wait: float = PATIENCE,
        ban_pause: float = BAN_PAUSE,
    ) -> None:
        self._database = database
        self._wechat_api = wechat_api
        self._clock = clock
        self._background = background
        self._find_app = find_app
        self._risk = risk
        self._nickname = nickname
        self._observe = observe
        self._longest_wait = longest_wait
        self._ban_pause = ban_pause
        self._told_at: dict[tuple[str, ...], datetime] = {}
        self.are_on = risk != "off" or nickname != "off"
        self.check_nicknames = nickname != "off"
        """Whether a login is stored without its nickname, which `judge_login` then sets."""

    async def judge_login(
        self, person: Person, login: LoggedIn, *, nickname: str | None, ip: str | None, patience: float
    ) -> Mapping[str, Any]:
        """The user of a stored login, with the nickname unless that is refused.

        Nothing is asked of a returning user whose nickname is the stored one. WeChat is waited for only where the
        policy is to block: for `patience` seconds, or the longest wait where that is shorter.

        Whoever hangs up meanwhile is banned all the same. Not so where the process is killed, or ends and WeChat says
        nothing in a moment: of a user who is there nothing is asked again.

        Raises: WeChatUserBlocked, where the user has just been banned; StorageUnavailable, where they will be.
        """
        if not login.is_new and not self._asks_about(nickname, before=login.user["nickname"]):
            return login.user
        patience = min(patience, self._longest_wait)
        deciding = None
        if login.is_new and self._risk == "block":
            decision = self._judge_newcomer(person, ip, patience=patience)
            deciding = self._background.begin(decision, name=f"risk of {person.user_id}")
        user = await self._with_nickname(person, login.user, nickname, patience=patience)
        if deciding is not None:
            await asyncio.shield(deciding)
        elif login.is_new and self._risk == "flag":
            self._later("risk", person, partial(self._flag_risk, person, ip))
        return user

    async def set_nickname(
        self,
        person: Person,
        nickname: str | None,
        *,
        before: str | None,
        store: Callable[[], Awaitable[T]],
        patience: float | None = None,
    ) -> T:
        """Store a nickname, unless WeChat is asked about it and refuses it. A name that stays is not asked about.

        Raises: InvalidRequest; whatever `store` raises.
        """
        if not self._asks_about(nickname, before=before):
            return await store()
        patience = self._longest_wait if patience is None else patience
        verdict = await self._verdict(person, nickname, patience=patience) if self._nickname == "block" else None
        if verdict is not None and verdict.suggest == "risky":
            log.warning("nickname_refused", user_id=person.user_id, app_id=person.app_id, label=verdict.label)
            raise InvalidRequest.of("nickname", "WeChat refuses this name")
        stored = await store()
        if self._nickname == "flag":
            self._later("nickname", person, partial(self._flag_nickname, person, nickname))
        elif verdict is not None and verdict.suggest != "pass":
            self._later("nickname", person, partial(self._note_verdict, person, verdict))
        return stored

    async def _with_nickname(
        self, person: Person, user: Mapping[str, Any], nickname: str | None, *, patience: float
    ) -> Mapping[str, Any]:
        """The user with the nickname that came with a login, or as before: the code is spent, so nothing is raised."""
        before = user["nickname"]
        if not self._asks_about(nickname, before=before):
            return user
        store = partial(users.change_profile, self._database, person.user_id, {"nickname": nickname})
        try:
            named = await self.set_nickname(person, nickname, before=before, store=store, patience=patience)
        except InvalidRequest:
            return user
        except StorageUnavailable as exc:
            log.warning("login_without_nickname", user_id=person.user_id, app_id=person.app_id, reason=exc.code)
            return user
        return user if named is None else named  # erased meanwhile

    def _asks_about(self, nickname: str | None, *, before: str | None) -> TypeGuard[str]:
        return self.check_nicknames and nickname is not None and nickname != before

    async def _judge_newcomer(self, person: Person, ip: str | None, *, patience: float) -> None:
        """Ban a newcomer of the highest risk, note any other. Raises: as `judge_login`."""
        rank = await self._rank(person, ip, patience=patience)
        if rank == BLOCKED_RANK and await self._ban_now_or_later(person, rank):
            raise WeChatUserBlocked("WeChat takes this person for a high risk; an administrator may unban the user")
        if rank:
            self._later("risk", person, partial(self._note_rank, person, rank))

    async def _flag_risk(self, person: Person, ip: str | None) -> None:
        rank = await self._rank(person, ip)
        if rank:
            await self._note_rank(person, rank)

    async def _flag_nickname(self, person: Person, nickname: str) -> None:
        verdict = await self._verdict(person, nickname)
        if verdict is not None and verdict.suggest != "pass":
            await self._note_verdict(person, verdict)

    async def _rank(self, person: Person, ip: str | None, *, patience: float | None = None) -> int | None:
        """The person's risk, 0 to 4; None where that cannot be told."""
        if ip is None:
            self._fail("risk", person.app_id, "no_client_address")
            return None

        async def ask(app: App) -> int:
            return await self._wechat_api.risk_rank(app, openid=person.openid, client_ip=ip)

        rank = await self._ask("risk", person, ask, patience=patience)
        if rank is not None:
            is_blocked = rank == BLOCKED_RANK and self._risk == "block"
            self._observe("risk", person.app_id, "blocked" if is_blocked else "flagged" if rank else "pass")
        return rank

    async def _verdict(self, person: Person, nickname: str, *, patience: float | None = None) -> TextVerdict | None:
        """What WeChat thinks of a nickname; None where that cannot be told."""

        async def ask(app: App) -> TextVerdict:
            try:
                return await self._wechat_api.check_text(app, openid=person.openid, content=nickname, nickname=nickname)
            except WeChatError as exc:
                if exc.errcode != _CONTENT_REFUSED:
                    raise
                return TextVerdict("risky", _OTHER)

        verdict = await self._ask("nickname", person, ask, patience=patience)
        if verdict is not None:
            is_blocked = verdict.suggest == "risky" and self._nickname == "block"
            outcome = "blocked" if is_blocked else "pass" if verdict.suggest == "pass" else "flagged"
            self._observe("nickname", person.app_id, outcome)
        return verdict

    async def _ask(
        self, policy: PolicyName, person: Person, ask: Callable[[App], Awaitable[T]], *, patience: float | None
    ) -> T | None:
        """WeChat's answer, or None: nothing that goes wrong goes any further."""
        failure: WxAuthError
        try:
            async with asyncio.timeout(patience):
                return await ask(self._find_app(person.app_id))
        except TimeoutError:
            failure = WeChatTimeout("WeChat gave no answer in the time that the request has")
        except WxAuthError as exc:
            failure = exc
        except Exception:
            log.exception("policy_failed", policy=policy, app_id=person.app_id)
            failure = InternalError()
        self._fail(policy, person.app_id, failure.code, failure)
        return None

    async def _ban_now_or_later(self, person: Person, rank: int) -> bool:
        try:
            return await self._ban(person, rank)
        except Exception as exc:
            fields = {"user_id": person.user_id, "app_id": person.app_id, "risk_rank": rank}
            log.error("ban_put_off", **fields, reason=type(exc).__name__)
            self._background.begin(self._keep_banning(person, rank), name=f"ban of {person.user_id}")
            raise

    async def _keep_banning(self, person: Person, rank: int) -> None:
        is_done = False
        try:
            async with asyncio.timeout(BAN_PATIENCE):
                while not is_done:
                    await asyncio.sleep(self._ban_pause)
                    with suppress(Exception):  # told when it began
                        await self._ban(person, rank)
                        is_done = True
        finally:
            if not is_done:
                log.error("ban_lost", user_id=person.user_id, app_id=person.app_id, risk_rank=rank)

    async def _ban(self, person: Person, rank: int) -> bool:
        """Ban a newcomer, unless an administrator has given them a role meanwhile, and so trusts them."""
        now = self._clock()
        async with self._database.begin() as transaction:
            standing = await users.lock_standing(transaction, person.user_id)
            if standing is not None and standing.roles:
                return False
            if standing == Standing(UserStatus.ACTIVE, ()):  # neither erased nor banned
                await users.set_standing(transaction, person.user_id, Standing(UserStatus.DISABLED, ()))
                await record_event(transaction, self._event(person, EventType.USER_BANNED, {"risk_rank": rank}, now))
                await end_sessions(transaction, person.user_id, reason=EndReason.BANNED, actor=SYSTEM, now=now)
        log.warning("user_banned", user_id=person.user_id, app_id=person.app_id, actor=SYSTEM, risk_rank=rank)
        return True

    async def _note_rank(self, person: Person, rank: int) -> None:
        await self._record(person, EventType.RISK_FLAGGED, {"risk_rank": rank})

    async def _note_verdict(self, person: Person, verdict: TextVerdict) -> None:
        await self._record(person, EventType.NICKNAME_FLAGGED, {"suggest": verdict.suggest, "label": verdict.label})

    async def _record(self, person: Person, kind: EventType, data: dict[str, Any]) -> None:
        log.warning(kind, user_id=person.user_id, app_id=person.app_id, **data)
        now = self._clock()
        try:
            async with self._database.begin() as transaction:
                if await users.lock_standing(transaction, person.user_id) is not None:  # of who is erased, none is told
                    await record_event(transaction, self._event(person, kind, data, now))
        except StorageUnavailable:
            log.error("event_not_recorded", type=kind, user_id=person.user_id, reason=StorageUnavailable.code)

    def _event(self, person: Person, kind: EventType, data: dict[str, Any], now: datetime) -> NewEvent:
        return NewEvent(type=kind, at=now, actor=SYSTEM, user_id=person.user_id, app_id=person.app_id, data=data)

    def _later(self, policy: PolicyName, person: Person, work: Callable[[], Awaitable[None]]) -> None:
        if not self._background.start(work, name=f"{policy} of {person.user_id}"):
            self._fail(policy, person.app_id, "too_busy")

    def _fail(self, policy: PolicyName, app_id: str, reason: str, failure: WxAuthError | None = None) -> None:
        """Count that WeChat's opinion is not known, and tell it, unless that has just been told."""
        errcode = failure.errcode if isinstance(failure, WeChatError) else None
        self._observe(policy, app_id, reason, errcode)
        now = self._clock()
        key = (policy, app_id, reason, str(errcode))
        if key in self._told_at and now - self._told_at[key] < TOLD_AGAIN_AFTER:
            return
        self._told_at[key] = now
        fields = {"policy": policy, "app_id": app_id, "reason": reason, "errcode": errcode}
        if isinstance(failure, WeChatMisconfigured) and errcode is not None:
            log.error("policy_without_wechat", **fields, what_to_change=what_to_change(errcode, api=_APIS[policy]))
        else:
            log.warning("policy_without_wechat", **fields)
