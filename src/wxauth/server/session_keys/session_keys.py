"""Use of session_keys: decrypting data from WeChat, signing, and having WeChat check and reset them."""

import asyncio
from collections.abc import Sequence
from dataclasses import field
from datetime import date
from hashlib import sha256
from hmac import digest
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from wxauth.errors import (
    AccountDisabled,
    AccountLeaving,
    InvalidRequest,
    InvalidToken,
    NotFound,
    SessionKeyExpired,
    UnknownApp,
    WeChatError,
    WrongAppKind,
)
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer, session_key_context
from wxauth.server.core.services import part
from wxauth.server.core.trail import Actor, EventType, record_daily, record_event
from wxauth.server.core.users import UserStatus
from wxauth.server.session_keys.rows import (
    CURRENT_KEYS,
    KEYS_IN_SESSION,
    REPLACE_KEY,
    KeyOfLogin,
    KeysInSession,
    SealedSessionKey,
)
from wxauth.server.sessions.rows import USER_OF_SESSION, lock_user_by
from wxauth.server.users.user_rows import current_user
from wxauth.server.web.bodies import ShownAppId, ShownOpenid
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.received import check_watermark, open_encrypted_data
from wxauth.tokens.claims import Principal

_NO_KEY: Final = "only a mini-program has a session_key"

log = get_logger()


class SessionKeyState(BaseModel):
    """Whether the session_key stored for an identity is valid at WeChat."""

    app_id: ShownAppId
    openid: ShownOpenid
    valid: bool | None = Field(description="False if the user must log in again; null if unknown.", examples=[True])
    error: str | None = Field(
        description="Why it is unknown: the `code` of a problem; `session_key_expired` if no key is stored."
    )


