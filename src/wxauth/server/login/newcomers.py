"""Who may come in: the operator's service is asked before a user is made, and WeChat for the risk of a new user.

The risk policy entails nothing, an event, or a ban, depending on WeChat's risk rank. A new user is unjudged until that
is stored, and each login until then asks for it. So several logins at once, here or at another replica, do not get
round the check, and neither does a first login at which WeChat was slow.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from time import perf_counter
from typing import Annotated, Any, Final
from uuid import UUID

import httpx
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from wxauth.errors import SignUpRefused, SignUpUnavailable, StorageUnavailable
from wxauth.server.apps.registry import Apps
from wxauth.server.core.addresses import TRUNCATED
from wxauth.server.core.background import Background, Promises
from wxauth.server.core.clock import Clock, new_id
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Histogram
from wxauth.server.core.services import part
from wxauth.server.core.setting_types import webhook_secret_bytes
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.trail import SYSTEM, EventType
from wxauth.server.core.users import STAFF_ROLES, Person, UserStatus
from wxauth.server.login.login_rows import Welcome
from wxauth.server.outbound.receivers import USER_AGENT, signed_headers
from wxauth.server.outbound.transport import ANSWER
from wxauth.server.users.attributes import AttributesPatch, patched
from wxauth.server.users.bodies import TITLE, ExternalId, Nickname, Role
from wxauth.server.users.standing_rows import (
    Standing,
    change_standings,
    is_banned,
    lock_standing,
    note_judged,
)
from wxauth.server.users.user_rows import lock_user_of, record_flag
from wxauth.server.wechat.api import Opinions, WeChatApi
from wxauth.server.wechat.client import WeChatIdentity

MAX_ANSWER: Final = 16 * 1024
"""Bytes of an answer that are read."""
BODY_SECONDS: Final = 0.1
"""How long the body of a refusal, which is of no use, is waited for, so that its connection can be kept."""
FAILURES_IN_A_ROW: Final = 5
"""After as many, a process does not ask for `PAUSE`. If a failure lets people in, only time-outs count: others cost no
time, and a pause would let everybody in."""
PAUSE: Final = timedelta(seconds=10)

BLOCKED_RANK: Final = 4
"""The risk rank at which WeChat recommends blocking. For any other rank above 0 it recommends a closer look."""
BAN_RETRY_SECONDS: Final = 600.0
"""Seconds for which a ban is retried during a database outage."""

_BAN: Final = "ban"
_OK: Final = 200
_MEMBERS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "external_id": TypeAdapter(ExternalId),
    "roles": TypeAdapter(list[Role]),
    "attributes": TypeAdapter(Annotated[AttributesPatch, AfterValidator(lambda patch: patched({}, patch))]),
    "nickname": TypeAdapter(Nickname),
}
"""What an answer may say about the new user."""

HOOK_SECONDS: Final = Histogram(
    "wxauth_sign_up_hook_seconds",
    "Duration of asking SIGN_UP_HOOK_URL about a new user, by outcome: allowed, refused, failed, or not_asked because "
    "it has failed too often a moment ago.",
    "outcome",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

log = get_logger()


class HookFailed(Exception):
    """The hook gave no usable answer. The text says why, without any text of the hook's."""


class HookTimedOut(HookFailed):
    """The hook gave no answer in time."""


