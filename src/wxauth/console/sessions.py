"""The opening, continuation and end of the console's sessions.

A console session is a session of wxauth's own website `wxauth-admin`, but differs from other sessions in three ways:

- Its refresh token is in a cookie, and only the console accepts this token.
- Its lifetime is shorter.
- It also ends when its user loses one of the staff roles (`admin` and `support`). `change_status_and_roles` ends it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from typing import Final
from uuid import UUID

from wxauth.clients.clients import ensure_own_client
from wxauth.console import queries
from wxauth.console.links import CONSOLE_PATH
from wxauth.core.background import Retries
from wxauth.core.clock import Clock, new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserInSession
from wxauth.errors import SessionRevoked, StorageUnavailable
from wxauth.keys.access_tokens import AccessTokens, TokenSession
from wxauth.login.count_queries import LoginCounts
from wxauth.random_secrets import hash_of
from wxauth.sessions.devices import Device
from wxauth.sessions.queries import CONSOLE, EndReason, end_session
from wxauth.sessions.refresh_queries import RefreshRefused, rotate_refresh_token_of_website
from wxauth.sessions.refresh_tokens import Lifetimes, RefreshTokens
from wxauth.settings.roles import STAFF_ROLES
from wxauth.settings.settings import Settings
from wxauth.sites.authorization_codes import AuthorizationCodes
from wxauth.sites.door import count_logged_in
from wxauth.sites.queries import SiteLogin
from wxauth.sites.redeeming import NotRedeemed, Redeemed, challenge_of, login_of_code, redeem
from wxauth.users.callers import ADMIN_SCOPE
from wxauth.users.last_seen_queries import LastSeen
from wxauth_guard.errors import InsufficientRole

CONSOLE_TITLE: Final = "管理后台 Console"  # on the phone that scans the QR code
MAX_UNUSED_SECONDS: Final = 3600
MAX_LIFETIME_SECONDS: Final = 12 * 3600

log = get_logger()


class ConsoleTokens(RefreshTokens):
    """The refresh tokens in the console's cookie. Other routes do not accept them, because of their separate key."""

    PREFIX = "wxc_"
    PURPOSE = "console-token"


@dataclass(frozen=True, slots=True)
class OpenedConsole:
    access_token: str = field(repr=False)
    expires_in: int  # seconds until the access token expires
    cookie: str = field(repr=False)  # the refresh token
    cookie_seconds: int  # until the cookie expires and, if it is not used, the session ends
    user: UserInSession