class SignatureAnswer(TypedDict):
    """A signature with the session_key of this identity."""

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
    """Decrypts data and signs with the session_keys, and has WeChat check and reset them."""

    clock: Clock
    database: Database
    apps: Apps
    wechat_api: WeChatApi
    sealer: Sealer
    _signed_on: dict[tuple[str, str], date] = field(init=False, default_factory=dict)
    """The last day on which a client had something signed for an app, as the trail has it."""

    async def decrypt(self, principal: Principal, *, encrypted_data: bytes, iv: bytes) -> dict[str, Any]:
        """Decrypt data that WeChat has encrypted for the mini-program of this session. It is personal: never log it.

        Raises: InvalidToken, if the session has ended, or the user was banned or erased since the token was signed;
            WrongAppKind, SessionKeyExpired, InvalidRequest.
        """
        now = self.clock()
        keys = await self.database.row(KEYS_IN_SESSION, session_id=principal.session_id, user_id=principal.id, now=now)
        if keys is None:
            raise InvalidToken("the session has ended")
        if self.apps.kind_of(keys.app_id) not in ("mini_program", None):
            raise WrongAppKind(_NO_KEY)
        opened = self._opened(keys, encrypted_data, iv)
        if opened is None:
            raise SessionKeyExpired(
                "the stored session_key does not decrypt it: log in again (wx.login, POST /v1/login), then let the "
                "person tap again, because data encrypted earlier cannot be decrypted"
            )
        check_watermark(opened, app_id=keys.app_id, now=now)
        log.info("data_decrypted", user_id=principal.id, app_id=keys.app_id, session_id=principal.session_id)
        return opened

    async def sign(
        self, app_id: str, keys: Sequence[KeyOfLogin], data: bytes, *, is_checked: bool, by: Actor
    ) -> SignatureAnswer:
        """Sign with the newest session_key of an identity, of which there must be one.

        WeChat accepts only the key that it gave last. With `is_checked`, WeChat checks it. The audit trail records
        once a day that a client signs for an app.

        Raises: UnknownApp, WrongAppKind, NotFound, InvalidRequest (the user has several identities in the app),
            AccountDisabled, AccountLeaving, SessionKeyExpired, other WeChatError.
        """
        app = self.apps.find(app_id)
        if not app.is_mini_program:
            raise WrongAppKind(_NO_KEY)
        if not keys:
            raise NotFound("there is no such user in this app")
        if len(keys) > 1:
            raise InvalidRequest.of("openid", "Field required: this user has several identities in this app")
        key = keys[0]
        if key.status == UserStatus.DISABLED:
            raise AccountDisabled(until=key.banned_until, user_id=key.user_id)
        if key.erase_at is not None:
            raise AccountLeaving(key.erase_at, user_id=key.user_id)
        session_key = self._unsealed(app_id, key.openid, key.sealed)
        if session_key is None or (
            is_checked and not await self.wechat_api.check_session_key(app, openid=key.openid, session_key=session_key)
        ):
            raise SessionKeyExpired("log in again (wx.login, POST /v1/login), then try once more")
        await self._note_signing(app_id, by)
        return {"signature": digest(session_key, data, sha256).hex(), "openid": key.openid}

    async def check(self, user_id: UUID) -> Sequence[SessionKeyState]:
        """Check with WeChat the stored key of each identity of a user. Raises: NotFound."""
        return await asyncio.gather(*(self._state(key) for key in await self._current_keys(user_id)))

    async def reset(self, user_id: UUID, *, app_id: str | None, by: Actor) -> Sequence[SessionKeyState]:
        """Have WeChat replace the keys of a user's identities, or of the identity in one app, and store the new ones.

        This is done one by one: if a new key cannot be stored, no other key is replaced.

        Raises: NotFound, UnknownApp, WrongAppKind.
        """
        if app_id is not None and not self.apps.find(app_id).is_mini_program:
            raise WrongAppKind(_NO_KEY)
        keys = await self._current_keys(user_id)
        return [await self._state(key, resets=by) for key in keys if app_id in (None, key.app_id)]

    async def _note_signing(self, app_id: str, by: Actor) -> None:
        now = self.clock()
        if self._signed_on.get((by.name, app_id)) != now.date():
            await record_daily(self.database, EventType.CLIENT_SIGNED, by=by, app_id=app_id, now=now)
            self._signed_on[by.name, app_id] = now.date()

    async def _current_keys(self, user_id: UUID) -> Sequence[SealedSessionKey]:
        return await self.database.rows(CURRENT_KEYS, user_id=await current_user(self.database, user_id))

    async def _state(self, key: SealedSessionKey, *, resets: Actor | None = None) -> SessionKeyState:
        """Have WeChat check a key, or replace it if somebody resets it."""
        valid, error = None, None
        try:
            app = self.apps.find(key.app_id)
            if not app.is_mini_program:
                raise WrongAppKind(_NO_KEY)
            session_key = self._unsealed(key.app_id, key.openid, key.sealed)
            if session_key is None:
                error = SessionKeyExpired.code
            elif resets is None:
                valid = await self.wechat_api.check_session_key(app, openid=key.openid, session_key=session_key)
            else:
                anew = await self.wechat_api.reset_session_key(app, openid=key.openid, session_key=session_key)
                valid = await self._store(key, anew, by=resets)
        except SessionKeyExpired:
            valid = False
        except (UnknownApp, WrongAppKind, WeChatError) as exc:
            error = exc.code
        return SessionKeyState(app_id=key.app_id, openid=key.openid, valid=valid, error=error)

    async def _store(self, key: SealedSessionKey, anew: bytes, *, by: Actor) -> bool:
        """Store a new key in the session of the former one. Returns False if the session has ended."""
        assert key.session_id is not None, "a key is stored with its session"
        sealed = self.sealer.seal(anew, context=session_key_context(key.app_id, key.openid))
        async with self.database.begin() as transaction:
            user_id = await lock_user_by(transaction, USER_OF_SESSION, session_id=key.session_id)
            if (
                user_id is None
                or await transaction.value(REPLACE_KEY, session_id=key.session_id, sealed=sealed) is None
            ):
                return False
            kind, now, data = EventType.SESSION_KEY_RESET, self.clock(), {"session_id": key.session_id}
            await record_event(transaction, kind, by=by, at=now, user_id=user_id, app_id=key.app_id, data=data)
        log.info("session_key_reset", user_id=user_id, app_id=key.app_id, session_id=key.session_id, actor=by.name)
        return True

    def _opened(self, keys: KeysInSession, encrypted_data: bytes, iv: bytes) -> dict[str, Any] | None:
        # WeChat now encrypts with the newest key. The session's own key decrypts data from before the newest login.
        for sealed in dict.fromkeys((keys.newest, keys.own)):
            session_key = self._unsealed(keys.app_id, keys.openid, sealed)
            if session_key is not None:
                opened = open_encrypted_data(encrypted_data, iv=iv, session_key=session_key)
                if opened is not None:
                    return opened
        return None

    def _unsealed(self, app_id: str, openid: str, sealed: bytes | None) -> bytes | None:
        """A stored key; None if none is stored, or if no secret key opens it."""
        if sealed is None:
            return None
        try:
            return self.sealer.open(sealed, context=session_key_context(app_id, openid))
        except CannotOpen as exc:
            log.error("session_key_not_unsealed", app_id=app_id, reason=str(exc), what_to_change=WRONG_SECRET_KEY)
            return None