@part
class SignUpHook:
    """Asks the operator's service about somebody who would become a new user.

    Args:
        settings: Where it is asked, and what becomes of the person if there is no usable answer.
        transport: Connects to allowed addresses only.
        clock: The time.
    """

    settings: Settings
    transport: httpx.AsyncBaseTransport
    clock: Clock
    _failures: int = field(init=False, default=0)
    _pause_until: datetime | None = field(init=False, default=None)

    @property
    def is_on(self) -> bool:
        """Whether the operator has such a service."""
        return self.settings.sign_up_hook_url is not None

    async def welcome(self, app: App, identity: WeChatIdentity, *, ip: str | None) -> Welcome:
        """Ask once. Raises: SignUpRefused, SignUpUnavailable."""
        about = {
            "app_id": app.app_id,
            "kind": app.kind,
            "openid": identity.openid,
            "unionid": identity.unionid,
            "network": None if ip is None else TRUNCATED.network_of(ip),
        }
        now, began = self.clock(), perf_counter()
        outcome = "failed"
        try:
            if self._pause_until is not None and now < self._pause_until:
                outcome = "not_asked"
                raise HookFailed("it has failed too often: it is asked again in some seconds")
            answer = await self.ask({"type": "sign_up", "data": about}, now=now)
        except HookFailed as exc:
            if outcome == "failed":
                self._note_failure(exc)
            consequence = self.settings.sign_up_hook_failure
            log.error("sign_up_hook_failed", app_id=app.app_id, reason=str(exc), consequence=consequence)
            if consequence == "allow":
                return Welcome(is_unasked=True)
            raise SignUpUnavailable("the operator's service gave no answer: sign_up_hook_failed in the log") from None
        else:
            self._failures = 0
            outcome = "allowed" if answer["allow"] else "refused"
        finally:
            HOOK_SECONDS.observe(perf_counter() - began, outcome)
        if outcome == "refused":
            title = answer.get("title")
            log.info("sign_up_refused", app_id=app.app_id)
            raise SignUpRefused(title=title if isinstance(title, str) and TITLE.fullmatch(title) else None)
        return _welcome_in(answer, app_id=app.app_id)

    async def ask(self, message: Mapping[str, Any], *, now: datetime) -> Mapping[str, Any]:
        """Send a message. Returns the answer, which has a boolean `allow`. Raises: HookFailed."""
        url, secret = self.settings.sign_up_hook_url, self.settings.sign_up_hook_secret
        assert url is not None, "only if `is_on`"
        assert secret is not None, "the settings require it with the URL"
        patience = self.settings.sign_up_hook_timeout
        message_id = new_id(now)
        body = to_json({"type": message["type"], "id": message_id, "at": now, **message})
        headers = {
            **signed_headers(str(message_id), body, [webhook_secret_bytes(secret)], now=now),
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
        }
        try:
            async with asyncio.timeout(patience):
                how = {"max_body": MAX_ANSWER, "on_status": lambda status: None if status == _OK else BODY_SECONDS}
                request = httpx.Request("POST", url, content=body, headers=headers, extensions=how)
                response = await self.transport.handle_async_request(request)
        except TimeoutError:
            raise HookTimedOut(f"no answer in {patience:g} s") from None
        except httpx.TransportError as exc:
            raise HookFailed(str(exc)) from None
        except (httpx.InvalidURL, UnicodeError):
            raise HookFailed("URL cannot be used") from None
        if response.status_code != _OK:
            raise HookFailed(f"its status was {response.status_code}")
        try:
            answer = from_json(response.extensions[ANSWER].body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("allow"), bool):
            raise HookFailed("its answer was no JSON object with a boolean 'allow'")
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self.transport.aclose()

    def _note_failure(self, failure: HookFailed) -> None:
        if self.settings.sign_up_hook_failure == "allow" and not isinstance(failure, HookTimedOut):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._pause_until = self.clock() + PAUSE


def _welcome_in(answer: Mapping[str, Any], *, app_id: str) -> Welcome:
    """What an answer says about the new user, without the members that are not valid."""
    given: dict[str, Any] = {}
    for name, kind in _MEMBERS.items():
        if answer.get(name) is None:
            continue
        try:
            given[name] = kind.validate_python(answer[name], strict=True)
        except ValidationError:
            log.warning("sign_up_hook_member_left_out", app_id=app_id, member=name)
    if "roles" in given:
        given["roles"] = [role for role in dict.fromkeys(given["roles"]) if role not in STAFF_ROLES]
    return Welcome(**{name: value for name, value in given.items() if value not in ("", [], {})})


class RiskVerdict(StrEnum):
    """What the risk check means for a login."""

    LET_IN = "let in"
    """The login continues: the risk is not high, an administrator trusts the person, or WeChat gave no rank."""
    BLOCKED = "blocked"
    """This check has banned the user, or the user has been erased or banned in the meantime."""
    BANNED = "banned"
    """The user was banned elsewhere while WeChat was asked, and WeChat gave no rank."""


