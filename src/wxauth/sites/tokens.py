"""The tokens and sessions of sites: `/v1/token` issues tokens, and `/v1/revoke` ends the session of a token."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from wxauth.clients.id_tokens import IdTokens
from wxauth.clients.models import DEFAULT_ID_TOKEN_ALG, OFFLINE_ACCESS, OPENID_SCOPE, Client
from wxauth.clients.oauth_errors import AUTHORIZATION_PENDING, SLOW_DOWN, OAuthError
from wxauth.clients.oauth_requests import Parameters
from wxauth.clients.redirect_uris import is_registered, loggable_uri
from wxauth.core.clock import Clock, new_id
from wxauth.core.database import Database
from wxauth.core.logs import address_field, get_logger
from wxauth.core.services import part
from wxauth.core.users import UserInSession
from wxauth.keys.access_tokens import AccessTokens, ResourceVerifier, TokenSession
from wxauth.keys.keyring import KeyRing
from wxauth.login.count_queries import LoginCounts
from wxauth.random_secrets import hash_of
from wxauth.sessions.queries import EndReason, end_session
from wxauth.sessions.refresh_queries import (
    RefreshRefusal,
    RefreshRefused,
    RotatedSessionOfWebsite,
    rotate_refresh_token_of_website,
)
from wxauth.sessions.refresh_tokens import RefreshToken, RefreshTokens, session_lifetimes
from wxauth.settings.settings import Settings
from wxauth.sites import queries
from wxauth.sites.authorization_codes import AuthorizationCodes
from wxauth.sites.door import count_logged_in
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.sites.redeeming import (
    PUBLIC_CLIENT_REPEATS_WITHIN,
    SLOW_DOWN_SECONDS,
    NotRedeemed,
    Redeemed,
    challenge_of,
    login_of_code,
    redeem,
)
from wxauth.sites.targets import Target
from wxauth.users.callers import ADMIN_SCOPE
from wxauth.users.last_seen_queries import LastSeen
from wxauth_guard.claims import is_document_url
from wxauth_guard.errors import InvalidToken
from wxauth_guard.verifier import Verifier

DEVICE_CODE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
AUTHORIZATION_CODE_GRANT: Final = "authorization_code"
REFRESH_TOKEN_GRANT: Final = "refresh_token"  # noqa: S105 - the name of a grant
GRANT_TYPES: Final = (AUTHORIZATION_CODE_GRANT, REFRESH_TOKEN_GRANT, DEVICE_CODE_GRANT)

# These are the descriptions of `invalid_grant`. For `BEYOND_GRANT`, the error is `invalid_scope`.
_REFRESH_REFUSALS: Final[dict[RefreshRefusal, str]] = {
    RefreshRefusal.UNKNOWN: "this client has no such session",
    RefreshRefusal.DISABLED: "this user is banned",
    RefreshRefusal.REVOKED: "the session has ended",
    RefreshRefusal.REPLACED: "the session has ended",
    RefreshRefusal.EXPIRED: "the session was idle for too long, or has reached its maximum age",
    RefreshRefusal.REUSED: "the refresh token had been used before: the session has ended",
    RefreshRefusal.OUT_OF_SCOPE: "the client no longer has any of the session's scopes",
    RefreshRefusal.OTHER_RESOURCE: "the session is for another resource",
}
_UNKNOWN_DEVICE: Final = ("invalid_grant", "the device code doesn't belong to this client, or has been used")
_DEVICE_REFUSALS: Final = {
    NotRedeemed.UNKNOWN: _UNKNOWN_DEVICE,
    NotRedeemed.SPENT: _UNKNOWN_DEVICE,
    NotRedeemed.PENDING: (AUTHORIZATION_PENDING, "the user hasn't decided yet"),
    NotRedeemed.TOO_FAST: (SLOW_DOWN, f"from now on, the interval is {SLOW_DOWN_SECONDS} seconds longer"),
    NotRedeemed.DENIED: ("access_denied", "the user refused, or can no longer log in"),
    NotRedeemed.OVER: ("expired_token", "the user didn't decide in time"),
}

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenSession:
    id: UUID
    scope: str  # The client might have lost some of these scopes since the grant.
    generation: int = 0  # of the refresh token; each rotation increases it
    nonce: str | None = None  # for the first id_token only
    authenticated_at: datetime
    authenticated_by: str  # an `amr` value (RFC 8176)
    expires_at: datetime


@part
class SiteTokens:
    clock: Clock
    settings: Settings
    access_tokens: AccessTokens
    database: Database
    login_counts: LoginCounts
    refresh_tokens: RefreshTokens
    keys: KeyRing
    verifier: Verifier
    resource_verifier: ResourceVerifier
    codes: AuthorizationCodes
    id_tokens: IdTokens
    last_seen: LastSeen

    async def issue(self, client: Client, form: Parameters, *, ip: str | None) -> dict[str, Any]:
        """Exchange an authorization code, a device code or a refresh token for tokens."""
        # The console's sessions are shorter, and their token is in a cookie that scripts cannot read.
        if ADMIN_SCOPE in client.scopes:
            raise OAuthError("unauthorized_client", "the console exchanges its codes itself")
        grant_type = form.required("grant_type")
        if grant_type == DEVICE_CODE_GRANT:
            return await self._for_device_code(client, form)
        if grant_type == AUTHORIZATION_CODE_GRANT:
            return await self._for_code(client, form)
        if grant_type == REFRESH_TOKEN_GRANT:
            return await self._for_refresh_token(client, form, ip=ip)
        raise OAuthError("unsupported_grant_type", f"grant_type must be one of {', '.join(GRANT_TYPES)}")

    async def _for_device_code(self, client: Client, form: Parameters) -> dict[str, Any]:
        if not client.device:
            raise no_device_grant()
        device_code_hash = hash_of(form.required("device_code"))
        login = await self.database.row(queries.BY_DEVICE_CODE, device_code_hash=device_code_hash)
        if login is not None and login.client_id != client.name:
            login = None  # the device code of another client counts as unknown
        outcome = await self._redeem(client, login, form)
        if isinstance(outcome, NotRedeemed):
            error, description = _DEVICE_REFUSALS[outcome]
            raise OAuthError(error, description)
        return outcome

    async def _for_code(self, client: Client, form: Parameters) -> dict[str, Any]:
        redirect_uri = form.get("redirect_uri", "")
        if not (client.redirect_uris or is_document_url(client.name)):
            raise OAuthError("unauthorized_client", "the client was added without --redirect-uri")
        code = form.required("code")
        challenge = _challenge_in(client, form, redirect_uri)
        _check_redirect_uri(client, redirect_uri)
        login = None
        # A client whose document wxauth has rejected since the sign-in request has no redirect URIs. It has not been
        # authenticated, so none of its codes may be accepted.
        if client.redirect_uris:
            login = await login_of_code(
                self.database, code, client_id=client.name, redirect_uri=redirect_uri, code_challenge=challenge
            )
        outcome = await self._redeem(client, login, form)
        if isinstance(outcome, NotRedeemed):
            if outcome is NotRedeemed.SPENT:
                log.warning("code_reused", client_id=client.name, consequence="the code has no open session")
            reason = "the code doesn't belong to this client, redirect_uri and code_verifier, or has expired"
            raise _logged_refusal(client, reason, redirect_uri)
        return outcome

    async def _redeem(self, client: Client, login: SiteLogin | None, form: Parameters) -> dict[str, Any] | NotRedeemed:
        now = self.clock()
        await self._ensure_keys(now)
        if login is None:
            return NotRedeemed.UNKNOWN
        target = Target.granted(self.settings, client, login.resource, form)
        session_id = new_id(now)
        lifetimes = session_lifetimes(self.settings, is_web_session=target.resource is None)
        expires_at = now + timedelta(seconds=lifetimes.unrefreshed)
        # The queue limits how many requests of one login, or of one user, occupy a transaction at the same time.
        async with self.codes.queue(login), self.database.begin() as transaction:
            redeemed = await redeem(
                transaction,
                login,
                session_id=session_id,
                resource_title=None if target.resource is None else target.resource.title,
                repeats_within=PUBLIC_CLIENT_REPEATS_WITHIN if client.is_public else timedelta(0),
                expires_at=expires_at,
                now=self.clock(),  # after the wait in the queue, during which the code might have expired
            )
            if isinstance(redeemed, NotRedeemed):
                return redeemed
            # If no scope is left, the error rolls back the session and the use of the code.
            _scopes_left(redeemed.login.scope, target)
        self._note_redeemed(client, redeemed, session_id, now)
        session = _new_session(redeemed.login, session_id, expires_at)
        return await self._token_answer(target, redeemed.user, session)

    async def _ensure_keys(self, now: datetime) -> None:
        """Check that wxauth can sign tokens, before a request uses up a code or token."""
        self.keys.ensure_ready()  # checks the ES256 key; the default algorithm, RS256, is the only other one
        await self.keys.id_token_key(DEFAULT_ID_TOKEN_ALG, now)

    def _note_redeemed(self, client: Client, redeemed: Redeemed, session_id: UUID, now: datetime) -> None:
        login, user = redeemed
        count_logged_in(self.login_counts, login.taken_door, now=now)
        log.info(
            "logged_in_to_website",
            client_id=client.name,
            by=login.authenticated_by,
            user_id=user.id,
            app_id=user.app_id,
            session_id=session_id,
        )

    async def _for_refresh_token(self, client: Client, form: Parameters, *, ip: str | None) -> dict[str, Any]:
        token = self.refresh_tokens.parse(form.required("refresh_token"))
        if token is None:
            raise OAuthError("invalid_grant", "the refresh token isn't one of wxauth's")
        now = self.clock()
        await self._ensure_keys(now)
        target, outcome = await self._rotate(client, token, form, ip=ip, now=now)
        if isinstance(outcome, RefreshRefused):
            if outcome.why == RefreshRefusal.REUSED:
                log.warning("refresh_token_reused", session_id=token.session_id, consequence="the session has ended")
            raise _error_of_refresh(RefreshRefusal(outcome.why))
        address = address_field(ip, is_logged=self.settings.log_addresses)  # of the site's server
        log.info("refreshed", user_id=outcome.id, client_id=client.name, session_id=token.session_id, **address)
        # A site may request fewer scopes than were granted (RFC 6749, section 6). `_rotate` refuses further scopes.
        requested = target.explicit_scopes(form.get("scope")) or outcome.scope.split()
        session = _OpenSession(
            id=token.session_id,
            scope=" ".join(name for name in outcome.scope.split() if name in requested),
            generation=outcome.generation,
            authenticated_at=outcome.authenticated_at,
            authenticated_by=outcome.authenticated_by,
            expires_at=outcome.expires_at,
        )
        return await self._token_answer(target, outcome, session)

    async def _rotate(
        self, client: Client, token: RefreshToken, form: Parameters, *, ip: str | None, now: datetime
    ) -> tuple[Target, RotatedSessionOfWebsite | RefreshRefused]:
        """Rotate a refresh token whose session has an unknown resource. Return the target with this resource, too."""
        # Most sessions have no resource. Therefore, if the request names no resource, the first attempt assumes that
        # the session has none. If the session has one, the first attempt changes nothing, and its result names the
        # resource for a second attempt.
        target = Target.requested(self.settings, client, form) if "resource" in form else Target(client)
        outcome = await self._rotate_for_target(target, token, form, ip=ip, now=now)
        if isinstance(outcome, RefreshRefused) and outcome.why == RefreshRefusal.OTHER_RESOURCE:
            target = Target.granted(self.settings, client, outcome.resource, form)
            outcome = await self._rotate_for_target(target, token, form, ip=ip, now=now)
        return target, outcome

    async def _rotate_for_target(
        self, target: Target, token: RefreshToken, form: Parameters, *, ip: str | None, now: datetime
    ) -> RotatedSessionOfWebsite | RefreshRefused:
        # Refresh tokens are issued without `offline_access`, too, so the session might not have this scope.
        requested = [name for name in target.explicit_scopes(form.get("scope")) if name != OFFLINE_ACCESS]
        return await rotate_refresh_token_of_website(
            self.database,
            token,
            client_id=target.client.name,
            resource=target.url,
            usable_scopes=[name for name in target.scopes if not requested or name in requested],
            requested_scopes=requested,
            ip=ip,
            lifetimes=session_lifetimes(self.settings, is_web_session=target.resource is None),
            now=now,
        )

    async def _token_answer(self, target: Target, user: UserInSession, session: _OpenSession) -> dict[str, Any]:
        client = target.client
        now = self.clock()  # again, because the statements might have waited for several seconds
        scopes = _scopes_left(session.scope, target)
        self.last_seen.note(user, at=now)
        token_session = TokenSession(
            id=session.id,
            seconds_left=int((session.expires_at - now).total_seconds()),
            client_id=client.name,
            scope=" ".join(scopes),
            claims=client.claims,
            resource=target.url,
            # Without a resource, only the id_token contains this time.
            authenticated_at=None if target.resource is None else session.authenticated_at,
        )
        issued = self.access_tokens.issue(user, token_session, now=now)
        answer = {
            "access_token": issued.value,
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            "scope": " ".join(scopes),
            "refresh_token": self.refresh_tokens.issue(session.id, session.generation),
        }
        if OPENID_SCOPE in scopes:
            answer["id_token"] = await self.id_tokens.issue(
                client,
                user,
                scopes,
                session_id=session.id,
                access_token=issued.value,
                nonce=session.nonce,
                authenticated_at=session.authenticated_at,
                authenticated_by=session.authenticated_by,
                now=now,
                expires_in=(
                    issued.expires_in
                    if client.id_token_ttl is None
                    else max(1, min(client.id_token_ttl, token_session.seconds_left))
                ),
            )
        return answer

    async def revoke(self, client: Client, token: str) -> None:
        """End the session of the client's access token or refresh token. Ignore any other token.

        Raises: KeysUnavailable, if an access token cannot be verified now; TooManyChanges.
        """
        refresh_token = self.refresh_tokens.parse(token)
        session_id = await self._session_in(token) if refresh_token is None else refresh_token.session_id
        if session_id is not None:
            await end_web_session(self.database, self.clock, client.name, session_id, site_knows=True)

    async def _session_in(self, token: str) -> UUID | None:
        for verifier in (self.verifier, self.resource_verifier):
            with suppress(InvalidToken):
                return (await verifier.verify(token, now=self.clock().timestamp())).session_id
        return None


def _check_redirect_uri(client: Client, redirect_uri: str) -> None:
    # The operator might have removed the URI since the sign-in request. The operator has registered no URIs of a client
    # with a document, so it is enough that `login_of_code` compares the URI with that of the sign-in request.
    if not (is_document_url(client.name) or is_registered(redirect_uri, client.redirect_uris)):
        problem = "is not registered for this client" if redirect_uri else "must be sent"
        raise _logged_refusal(client, f"redirect_uri {problem}", redirect_uri)


def _challenge_in(client: Client, form: Parameters, redirect_uri: str) -> str | None:
    verifier = form.get("code_verifier")
    if verifier is None and client.pkce == "optional":
        return None
    challenge = None if verifier is None else challenge_of(verifier)
    if challenge is None:
        problem = "must be 43 to 128 characters of A-Z a-z 0-9 - . _ ~" if verifier else "must be sent"
        raise _logged_refusal(client, f"code_verifier {problem}", redirect_uri)
    return challenge


def _new_session(login: LockedLogin, session_id: UUID, expires_at: datetime) -> _OpenSession:
    # The approval has set both values.
    assert login.authenticated_at is not None
    assert login.authenticated_by is not None
    return _OpenSession(
        id=session_id,
        scope=login.scope,
        nonce=login.nonce,
        authenticated_at=login.authenticated_at,
        authenticated_by=login.authenticated_by,
        expires_at=expires_at,
    )


def _error_of_refresh(reason: RefreshRefusal) -> OAuthError:
    if reason == RefreshRefusal.BEYOND_GRANT:
        return OAuthError("invalid_scope", "the session was not granted all of these scopes")
    return OAuthError("invalid_grant", _REFRESH_REFUSALS[reason])


def _scopes_left(scope: str, target: Target) -> list[str]:
    names = [name for name in scope.split() if name in target.scopes]
    if not names:
        raise OAuthError("invalid_grant", "the client no longer has any of these scopes")
    return names


def _logged_refusal(client: Client, reason: str, redirect_uri: str) -> OAuthError:
    log.warning(  # because sites seldom show the error
        "grant_refused",
        client_id=client.name,
        reason=reason,
        received=loggable_uri(redirect_uri),
        registered=client.redirect_uris,
    )
    return OAuthError("invalid_grant", reason)


def no_device_grant() -> OAuthError:
    return OAuthError("unauthorized_client", "this client was added without --device")


async def end_web_session(
    database: Database, clock: Clock, client_id: str, session_id: UUID, *, site_knows: bool = False
) -> None:
    """End a session if it belongs to this client.

    With `site_knows`, wxauth sends the client no logout token, because the client has requested the end itself.
    """
    user_id = await end_session(
        database,
        session_id=session_id,
        client_id=client_id,
        reason=EndReason.SIGNED_OUT,
        site_knows=site_knows,
        now=clock(),
    )
    if user_id is not None:
        log.info("logged_out", user_id=user_id, client_id=client_id, session_id=session_id)