@part
class ConsoleSessions:
    settings: Settings
    database: Database
    retries: Retries
    clock: Clock
    login_counts: LoginCounts
    console_tokens: ConsoleTokens
    access_tokens: AccessTokens
    codes: AuthorizationCodes
    last_seen: LastSeen

    async def add_as_site(self) -> None:
        """Register the console as a site, so that staff can log in to it by scanning a QR code."""
        if not self.settings.admin_page:
            return

        async def add() -> None:
            await ensure_own_client(
                self.database,
                CONSOLE,
                title=CONSOLE_TITLE,
                redirect_uris=[self._redirect_uri()],
                scopes=[ADMIN_SCOPE],
                now=self.clock(),
            )

        try:
            await add()
        except StorageUnavailable as exc:
            self.retries.put_off("console", CONSOLE, add, failure=exc, patience=inf)

    async def open_by_link(self, secret: str, *, device: Device) -> OpenedConsole:
        """Open a session with the secret of a link. Each link works only once.

        Raises: SessionRevoked, if the link is unknown, used or expired, or if its user is not staff, may not log in, or
            has no identity.
        """
        now = self.clock()
        session_id = new_id(now)
        expires_at = now + timedelta(seconds=MAX_UNUSED_SECONDS)
        async with self.database.begin() as transaction:
            user = await transaction.row(
                queries.OPEN_SESSION_BY_LINK,
                digest=hash_of(secret),
                staff_roles=list(STAFF_ROLES),
                session_id=session_id,
                client_id=CONSOLE,
                scope=ADMIN_SCOPE,
                ip=device.ip,
                user_agent=device.user_agent,
                expires_at=expires_at,
                now=now,
            )
            if user is not None:
                await _record_opened(transaction, user.id, session_id, means="link", device=device, now=now)
        if user is None:
            raise SessionRevoked(
                "the link has been used or has expired, or its user has no role for the console: create another link"
            )
        log.info("console_opened", user_id=user.id, session_id=session_id, by="link")
        return self._with_new_tokens(user, session_id, generation=0, expires_at=expires_at)

    async def open_by_scan(self, code: str, verifier: str, *, device: Device) -> OpenedConsole:
        """Open a session with the authorization code and the PKCE verifier of a login to the console.

        A used code is handled as `redeem` says.

        Raises: SessionRevoked; InsufficientRole, if the user is not staff; RateLimited.
        """
        now = self.clock()
        session_id = new_id(now)
        expires_at = now + timedelta(seconds=MAX_UNUSED_SECONDS)
        login = await self._login_of(code, verifier)
        outcome: Redeemed | NotRedeemed = NotRedeemed.UNKNOWN
        if login is not None:
            outcome = await self._redeem(login, session_id, device=device, expires_at=expires_at)
        if outcome is NotRedeemed.SPENT:
            log.warning("code_reused", client_id=CONSOLE, consequence="the code has no open session")
        if isinstance(outcome, NotRedeemed):
            raise SessionRevoked("the code doesn't belong to this page, has been used or has expired: log in again")
        count_logged_in(self.login_counts, outcome.login.taken_door, now=now)
        log.info("console_opened", user_id=outcome.user.id, session_id=session_id, by="scan")
        return self._with_new_tokens(outcome.user, session_id, generation=0, expires_at=expires_at)

    async def resume(self, cookie: str, *, device: Device) -> OpenedConsole:
        """Continue the session that a cookie belongs to, and return the session with new tokens.

        Raises: SessionRevoked; InsufficientRole, if the user is no longer staff, which also ends the session.
        """
        token = self.console_tokens.parse(cookie)
        if token is None:
            raise SessionRevoked("this isn't a session of the console")
        outcome = await rotate_refresh_token_of_website(
            self.database,
            token,
            client_id=CONSOLE,
            resource=None,
            usable_scopes=[ADMIN_SCOPE],
            ip=device.ip,
            lifetimes=Lifetimes(
                max_unused=MAX_UNUSED_SECONDS,
                max_age=MAX_LIFETIME_SECONDS,
                reuse_grace=self.settings.refresh_reuse_grace,
            ),
            now=self.clock(),
        )
        if isinstance(outcome, RefreshRefused):
            raise SessionRevoked(f"the session of the console has ended: {outcome.why}")
        # If `change_status_and_roles` has removed the role, the session has already ended. This check refuses a user
        # whose roles were changed in another way, for example by hand in the database.
        if STAFF_ROLES.isdisjoint(outcome.roles):
            await self.end(cookie)
            raise InsufficientRole("this user no longer has the role admin or support")
        return self._with_new_tokens(
            outcome, token.session_id, generation=outcome.generation, expires_at=outcome.expires_at
        )

    async def end(self, cookie: str) -> None:
        """End the session that a cookie belongs to. If the cookie is invalid or the session has ended, do nothing."""
        token = self.console_tokens.parse(cookie)
        if token is None:
            return
        user_id = await end_session(
            self.database, session_id=token.session_id, reason=EndReason.SIGNED_OUT, now=self.clock()
        )
        if user_id is not None:
            log.info("console_closed", user_id=user_id, session_id=token.session_id)

    async def _login_of(self, code: str, verifier: str) -> SiteLogin | None:
        challenge = challenge_of(verifier)
        if challenge is None:  # the verifier is malformed, and None would match a login without a challenge
            return None
        uri = self._redirect_uri()
        return await login_of_code(self.database, code, client_id=CONSOLE, redirect_uri=uri, code_challenge=challenge)

    async def _redeem(
        self, login: SiteLogin, session_id: UUID, *, device: Device, expires_at: datetime
    ) -> Redeemed | NotRedeemed:
        async with self.codes.queue(login), self.database.begin() as transaction:
            now = self.clock()  # after the wait in the queue, during which the code might have expired
            outcome = await redeem(transaction, login, session_id=session_id, expires_at=expires_at, now=now)
            if isinstance(outcome, NotRedeemed):
                return outcome
            if STAFF_ROLES.isdisjoint(outcome.user.roles):
                log.warning("console_refused", user_id=outcome.user.id, reason="no staff")
                # The exception rolls back the new session.
                raise InsufficientRole("this request requires the role admin or support")
            await _record_opened(transaction, outcome.user.id, session_id, means="scan", device=device, now=now)
            return outcome

    def _with_new_tokens(
        self, user: UserInSession, session_id: UUID, *, generation: int, expires_at: datetime
    ) -> OpenedConsole:
        """`generation` is the number of the new refresh token within its session, from 0 on."""
        # read after the wait for the database, because the browser counts the seconds from the response
        now = self.clock()
        seconds_left = int((expires_at - now).total_seconds())
        self.last_seen.note(user, at=now)
        session = TokenSession(id=session_id, seconds_left=seconds_left, client_id=CONSOLE, scope=ADMIN_SCOPE)
        issued = self.access_tokens.issue(user, session, now=now)
        return OpenedConsole(
            access_token=issued.value,
            expires_in=issued.expires_in,
            cookie=self.console_tokens.issue(session_id, generation),
            cookie_seconds=max(1, seconds_left),  # 0 would delete the cookie at once
            user=user,
        )

    def _redirect_uri(self) -> str:
        return f"{self.settings.issuer}{CONSOLE_PATH}"


async def _record_opened(
    transaction: Transaction, user_id: UUID, session_id: UUID, *, means: str, device: Device, now: datetime
) -> None:
    actor = Actor(str(user_id), device.ip)
    data = {"session_id": session_id, "by": means}
    await record_event(transaction, EventType.CONSOLE_OPENED, by=actor, at=now, user_id=user_id, data=data)
