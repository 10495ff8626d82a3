"""The id_tokens that mini-programs and mobile apps use to log their users in to another back end."""

from collections.abc import Mapping
from typing import Final

from wxauth.apps.registry import Apps
from wxauth.clients.clients import find_site
from wxauth.clients.id_tokens import IdTokens
from wxauth.clients.models import Client
from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import WrongAppKind
from wxauth.keys.keyring import KeyRing
from wxauth.login.count_queries import LoginCounts
from wxauth.login.proofs import Proofs
from wxauth.settings.apps import AppKind
from wxauth.sites.authorization_codes import record_authorized
from wxauth.sites.door import AMR, DOOR_LOGINS, Door, DoorOutcome, count_logged_in
from wxauth.sites.user_queries import lock_and_count_caller
from wxauth.users.callers import Caller
from wxauth_guard.errors import InvalidRequest, WxAuthError

PHONE_ID_TOKEN_SECONDS: Final = 300
# These values are for `amr` (RFC 8176). Only these kinds of apps run on a phone.
_AMR_BY_KIND: Final[Mapping[AppKind, str]] = {"mini_program": AMR[Door.MINI_PROGRAM], "mobile_app": "wechat_mobile_app"}

log = get_logger()


@part
class PhoneIdTokens:
    """The maker of id_tokens for the other back ends of mini-programs and mobile apps."""

    database: Database
    clock: Clock
    apps: Apps
    proofs: Proofs
    keys: KeyRing
    id_tokens: IdTokens
    login_counts: LoginCounts

    async def issue(self, caller: Caller, client_id: str, login_code: str, nonce: str | None, *, ip: str | None) -> str:
        """Check the caller with a new code from WeChat, and return an id_token for the client. Open no session.

        In a mini-program, `login_code` is from `wx.login`, and in a mobile app, it is from WeChat's OAuth.

        Raises: InvalidRequest, if the client was not added with `--phone-id-token`; WrongAppKind, if the session's app
            does not run on a phone; InvalidToken, if the session has ended; CannotOpen, RateLimited, UnknownApp,
            WeChatError, WrongPerson.
        """
        try:
            client = await _find_client(self.database, client_id)
            if client is None:
                raise _wrong_client()
            kind = self.apps.find(caller.user.app_id).kind
            if kind not in _AMR_BY_KIND:
                raise WrongAppKind(f"a session of the kind {kind} isn't a session on a phone")
            # If no key is available, the request must fail before it uses up the code.
            await self.keys.id_token_key(client.id_token_alg, self.clock())
            await self.proofs.prove(caller, login_code, ip=ip)
            now = self.clock()
            async with self.database.begin() as transaction:
                user = await lock_and_count_caller(transaction, caller, now=now)
                client = await _find_client(transaction, client_id)  # again, because it might have changed
                if client is not None:
                    await record_authorized(transaction, user, client.name, door=Door.PHONE, ip=ip, now=now)
            if client is None:  # refused outside the transaction, which has counted the request for the user
                raise _wrong_client()
            id_token = await self.id_tokens.issue(
                client,
                user,
                client.site_scopes,
                nonce=nonce,
                authenticated_at=now,
                authenticated_by=_AMR_BY_KIND[kind],
                now=now,
                expires_in=PHONE_ID_TOKEN_SECONDS,
            )
        except WxAuthError as exc:
            DOOR_LOGINS.count(Door.PHONE, DoorOutcome.of_error(exc))
            raise
        count_logged_in(self.login_counts, Door.PHONE, now=now)
        log.info("site_authorized", client_id=client.name, user_id=user.id, app_id=user.app_id, door=Door.PHONE)
        return id_token


async def _find_client(database: Database | Transaction, client_id: str) -> Client | None:
    client = await find_site(database, client_id)
    return client if client is not None and client.phone_id_token else None


def _wrong_client() -> InvalidRequest:
    return InvalidRequest.of("client_id", "must be a client that was added with --phone-id-token")
