"""The call that asks the operator's service who may sign up, and with which initial fields."""

import asyncio
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any, Final

import httpx
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import to_json

from wxauth import i_json
from wxauth.core.clock import Clock, new_id
from wxauth.core.lateness import Lateness
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.services import part
from wxauth.errors import SignUpRefused, SignUpUnavailable
from wxauth.faulty_json import loose_text
from wxauth.i18n import TextError, WrongValue, lazy_gettext as _
from wxauth.login.login_queries import InitialFields, Login
from wxauth.outbound.receivers import USER_AGENT
from wxauth.outbound.signatures import signed_headers
from wxauth.outbound.transport import ANSWER
from wxauth.settings.addresses import TRUNCATED
from wxauth.settings.apps import App
from wxauth.settings.roles import STAFF_ROLES, Role
from wxauth.settings.secrets import webhook_secret_bytes
from wxauth.settings.settings import Settings
from wxauth.texts import is_title
from wxauth.users.attributes import AttributesPatch, patched
from wxauth.users.ids import ExternalId
from wxauth.users.schemas import Nickname

_MAX_ANSWER_BYTES: Final = 16 * 1024
# A body whose status is not 200 is ignored, and read only so that the connection can be reused.
_IGNORED_BODY_SECONDS: Final = 0.1
_LATE_SHARE: Final = 0.25  # of the time limit, by which this process may be late and still blame the service
FAILURES_IN_A_ROW: Final = 5  # after which a process pauses its calls; after a pause, one failure begins the next pause
PAUSE: Final = timedelta(seconds=10)

_VALIDATORS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "external_id": TypeAdapter(ExternalId),
    "roles": TypeAdapter(list[Role]),
    # The patch of a new user applies to no attributes. `patched` drops its nulls, and checks the size of the result.
    "attributes": TypeAdapter(Annotated[AttributesPatch, AfterValidator(lambda patch: patched({}, patch))]),
    "nickname": TypeAdapter(Nickname),
}

