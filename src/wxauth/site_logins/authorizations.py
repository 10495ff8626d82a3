"""The results for a user who is logged in on the phone, a response to a sign-in request, or an id_token.

The mini-program answers the sign-in request of a page in its web-view. A mini-program or mobile app gets an id_token
for another back end.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from pydantic_core import from_json, to_json

from wxauth.apps.registry import Apps
from wxauth.clients.clients import find_site
from wxauth.clients.id_tokens import IdTokens
from wxauth.clients.models import Client
from wxauth.clients.oauth_requests import Parameters
from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.sealing import FORM_POST_CONTEXT, CannotOpen, Sealer
from wxauth.core.services import part
from wxauth.core.users import UserInSession
from wxauth.errors import NotFound, WrongAppKind
from wxauth.keys.keyring import KeyRing
from wxauth.limits.queries import SITES
from wxauth.login.codes import Proofs
from wxauth.login.records import Numbers
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import OPENED_AT
from wxauth.settings.apps import AppKind
from wxauth.settings.settings import Settings
from wxauth.site_logins.authorize import (
    AUTHORIZE_PATH,
    CONSENT_REQUIRED,
    Onward,
    SentBack,
    SiteRequest,
    SiteRequests,
    refusal,
    sent_back,
)
from wxauth.site_logins.doors import AMR, AUTHORIZATION_CODE_LASTS, DOORS, Door, DoorOutcome, count_redeemed
from wxauth.site_logins.granting import add_with_code, record_authorized
from wxauth.site_logins.queries import lock_caller
from wxauth.texts import new_secret
from wxauth.users.callers import ADMIN_SCOPE, Caller
from wxauth_guard.errors import InvalidRequest, InvalidToken, WxAuthError

FORM_POST_PATH: Final = f"{AUTHORIZE_PATH}/form_post"
NEW_FOR: Final = timedelta(seconds=30)
"""The time for which a login counts as new, even if the site requires a newer one."""

log = get_logger()
LASTS_SECONDS: Final = 300
"""The number of seconds for which the id_token can be exchanged for a session of the other back end."""
_AMR: Final[Mapping[AppKind, str]] = {"mini_program": AMR[Door.MINI_PROGRAM], "mobile_app": "wechat_mobile_app"}


def may_answer(client: Client) -> bool:
    """Return whether a mini-program may answer this client's sign-in requests.

    It may not for the console, which requires a second device.
    """
    return ADMIN_SCOPE not in client.scopes


@part
class Authorizations:
    """Completes sign-in requests that a user approves in the browser of an app."""

    settings: Settings
    database: Database
    clock: Clock
    proofs: Proofs
    site_requests: SiteRequests
    sealer: Sealer

    async def answer(self, caller: Caller, login_code: str, parameters: Parameters, *, device: Device) -> str:
        """Complete a site's sign-in request with a new `wx.login` as proof.

        Return the URL that takes the web-view back.

        Raises: Unanswerable, InvalidToken, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        try:
            asked = await self.site_requests.check(parameters, ip=device.ip, admits=may_answer)
            if asked.resource is not None:
                raise refusal(asked, *CONSENT_REQUIRED)
            if asked.is_silent:
                raise refusal(asked, "login_required", "a web-view has no login of a browser")
            logged_in_at = await self._login_for(asked, caller.session_id)
        except SentBack as exc:
            await SITES.count_user(self.database, caller.user, now=self.clock())
            return self._url(exc.onward(self.settings))
        try:
            await self.proofs.prove(caller, login_code, ip=device.ip)
            code = await self._make_code(caller, asked, device=device, logged_in_at=logged_in_at)
        except SentBack as exc:
            await SITES.count_user(self.database, caller.user, now=self.clock())  # the rollback has undone the count
            DOORS.count(Door.MINI_PROGRAM, DoorOutcome.REFUSED)
            return self._url(exc.onward(self.settings))
        except WxAuthError as exc:
            is_ours = exc.status >= 500
            DOORS.count(Door.MINI_PROGRAM, DoorOutcome.FAILED if is_ours else DoorOutcome.REFUSED)
            raise
        return self._url(sent_back(self.settings, asked, code=code))

    async def posted(self, sealed: str) -> Onward:
        """Return the redirect in the URL of a page that posts a form. Raises: NotFound."""
        try:
            plain = self.sealer.open(urlsafe_b64decode(sealed), context=FORM_POST_CONTEXT)
        except (ValueError, CannotOpen):
            raise NotFound("there is no such answer") from None
        url, form, ends_at = from_json(plain)
        if self.clock().timestamp() >= ends_at:
            raise NotFound("the answer is over")
        return Onward(url, form)

    def _url(self, onward: Onward) -> str:
        """Return the URL that takes a web-view back.

        For a form, it is a page of wxauth, because a mini-program can only open URLs.
        """
        if onward.form is None:
            return onward.url
        ends_at = self.clock() + AUTHORIZATION_CODE_LASTS
        plain = to_json([onward.url, onward.form, ends_at.timestamp()])
        sealed = urlsafe_b64encode(self.sealer.seal(plain, context=FORM_POST_CONTEXT)).decode()
        return f"{self.settings.issuer}{FORM_POST_PATH}?{urlencode({'answer': sealed})}"

    async def _login_for(self, asked: SiteRequest, session_id: UUID) -> datetime:
        """Return the time at which the phone logged in, if it is recent enough for the site.

        Raises: InvalidToken, SentBack.
        """
        logged_in_at = await self.database.value(OPENED_AT, session_id=session_id)
        if logged_in_at is None:
            raise InvalidToken("the session has ended")
        age = self.clock() - logged_in_at
        is_old = asked.requires_new_login or (asked.max_age is not None and age.total_seconds() > asked.max_age)
        if is_old and age > NEW_FOR:
            raise SentBack(asked, "the phone's login is too old: log in again", "login_required")
        return logged_in_at

    async def _make_code(self, caller: Caller, asked: SiteRequest, *, device: Device, logged_in_at: datetime) -> str:
        """Return an authorization code for the user who owns the phone's session now."""
        now, code = self.clock(), new_secret()
        async with self.database.begin() as transaction:
            person = await _locked_and_counted(transaction, caller, now=now)
            await add_with_code(
                transaction,
                asked,
                person,
                code,
                door=Door.MINI_PROGRAM,
                authenticated_at=logged_in_at,
                authenticated_by=AMR[Door.MINI_PROGRAM],
                device=device,
                claimed_session_id=caller.session_id,
                now=now,
            )
        log.info("site_authorized", client_id=asked.client.name, user_id=person.id, app_id=person.app_id)
        return code


