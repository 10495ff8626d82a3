"""Asks a service of the operator's whether somebody may sign up, before a user is made."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from time import perf_counter
from typing import Annotated, Any, Final, Literal

import httpx
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from wxauth.errors import SignUpRefused, SignUpUnavailable
from wxauth.server.clients.clients import TITLE
from wxauth.server.core.addresses import TRUNCATED
from wxauth.server.core.clock import Clock, new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Histogram
from wxauth.server.core.receivers import USER_AGENT
from wxauth.server.core.services import part
from wxauth.server.core.setting_types import webhook_secret_bytes
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.users import STAFF_ROLES
from wxauth.server.events.sending import signed_headers
from wxauth.server.login.login_rows import Welcome
from wxauth.server.moving.lines import ExternalId
from wxauth.server.users.attributes import AttributesPatch, patched
from wxauth.server.users.bodies import Nickname, Role
from wxauth.server.wechat.client import WeChatIdentity

MAX_ANSWER: Final = 16 * 1024
"""Bytes of an answer that are read."""
FAILURES_IN_A_ROW: Final = 5
"""After as many, a process does not ask for `PAUSE`. If a failure lets people in, only time-outs count: others cost no
time, and a pause would let everybody in."""
PAUSE: Final = timedelta(seconds=10)

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


class HookOutcome(StrEnum):
    """The outcomes, as metrics count them."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_ASKED = "not_asked"
    """The hook has failed too often a moment ago."""


def make_sign_up_hook(
    settings: Settings,
    clock: Clock,
    *,
    transport: httpx.AsyncBaseTransport,
) -> "SignUpHook | None":
    """The hook of the settings; None if they have none."""
    if settings.sign_up_hook_url is None or settings.sign_up_hook_secret is None:
        return None
    return SignUpHook(
        url=settings.sign_up_hook_url,
        secret=webhook_secret_bytes(settings.sign_up_hook_secret),
        patience=settings.sign_up_hook_timeout,
        on_failure=settings.sign_up_hook_failure,
        transport=transport,
        clock=clock,
    )


class HookFailed(Exception):
    """The hook gave no usable answer. The text says why, without any text of the hook's."""


class HookTimedOut(HookFailed):
    """The hook gave no answer in time."""


@part
class SignUpHook:
    """Asks the operator's service about somebody who would become a new user.

    Args:
        url: Where it is asked.
        secret: Signs the requests, as those of a webhook.
        patience: Seconds for the whole of a request.
        on_failure: What becomes of the person if there is no usable answer.
        transport: Connects to allowed addresses only.
        clock: The time.
    """

    url: str
    secret: bytes
    patience: float
    on_failure: Literal["refuse", "allow"]
    transport: httpx.AsyncBaseTransport
    clock: Clock
    _failures: int = field(init=False, default=0)
    _pause_until: datetime | None = field(init=False, default=None)

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
        outcome = HookOutcome.FAILED
        try:
            if self._pause_until is not None and now < self._pause_until:
                outcome = HookOutcome.NOT_ASKED
                raise HookFailed("it has failed too often: it is asked again in some seconds")
            answer = await self.ask({"type": "sign_up", "data": about}, now=now)
        except HookFailed as exc:
            if outcome is HookOutcome.FAILED:
                self._note_failure(exc)
            log.error("sign_up_hook_failed", app_id=app.app_id, reason=str(exc), consequence=self.on_failure)
            if self.on_failure == "allow":
                return Welcome(is_unasked=True)
            raise SignUpUnavailable("the operator's service was asked whether this person may sign up") from None
        else:
            self._failures = 0
            outcome = HookOutcome.ALLOWED if answer["allow"] else HookOutcome.REFUSED
        finally:
            HOOK_SECONDS.observe(perf_counter() - began, outcome)
        if outcome is HookOutcome.REFUSED:
            title = answer.get("title")
            log.info("sign_up_refused", app_id=app.app_id)
            raise SignUpRefused(title=title if isinstance(title, str) and TITLE.fullmatch(title) else None)
        return _welcome_in(answer, app_id=app.app_id)

    async def ask(self, message: Mapping[str, Any], *, now: datetime) -> Mapping[str, Any]:
        """Send a message. Returns the answer, which has a boolean `allow`. Raises: HookFailed."""
        message_id = new_id(now)
        body = to_json({"type": message["type"], "id": message_id, "at": now, **message})
        headers = {
            **signed_headers(str(message_id), body, [self.secret], now=now),
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
        }
        try:
            async with asyncio.timeout(self.patience):
                request = httpx.Request("POST", self.url, content=body, headers=headers)
                async with aclosing(await self.transport.handle_async_request(request)) as response:
                    if response.status_code != _OK:
                        raise HookFailed(f"its status was {response.status_code}")
                    text = await _beginning_of(response)
        except TimeoutError:
            raise HookTimedOut(f"no answer in {self.patience:g} s") from None
        except httpx.TransportError as exc:
            raise HookFailed(str(exc)) from None
        except (httpx.InvalidURL, UnicodeError):
            raise HookFailed("URL cannot be used") from None
        try:
            answer = from_json(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("allow"), bool):
            raise HookFailed("its answer was no JSON object with a boolean 'allow'")
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self.transport.aclose()

    def _note_failure(self, failure: HookFailed) -> None:
        if self.on_failure == "allow" and not isinstance(failure, HookTimedOut):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._pause_until = self.clock() + PAUSE


async def _beginning_of(response: httpx.Response) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    text = bytearray()
    async for chunk in response.stream:
        text += chunk
        if len(text) > MAX_ANSWER:
            raise HookFailed(f"its answer was longer than {MAX_ANSWER} bytes")
    return bytes(text)


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