HOOK_SECONDS: Final = Histogram(
    "wxauth_sign_up_hook_seconds",
    "Duration of asking SIGN_UP_HOOK_URL about a new user, by outcome: allowed, refused, failed, or not_asked because "
    "it has failed too often a moment ago.",
    "outcome",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

log = get_logger()


class HookFailed(TextError):
    """A request got no usable response, or was not sent because of a pause. It contains no text from the service."""


class HookTimedOut(HookFailed):
    """There was no response in time."""


class HookNotHeard(HookFailed):
    """This process was too busy to receive a response in time."""


@part
class SignUpHook:
    settings: Settings
    transport: httpx.AsyncBaseTransport
    clock: Clock
    _failures: int = field(init=False, default=0)
    _pause_until: datetime | None = field(init=False, default=None)
    is_on: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_on = self.settings.sign_up_hook_url is not None

    async def initial_fields(self, app: App, login: Login) -> InitialFields:
        """Ask the service about the new user of a login. Without a usable response, only `is_undecided` is set.

        Raises: SignUpRefused, if the service refuses the user; SignUpUnavailable, if there is no usable response, and
            `SIGN_UP_HOOK_FAILURE` is `refuse`.
        """
        about = {
            "app_id": app.app_id,
            "kind": app.kind,
            "openid": login.openid,
            "unionid": login.unionid,
            "network": None if login.ip is None else TRUNCATED.network_of(login.ip),
            "client_ip": login.ip,
        }
        try:
            answer = await self._ask_unless_paused(about, now=self.clock())
        except HookFailed as exc:
            # Nobody may sign up without a decision by keeping this process busy.
            is_own_fault = isinstance(exc, HookNotHeard)
            consequence = "refuse" if is_own_fault else self.settings.sign_up_hook_failure
            log.error("sign_up_hook_failed", app_id=app.app_id, reason=str(exc), consequence=consequence)
            if consequence == "allow":
                return InitialFields(is_undecided=True)
            raise SignUpUnavailable(
                "the operator's service gave no usable response: see sign_up_hook_failed in the log"
            ) from None
        if not answer["allow"]:
            title = answer.get("title")
            log.info("sign_up_refused", app_id=app.app_id)
            raise SignUpRefused(title=title if isinstance(title, str) and is_title(title) else None)
        return _initial_fields_in(answer, app_id=app.app_id)

    async def _ask_unless_paused(self, about: Mapping[str, Any], *, now: datetime) -> Mapping[str, Any]:
        started_at = perf_counter()
        outcome = "failed"
        try:
            if self._pause_until is not None and now < self._pause_until:
                outcome = "not_asked"
                raise HookFailed(
                    _("the hook has failed too often, so wxauth waits a few seconds before it calls the hook again")
                )
            try:
                answer = await self.ask({"type": "sign_up", "data": about}, now=now)
            except HookFailed as exc:
                self._note_failure(exc)
                raise
            self._failures = 0
            outcome = "allowed" if answer["allow"] else "refused"
            return answer
        finally:
            HOOK_SECONDS.observe(perf_counter() - started_at, outcome)

    async def ask(self, message: Mapping[str, Any], *, now: datetime) -> Mapping[str, Any]:
        """Send a message to the service, and return the response, whose `allow` is a boolean.

        Raises: HookTimedOut, HookNotHeard, HookFailed.
        """
        time_limit = self.settings.sign_up_hook_timeout
        lateness = Lateness()
        try:
            with lateness:
                async with asyncio.timeout(time_limit):
                    response = await self.transport.handle_async_request(self._request_of(message, now=now))
        except (TimeoutError, httpx.TransportError) as exc:
            if lateness.seconds > _LATE_SHARE * time_limit:
                raise HookNotHeard(_("wxauth was too busy to receive a response")) from None
            if isinstance(exc, TimeoutError):
                raise HookTimedOut(_("no response in {n:g} s", n=time_limit)) from None
            raise HookFailed(exc.args[0]) from None  # `ReceiverTransport` raises errors with a single Text
        except (httpx.InvalidURL, UnicodeError):
            raise HookFailed(_("the URL cannot be used")) from None
        if response.status_code != HTTPStatus.OK:
            raise HookFailed(_("its status was {n}", n=response.status_code))
        try:
            answer = i_json.parse(loose_text(response.extensions[ANSWER].body))
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("allow"), bool):
            raise HookFailed(_("its response was not a JSON object with a boolean 'allow'"))
        return answer

    def _request_of(self, message: Mapping[str, Any], *, now: datetime) -> httpx.Request:
        url, secret = self.settings.sign_up_hook_url, self.settings.sign_up_hook_secret
        assert url is not None, "the callers check `is_on`"
        assert secret is not None, "the settings require it with the URL"
        message_id = new_id(now)
        # `message` also contains `type`. The first entry puts this key before `id` and `at`.
        body = to_json({"type": message["type"], "id": message_id, "at": now, **message})
        headers = {
            **signed_headers(str(message_id), body, [webhook_secret_bytes(secret)], now=now),
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
        }
        # `ReceiverTransport` reads these extensions. `on_status` returns the time limit for a body that is ignored.
        extensions = {
            "max_body": _MAX_ANSWER_BYTES,
            "on_status": lambda status: None if status == HTTPStatus.OK else _IGNORED_BODY_SECONDS,
        }
        return httpx.Request("POST", url, content=body, headers=headers, extensions=extensions)

    def _note_failure(self, failure: HookFailed) -> None:
        if isinstance(failure, HookNotHeard):
            return
        # With `allow`, a pause admits all new users without a decision, so only time-outs count. They make logins wait.
        if self.settings.sign_up_hook_failure == "allow" and not isinstance(failure, HookTimedOut):
            self._failures = 0  # this failure was quick, so the series of time-outs has ended
            return
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._pause_until = self.clock() + PAUSE  # read again, because the call might have taken seconds


def _initial_fields_in(answer: Mapping[str, Any], *, app_id: str) -> InitialFields:
    """Invalid values are left out and logged. Staff roles, which the service may not grant, are only left out."""
    fields: dict[str, Any] = {}
    for name, validator in _VALIDATORS.items():
        if answer.get(name) is None:
            continue
        try:
            fields[name] = validator.validate_python(answer[name], strict=True)
        except ValidationError as exc:
            cause = exc.errors()[0].get("ctx", {}).get("error")
            reason = cause.text if isinstance(cause, WrongValue) else "it has the wrong form"
            log.warning("sign_up_hook_member_left_out", app_id=app_id, member=name, reason=reason)
    if "roles" in fields:
        fields["roles"] = [role for role in dict.fromkeys(fields["roles"]) if role not in STAFF_ROLES]
    # An empty value counts as absent, so InitialFields gets only the other values.
    return InitialFields(**{name: value for name, value in fields.items() if value})