@part
class Risk:
    """Carries out `RISK_POLICY`.

    Args:
        database: Where the users are.
        opinions: Asks WeChat for the risk rank.
        clock: The time.
        background: Runs the work on which no login depends.
        promises: Retries bans that could not be stored.
        settings: Say what to do about a risky new user.
        apps: The roles that new users get there.
    """

    database: Database
    opinions: Opinions
    clock: Clock
    background: Background
    promises: Promises
    settings: Settings
    apps: Apps
    _judging: dict[UUID, asyncio.Task[RiskVerdict]] = field(init=False, default_factory=dict)
    _noting: set[UUID] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.is_noted = self.settings.risk_policy != "off"
        """Whether WeChat is asked about new users."""
        self.decides = self.settings.risk_policy == "block"
        """Whether a new user's login waits for the rank."""

    def judge(self, person: Person, ip: str | None, *, patience: float) -> asyncio.Task[RiskVerdict]:
        """Ban a new user of the highest rank, and note any other rank. Callers must await the task in asyncio.shield.

        Simultaneous logins of one person share the task. It continues even if all of them disconnect. The task raises
        StorageUnavailable if the ban could not be stored yet.
        """
        user_id = person.user_id
        judging = self._judging.get(user_id)
        if judging is None:
            work = self._judge(person, ip, patience=patience)
            judging = self._judging[user_id] = self.background.start(work, name=f"risk of {user_id}")
            judging.add_done_callback(lambda _: self._judging.pop(user_id))
        return judging

    def note_later(self, person: Person, ip: str | None) -> None:
        """Note a new user's risk rank in the background."""
        user_id = person.user_id
        if user_id in self._noting:
            return

        async def note() -> None:
            try:
                rank = await self._rank(person, ip)
                if rank is not None:
                    await self._note(person, rank)
            finally:
                self._noting.discard(user_id)

        if self._later(person, note):
            self._noting.add(user_id)

    async def _judge(self, person: Person, ip: str | None, *, patience: float) -> RiskVerdict:
        rank = await self._rank(person, ip, patience=patience)
        if rank is None:
            # Another replica may have stored the verdict meanwhile.
            return RiskVerdict.BANNED if await is_banned(self.database, person) else RiskVerdict.LET_IN
        if rank == BLOCKED_RANK and await self._ban_now_or_later(person, rank):
            return RiskVerdict.BLOCKED
        if rank:
            self._later(person, partial(self._note, person, rank))
        else:
            await self._note(person, rank)
        return RiskVerdict.LET_IN

    async def _rank(self, person: Person, ip: str | None, *, patience: float | None = None) -> int | None:
        """The person's risk rank, 0 to 4; None if WeChat gave none."""
        if ip is None:
            self.opinions.report_missing("risk", person.app_id, "no_client_address")
            return None

        async def ask(wechat_api: WeChatApi, app: App) -> int:
            return await wechat_api.risk_rank(app, openid=person.openid, client_ip=ip)

        rank = await self.opinions.ask("risk", person.app_id, ask, patience=patience)
        if rank is not None:
            is_blocked = rank == BLOCKED_RANK and self.decides
            self.opinions.count("risk", person.app_id, "blocked" if is_blocked else "flagged" if rank else "pass")
        return rank

    async def _ban_now_or_later(self, person: Person, rank: int) -> bool:
        ban = partial(self._ban, person, rank)
        try:
            return await ban()
        except (Exception, asyncio.CancelledError) as exc:
            fields = {"user_id": person.user_id, "app_id": person.app_id, "risk_rank": rank}
            self.promises.put_off(_BAN, person.user_id, ban, failure=exc, patience=BAN_RETRY_SECONDS, **fields)
            raise

    async def _ban(self, person: Person, rank: int) -> bool:
        """Ban a new user, unless an administrator has given them a role in the meantime, which is a sign of trust.

        Roles that new users get are not. Returns False if the user is trusted.
        """
        now = self.clock()
        async with self.database.begin() as transaction:
            # Whose the identity is now: the user may have been merged meanwhile.
            user_id = await lock_user_of(transaction, app_id=person.app_id, openid=person.openid)
            before = None if user_id is None else await lock_standing(transaction, user_id)
            if user_id is None or before is None:  # erased: nobody to ban
                return True
            await note_judged(transaction, user_id)
            if before.is_banned:
                return True
            if not self.apps.roles_at_sign_up() >= set(before.roles):
                return False
            (settled,) = await change_standings(
                transaction,
                [(user_id, before, Standing(UserStatus.DISABLED, before.roles))],
                by=SYSTEM,
                now=now,
                app_id=person.app_id,
                why={"risk_rank": rank},
            )
        settled.report(app_id=person.app_id, risk_rank=rank)
        return True

    async def _note(self, person: Person, rank: int) -> None:
        if rank:
            await record_flag(self.database, person, EventType.RISK_FLAGGED, {"risk_rank": rank}, now=self.clock())
        try:
            await note_judged(self.database, person.user_id)
        except StorageUnavailable as exc:  # the next login asks WeChat again
            log.warning("risk_not_noted", user_id=person.user_id, app_id=person.app_id, reason=exc.code)

    def _later(self, person: Person, work: Callable[[], Awaitable[None]]) -> bool:
        is_queued = self.background.offer(work, name=f"risk of {person.user_id}")
        if not is_queued:
            self.opinions.report_missing("risk", person.app_id, "too_busy")
        return is_queued