@part
class PhoneIdTokens:
    """Makes id_tokens for the back ends of mini-programs and mobile apps."""

    database: Database
    clock: Clock
    apps: Apps
    proofs: Proofs
    keys: KeyRing
    id_tokens: IdTokens
    numbers: Numbers

    async def issue(self, caller: Caller, client_id: str, login_code: str, nonce: str | None, *, ip: str | None) -> str:
        """Return an id_token of the client for the caller, after a new login with WeChat as proof.

        It opens no session here.

        Raises: InvalidRequest, WrongAppKind, InvalidToken, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        client = await _client(self.database, client_id)
        kind = self.apps.find(caller.user.app_id).kind
        if kind not in _AMR:
            raise WrongAppKind(f"a session of the kind {kind} is no phone's")
        try:
            # This comes before the code is used up, because it might fail.
            await self.keys.id_token_key(client.id_token_alg, self.clock())
            await self.proofs.prove(caller, login_code, ip=ip)
            now = self.clock()
            async with self.database.begin() as transaction:
                person = await _locked_and_counted(transaction, caller, now=now)
                client = await _client(transaction, client_id)  # read again, because the client might have changed
                await record_authorized(transaction, person, client.name, door=Door.PHONE, ip=ip, now=now)
            id_token = await self.id_tokens.issue(
                client,
                person,
                client.site_scopes,
                nonce=nonce,
                authenticated_at=now,
                authenticated_by=_AMR[kind],
                now=now,
                expires_in=LASTS_SECONDS,
            )
        except WxAuthError as exc:
            DOORS.count(Door.PHONE, DoorOutcome.FAILED if exc.status >= 500 else DoorOutcome.REFUSED)
            raise
        count_redeemed(self.numbers, Door.PHONE, now=now)
        log.info("site_authorized", client_id=client.name, user_id=person.id, app_id=person.app_id, door=Door.PHONE)
        return id_token


async def _client(asked: Database | Transaction, client_id: str) -> Client:
    """Return the client of this name, if a phone may get its id_tokens. Raises: InvalidRequest."""
    client = await find_site(asked, client_id)
    if client is None or not client.phone_id_token:
        raise InvalidRequest.of("client_id", "must be a client that was added with --phone-id-token")
    return client


async def _locked_and_counted(transaction: Transaction, caller: Caller, *, now: datetime) -> UserInSession:
    """Return the user who owns the session now, and count the login to a site.

    Raises: InvalidToken, RateLimited.
    """
    person = await lock_caller(transaction, caller, now=now)
    if person is None:
        raise InvalidToken("the session has ended")
    await SITES.count_user(transaction, person, now=now)
    return person
