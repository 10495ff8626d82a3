"""The decryption of data from WeChat, and the signing of data for WeChat, with session_keys."""

from collections.abc import Sequence
from dataclasses import field
from datetime import date
from hashlib import sha256
from hmac import digest
from typing import Annotated, Any, Final

from pydantic import Field
from typing_extensions import TypedDict

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, session_key_context
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_daily
from wxauth.core.users import UserStatus
from wxauth.session_keys.queries import KEYS_IN_SESSION, KeyOfLogin, KeysInSession
from wxauth.web.schemas import ShownOpenid
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.received import check_watermark, open_encrypted_data
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InvalidRequest, InvalidToken

LOG_IN_AGAIN: Final = "log in again (wx.login, POST /v1/login), and then retry"
_NO_MINI_PROGRAM: Final = "only mini-programs have a session_key"

log = get_logger()


class SignatureAnswer(TypedDict):
    """A signature, and the openid of the identity whose session_key made it."""

    signature: Annotated[
        str,
        Field(
            description="HMAC-SHA256, 64 lower-case hexadecimal digits.",
            examples=["654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"],
        ),
    ]
    openid: ShownOpenid


@part
class SessionKeys:
    clock: Clock
    database: Database
    apps: Apps
    wechat_api: WeChatApi
    sealer: Sealer
    _last_signed_on: dict[tuple[str, str], date] = field(init=False, default_factory=dict)  # by client and app

    async def decrypt(self, principal: Principal, *, encrypted_data: bytes, iv: bytes) -> dict[str, Any]:
        """Decrypt data that WeChat has encrypted for the session's mini-program. Never log this personal data.

        Raises: InvalidToken, if the session has ended; WrongAppKind; SessionKeyExpired, if no stored session_key
            decrypts the data; InvalidRequest, if the watermark is wrong.
        """
        now = self.clock()
        keys = await self.database.row(KEYS_IN_SESSION, session_id=principal.session_id, user_id=principal.id, now=now)
        if keys is None:
            raise InvalidToken("the session has ended")
        # The kind is None if the app has been removed. Its sessions keep their keys, so decryption still works.
        if self.apps.kind_of(keys.app_id) not in ("mini_program", None):
            raise errors.WrongAppKind(_NO_MINI_PROGRAM)
        decrypted = self._decrypt_with(keys, encrypted_data, iv)
        if decrypted is None:
            raise errors.SessionKeyExpired(
                "no stored session_key decrypts the data: log in again (wx.login, POST /v1/login), then let the "
                "person tap again, because data encrypted earlier cannot be decrypted"
            )
        check_watermark(decrypted, app_id=keys.app_id, now=now)
        log.info("data_decrypted", user_id=principal.id, app_id=keys.app_id, session_id=principal.session_id)
        return decrypted

    async def sign(
        self, app_id: str, keys: Sequence[KeyOfLogin], data: bytes, *, must_be_current: bool, by: Actor
    ) -> SignatureAnswer:
        """Sign data with the newest session_key of an identity, of which there must be exactly one in `keys`.

        With `must_be_current`, WeChat must first confirm that it still accepts the session_key, because it accepts
        only the one that it returned last.

        Raises: UnknownApp, WrongAppKind; NotFound, if there is no identity; InvalidRequest, if there are several;
            AccountDisabled, AccountLeaving; SessionKeyExpired, if there is no valid session_key; WeChatError.
        """
        app = self.apps.find(app_id)
        if not app.is_mini_program:
            raise errors.WrongAppKind(_NO_MINI_PROGRAM)
        if not keys:
            raise errors.NotFound("this user doesn't exist in this app")
        if len(keys) > 1:
            raise InvalidRequest.of("openid", "Field required, because this user has several identities in this app")
        key = keys[0]
        if key.status == UserStatus.DISABLED:
            raise errors.AccountDisabled(until=key.banned_until, user_id=key.user_id)
        if key.erase_at is not None:
            raise errors.AccountLeaving(key.erase_at, user_id=key.user_id)
        session_key = self._unseal(app_id, key.openid, key.sealed)
        if session_key is None:
            raise errors.SessionKeyExpired(LOG_IN_AGAIN)
        if must_be_current:
            is_current = await self.wechat_api.check_session_key(app, openid=key.openid, session_key=session_key)
            if not is_current:
                raise errors.SessionKeyExpired(LOG_IN_AGAIN)
        await self._record_signing(app_id, by)
        return {"signature": digest(session_key, data, sha256).hex(), "openid": key.openid}

    async def _record_signing(self, app_id: str, by: Actor) -> None:
        now = self.clock()
        if self._last_signed_on.get((by.name, app_id)) != now.date():
            await record_daily(self.database, EventType.CLIENT_SIGNED, by=by, app_id=app_id, now=now)
            self._last_signed_on[by.name, app_id] = now.date()

    def _decrypt_with(self, keys: KeysInSession, encrypted_data: bytes, iv: bytes) -> dict[str, Any] | None:
        # WeChat encrypts with the newest key, but data from before that login needs the session's own key.
        for sealed in dict.fromkeys((keys.newest, keys.own)):
            session_key = self._unseal(keys.app_id, keys.openid, sealed)
            if session_key is not None:
                decrypted = open_encrypted_data(encrypted_data, iv=iv, session_key=session_key)
                if decrypted is not None:
                    return decrypted
        return None

    def _unseal(self, app_id: str, openid: str, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        try:
            return self.sealer.open(sealed, context=session_key_context(app_id, openid))
        except CannotOpen as exc:
            log.error("session_key_not_unsealed", app_id=app_id, reason=str(exc), what_to_change=WRONG_SECRET_KEY)
            return None
