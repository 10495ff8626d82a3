"""The login to a site that is open in the web-view of a mini-program, which answers the sign-in request."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from pydantic_core import from_json, to_json

from wxauth.clients.models import Client
from wxauth.clients.oauth_requests import Parameters
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import FORM_POST_CONTEXT, CannotOpen, Sealer
from wxauth.core.services import part
from wxauth.errors import NotFound
from wxauth.limits.queries import SITES
from wxauth.login.proofs import Proofs
from wxauth.random_secrets import new_secret
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import OPENED_AT
from wxauth.settings.settings import Settings
from wxauth.sites.authorization_codes import PagelessLogin, add_with_code
from wxauth.sites.door import AMR, AUTHORIZATION_CODE_LASTS, DOOR_LOGINS, Door, DoorOutcome
from wxauth.sites.requests import SiteRequest, SiteRequests, consent_required, refusal
from wxauth.sites.responses import AUTHORIZE_PATH, Onward, SentBack, response_to_site
from wxauth.sites.user_queries import lock_and_count_caller
from wxauth.users.callers import ADMIN_SCOPE, Caller
from wxauth_guard.errors import InvalidToken, WxAuthError

FORM_POST_PATH: Final = f"{AUTHORIZE_PATH}/form_post"
# After `login_required`, the mini-program logs in again before it repeats the request, so a login this recent is new.
_MAX_AGE_OF_NEW_LOGIN: Final = timedelta(seconds=30)

log = get_logger()


def may_answer(client: Client) -> bool:
    """Return whether a mini-program may answer this client's requests. The console requires a second device."""
    return ADMIN_SCOPE not in client.scopes


@part
class MiniProgramLogins:
    """The answers to the sign-in requests of sites in a mini-program's web-view."""

    settings: Settings
    database: Database
    clock: Clock
    proofs: Proofs
    site_requests: SiteRequests
    sealer: Sealer

    async def answer(self, caller: Caller, login_code: str, parameters: Parameters, *, device: Device) -> str:
        """Complete a sign-in request with a new `wx.login` code as proof. Return the URL that the web-view opens next.

        Raises: Unanswerable, if the client or the redirect URI is wrong; InvalidToken, if the session has ended;
            RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        try:
            request = await self.site_requests.check(parameters, ip=device.ip, admits=may_answer)
            if request.resource is not None:
                raise consent_required(request)
            if request.is_silent:
                raise refusal(request, "login_required", "a web-view has no login of a browser")
            logged_in_at = await self._checked_login_time(request, caller.session_id)
        except SentBack as exc:
            return await self._count_and_send_back(caller, exc)
        # The metric counts refusals only from here on, because a request that was refused above began no login.
        try:
            await self.proofs.prove(caller, login_code, ip=device.ip)
            code = await self._make_code(caller, request, device=device, logged_in_at=logged_in_at)
        except SentBack as exc:
            DOOR_LOGINS.count(Door.MINI_PROGRAM, DoorOutcome.REFUSED)
            return await self._count_and_send_back(caller, exc)
        except WxAuthError as exc:
            DOOR_LOGINS.count(Door.MINI_PROGRAM, DoorOutcome.of_error(exc))
            raise
        return self._web_view_url(response_to_site(self.settings, request, code=code))

    async def unseal(self, sealed: str) -> Onward:
        """Return the form that `_web_view_url` has sealed. This method is async, because `Pages.answer` awaits it.

        Raises: NotFound, if `sealed` is not from this service, or if the URL has expired. Its texts call the form a
            decision, because the form tells the site the outcome of its request.
        """
        try:
            plain = self.sealer.open(urlsafe_b64decode(sealed), context=FORM_POST_CONTEXT)
        except (ValueError, CannotOpen):  # ValueError: the text is not base64
            raise NotFound("this decision doesn't exist") from None
        url, form, ends_at = from_json(plain)
        if self.clock().timestamp() >= ends_at:
            raise NotFound("the decision has expired")
        return Onward(url, form)

    async def _count_and_send_back(self, caller: Caller, refused: SentBack) -> str:
        """Count a refused request, which no committed transaction has counted, and return the next URL."""
        await SITES.count_user(self.database, caller.user, now=self.clock())
        return self._web_view_url(refused.onward(self.settings))

    def _web_view_url(self, onward: Onward) -> str:
        if onward.form is None:
            return onward.url
        # A mini-program can only open URLs, so a page of wxauth posts the form, for as long as a code is valid.
        ends_at = self.clock() + AUTHORIZATION_CODE_LASTS
        plain = to_json([onward.url, onward.form, ends_at.timestamp()])
        sealed = urlsafe_b64encode(self.sealer.seal(plain, context=FORM_POST_CONTEXT)).decode()
        return f"{self.settings.issuer}{FORM_POST_PATH}?{urlencode({'answer': sealed})}"

    async def _checked_login_time(self, request: SiteRequest, session_id: UUID) -> datetime:
        logged_in_at = await self.database.value(OPENED_AT, session_id=session_id)
        if logged_in_at is None:
            raise InvalidToken("the session has ended")
        age = self.clock() - logged_in_at
        exceeds_max_age = request.max_age is not None and age.total_seconds() > request.max_age
        if (request.requires_new_login or exceeds_max_age) and age > _MAX_AGE_OF_NEW_LOGIN:
            raise SentBack(request, "the login on the phone is too old: log in again", error="login_required")
        return logged_in_at

    async def _make_code(self, caller: Caller, request: SiteRequest, *, device: Device, logged_in_at: datetime) -> str:
        now = self.clock()
        code = new_secret()
        values = PagelessLogin(
            door=Door.MINI_PROGRAM,
            authenticated_at=logged_in_at,
            authenticated_by=AMR[Door.MINI_PROGRAM],
            device=device,
            claimed_session_id=caller.session_id,
        )
        async with self.database.begin() as transaction:
            user = await lock_and_count_caller(transaction, caller, now=now)
            await add_with_code(transaction, request, user, code, values, now=now)
        log.info("site_authorized", client_id=request.client.name, user_id=user.id, app_id=user.app_id)
        return code
