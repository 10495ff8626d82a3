"""The simulated APIs about session_keys, whose callers sign with a person's session_key."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.api_calls import Answer, Call, ok, require
from wxauth_desk.wechat.controls import AppState
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import MAX_SESSION_KEYS, IssuedSessionKeys, random_16_bytes

_ENCRYPT_KEY_LIFETIME_SECONDS: Final = 3600  # after this time, the next call creates a new key
_MAX_ENCRYPT_KEYS: Final = 3  # like WeChat, the API returns only a person's latest keys


@dataclass
class SessionKeyApis:
    """The APIs about session_keys, and the keys with which phones encrypt data."""

    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    _encrypt_keys: BoundedDict[str, list[dict[str, Any]]] = field(  # by openid, the newest first
        init=False, default_factory=lambda: BoundedDict(MAX_SESSION_KEYS)
    )

    def check(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `checksession`."""
        openid, signature = call.query.get("openid", ""), call.query.get("signature", "")
        require(call.query.get("sig_method") == "hmac_sha256", Errcode.WRONG_SIG_METHOD)
        require(self.session_keys.is_signed(openid, signature), Errcode.WRONG_SESSION_SIGNATURE)
        return ok()

    def reset(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `resetusersessionkey`."""
        openid = call.query.get("openid", "")
        require(self.session_keys.current(openid) is not None, Errcode.NO_SESSION_KEY)
        self.check(call, account)
        return ok(openid=openid, session_key=self.session_keys.reset(openid))

    def read_encrypt_keys(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getuserencryptkey`."""
        self.check(call, account)
        now = self.clock()
        keys = self._encrypt_keys.setdefault(call.query["openid"], [])
        if not keys or keys[0]["create_time"] + _ENCRYPT_KEY_LIFETIME_SECONDS <= now:
            version = keys[0]["version"] + 1 if keys else 1
            new_key = {
                "encrypt_key": random_16_bytes(),
                "iv": random_16_bytes(),
                "version": version,
                "create_time": now,
            }
            keys.insert(0, new_key)
            del keys[_MAX_ENCRYPT_KEYS:]
        shown = [{**key, "expire_in": max(0, key["create_time"] + _ENCRYPT_KEY_LIFETIME_SECONDS - now)} for key in keys]
        return ok(key_info_list=shown)
