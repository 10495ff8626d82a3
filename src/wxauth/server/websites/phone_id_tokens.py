"""An id_token on the phone: a mini-program or mobile app logs its person in to another back end, such as Supabase."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from wxauth.errors import InvalidRequest, InvalidToken, WrongAppKind, WxAuthError
from wxauth.server.apps.registry import Apps
from wxauth.server.clients.clients import is_client_name
from wxauth.server.clients.models import Client
from wxauth.server.clients.rows import find_site
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part
from wxauth.server.core.setting_types import AppKind
from wxauth.server.core.settings import Settings
from wxauth.server.core.users import UserInSession
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.limits.rates import SITES
from wxauth.server.login.login import Proofs
from wxauth.server.login.numbers import Numbers
from wxauth.server.users.account import Caller
from wxauth.server.websites.doors import AMR, DOORS, Door, DoorOutcome
from wxauth.server.websites.granting import record_authorized
from wxauth.server.websites.id_tokens import id_token
from wxauth.server.websites.rows import lock_caller
from wxauth.server.websites.site_tokens import count_redeemed

LASTS_SECONDS: Final = 300
"""How long the id_token can be exchanged for a session of the other back end."""

_AMR: Final[Mapping[AppKind, str]] = {
    "mini_program": AMR[Door.MINI_PROGRAM],
    "mobile_app": "wechat_mobile_app",
}

log = get_logger()


@part
class PhoneIdTokens:
    """Makes id_tokens for the back ends of mini-programs and mobile apps."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    proofs: Proofs
    keys: KeyRing
    numbers: Numbers

    async def issue(self, caller: Caller, client_id: str, login_code: str, nonce: str | None, *, ip: str | None) -> str:
        """An id_token of the client for the caller, proved by a new login at WeChat. It opens no session here.

        Raises: InvalidRequest, WrongAppKind, InvalidToken, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        client = await _client(self.database, client_id)
        kind = self.apps.find(caller.user.app_id).kind
        if kind not in _AMR:
            raise WrongAppKind(f"a session of the kind {kind} is no phone's")
        try:
            # Before the code is used up, because this may fail.
            await self.keys.id_token_key(client.id_token_alg, self.clock())
            await self.proofs.prove(caller, login_code, ip=ip)
            now = self.clock()
            client, person = await _authorized(self.database, caller, client_id, ip=ip, now=now)
            key = await self.keys.id_token_key(client.id_token_alg, now)
        except WxAuthError as exc:
            DOORS.count(Door.PHONE, DoorOutcome.FAILED if exc.status >= 500 else DoorOutcome.REFUSED)
            raise
        count_redeemed(self.numbers, Door.PHONE, now=now)
        log.info("site_authorized", client_id=client.name, user_id=person.id, app_id=person.app_id, door=Door.PHONE)
        return id_token(
            key,
            issuer=self.settings.issuer,
            client=client,
            user=person,
            scopes=client.site_scopes,
            session_id=None,
            nonce=nonce,
            access_token=None,
            authenticated_at=now,
            authenticated_by=_AMR[kind],
            now=int(now.timestamp()),
            expires_in=LASTS_SECONDS,
        )


async def _client(asked: Database | Transaction, client_id: str) -> Client:
    """The client of this name, if its id_tokens may be given to a phone. Raises: InvalidRequest."""
    client = await find_site(asked, client_id) if is_client_name(client_id) else None
    if client is None or not client.phone_id_token:
        raise InvalidRequest.of("client_id", "must be a client that was added with --phone-id-token")
    return client


async def _authorized(
    database: Database, caller: Caller, client_id: str, *, ip: str | None, now: datetime
) -> tuple[Client, UserInSession]:
    """Record that the person who has the session at this moment may log in, with the client as it is now."""
    async with database.begin() as transaction:
        person = await lock_caller(transaction, caller, now=now)
        if person is None:
            raise InvalidToken("the session has ended")
        client = await _client(transaction, client_id)
        await SITES.count_user(transaction, person, now=now)
        await record_authorized(transaction, person, client_id=client.name, door=Door.PHONE, ip=ip, now=now)
    return client, person
